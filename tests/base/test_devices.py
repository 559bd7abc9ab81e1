"""Which devices are taken, which are refused, and what is said."""

import subprocess
import sys

import pytest
import torch

from napari_mepdiff.base import devices
from napari_mepdiff.base.devices import load_torch, on_trial, require_device, torch_trouble


@pytest.fixture
def apple(monkeypatch):
    """A machine on which tensors can be made on 'mps' (they are made on the CPU)."""
    original = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, device=None, **k: original(*a, **k))
    monkeypatch.setattr(devices, "_trusted", set())


def test_apples_gpu_is_refused_with_the_reason(apple):
    """Its convolutions gave crystals that were not there, without a word."""
    for name in ("mps", "mps:0"):
        with pytest.raises(
            ValueError, match=r"refused: .*three-dimensional convolutions wrongly.*'cpu'"
        ):
            require_device(name)
    assert require_device("cuda:0") == "cuda:0"  # needs no proof to be named
    with on_trial("mps"):
        assert require_device("mps") == "mps"
    with pytest.raises(ValueError, match="refused"):
        require_device("mps")
    devices.trust("mps")
    with on_trial("mps"):
        pass
    assert require_device("mps") == "mps"


def test_bf16_is_not_taken_where_onednn_may_not_use_it(monkeypatch):
    """It would be emulated: a step of the prior that takes 0.25 s in float32 took 21."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for limit, taken in (("", True), ("AVX512_CORE_BF16", True), ("avx2", False)):
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "DEFAULT")
            monkeypatch.setenv("DNNL_MAX_CPU_ISA", "DEFAULT")
            monkeypatch.setenv(name, limit)
            assert devices.has_bf16("cpu") == taken


def test_a_device_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"the device 'cuda' cannot be used: .*choose 'cpu'"):
        require_device("cuda")
    with pytest.raises(ValueError, match="cannot be used"):
        require_device("quantum")
    assert devices.devices()[-1].name == "cpu"


DLL = (
    "[WinError 1114] A dynamic link library (DLL) initialization routine failed. "
    'Error loading "C:\\python\\torch\\lib\\c10.dll" or one of its dependencies.'
)


def test_pytorch_after_qt_on_windows_says_what_to_do(monkeypatch):
    """Users met a bare WinError 1114 and no way out."""
    monkeypatch.setattr(sys, "platform", "win32")
    text = torch_trouble(OSError(DLL))
    assert "WinError 1114" in text
    assert "when Qt was loaded first" in text
    assert 'python -c "import torch; from napari.__main__ import main; main()"' in text
    assert 'pip install "torch<2.9"' in text
    assert torch_trouble(OSError(28, "No space left on device")) is None
    assert torch_trouble(ValueError("torch")) is None
    monkeypatch.setattr(sys, "platform", "linux")
    assert "install it anew" in torch_trouble(OSError("libtorch_cpu.so: cannot open shared object"))


def test_loading_pytorch_raises_what_helps(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise OSError(DLL)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(OSError, match="when Qt was loaded first"):
        load_torch()


def test_a_run_that_cannot_load_pytorch_says_so(monkeypatch):
    from napari_mepdiff.session.work import plain_words

    monkeypatch.setattr(sys, "platform", "win32")
    assert "when Qt was loaded first" in plain_words(OSError(DLL))


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, napari_mepdiff, logging; from napari_mepdiff.base import log, devices;"
        "print([m for m in ('torch', 'numpy', 'napari', 'qtpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
