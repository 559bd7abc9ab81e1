# Two commands: `make demo` and `make test`. Both build their own environment in .venv. `make help` lists the rest.
PYTHON ?= python3
TORCH ?=  # a build of PyTorch of your choice, such as torch==2.13.0, for test-base
VENV := .venv
PACKAGES := xvfb xauth libegl1 libgl1 libgl1-mesa-dri libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libglib2.0-0 libxcb-cursor0 \
  libxcb-icccm4 libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-xkb1 libxcb-shape0
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-gpu test-base test-lowest map lint install clean system display streaming help

install: $(STAMP)

# a bare Debian machine may lack Python or its venv module; every package comes as a wheel, so no compiler is needed
OLD = $(PYTHON) -c "import sys; sys.exit(sys.version_info >= (3, 11))" 2>/dev/null
system:
	@$(OLD) || $(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
	      python3 python3-venv python3-pip ca-certificates; \
	  else echo "Python's venv module is missing: install python3-venv"; exit 1; fi; }
	@! $(OLD) || { echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version)."; \
	  echo "If there is a newer one, name it: make PYTHON=python3.12 ..."; exit 1; }

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
	$(BIN)/python -m napari_mepdiff.gui.demo --output demo_output

# two processes of one thread each, each with a screen of its own (pytest-xvfb), so that nobody's mouse is in the way
test: export OMP_NUM_THREADS = 1
test: export NUMBA_NUM_THREADS = 1
test: $(STAMP) display
	$(BIN)/python -m pytest -n 2 --dist load

test-slow: $(STAMP) display
	$(BIN)/python -m pytest -m slow

# on a machine with a CUDA GPU: agreement with the CPU, memory that runs out, determinism
test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

# the base installation alone: no package of an extra, a Qt binding and the tools of the tests beside it
test-base: .venv-base/.installed display
	.venv-base/bin/python -m pytest

.venv-base/.installed: pyproject.toml | system
	$(PYTHON) -m venv --clear .venv-base
	.venv-base/bin/pip install --quiet --disable-pip-version-check $(TORCH) -e ".[test-base]"
	@touch $@

# every direct dependency at its lowest declared version, resolved by uv
test-lowest: .venv-lowest/.installed display
	.venv-lowest/bin/python -W default -m pytest -W default --deselect tests/test_package.py::test_types_hold

.venv-lowest/.installed: pyproject.toml | system
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e ".[test]"
	@touch $@

# the floors of the house as a picture, drawn from the imports
map: $(STAMP)
	$(BIN)/python docs/map.py

streaming: $(STAMP) display
	$(BIN)/python benchmarks/streaming.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-base .venv-lowest demo_output

help:
	@grep -B1 -E '^[a-z-]+:' Makefile | grep -E '^#|^[a-z-]+:' | sed "s/:.*//" | uniq
