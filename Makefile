# Two commands: `make demo` and `make test`. Both build their own environment in .venv.
PYTHON ?= python3
VENV := .venv
PACKAGES := xvfb xauth libegl1 libgl1 libgl1-mesa-dri libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libglib2.0-0 libxcb-cursor0 \
  libxcb-icccm4 libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-xkb1 libxcb-shape0
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint install clean system display streaming

install: $(STAMP)

# a bare Debian machine may lack the venv module, and a C compiler for the odd package without a wheel
system:
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
	      python3 python3-venv python3-pip ca-certificates; \
	  else echo "Python's venv module is missing: install python3-venv"; exit 1; fi; }

# napari without a screen needs Xvfb and software OpenGL; as root on Debian they are installed, and elsewhere named
display:
	@if [ "$$(uname)" = Linux ]; then missing=$$(DISPLAY_PACKAGES="$(PACKAGES)"; \
	  for p in $$DISPLAY_PACKAGES; do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q "install ok installed" || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing >/dev/null; \
	  elif [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ] && ! command -v xvfb-run >/dev/null; then \
	    echo "There is no screen, and no Xvfb to make one. As root: apt-get install" $$missing; exit 1; \
	  fi; fi; fi

$(STAMP): pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $(STAMP)

demo: $(STAMP) display
	$(BIN)/python -m napari_mepdiff.demo --output demo_output

# the tests of the docks run in a viewer of their own screen, so that nobody's mouse is in the way
XVFB = $(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1600x1000x24",)
test: $(STAMP) display
	$(XVFB) $(BIN)/python -m pytest

test-slow: $(STAMP) display
	$(XVFB) $(BIN)/python -m pytest -m slow

streaming: $(STAMP) display
	$(BIN)/python benchmarks/streaming.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo_output
