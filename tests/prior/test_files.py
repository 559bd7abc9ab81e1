"""Priors on disk: what is written comes back, and what is no prior is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib import resources

import pytest
import torch
from safetensors.torch import save_file

from napari_mepdiff.prior import files
from napari_mepdiff.prior.model import Prior, PriorError, bundled

from .nets import TINY, noise, tiny


def test_weights_come_back(tmp_path):
    prior = tiny(info={"samples": 7})
    digest = prior.save(tmp_path / "p.safetensors", torch.float32)
    again = Prior.load(tmp_path / "p.safetensors", precision="float32")
    z = noise(4, 32, 32)
    assert torch.equal(again(z, -3.0), prior(z, -3.0))
    assert again.info == {"samples": 7}
    assert again.network.config == TINY
    assert len(digest) == 64
    half = tmp_path / "h.safetensors"
    prior.save(half)
    assert half.stat().st_size < 0.6 * (tmp_path / "p.safetensors").stat().st_size
    assert (Prior.load(half, precision="float32")(z, -3.0) - prior(z, -3.0)).abs().max() < 0.1


def test_what_is_not_a_prior_is_refused_with_the_reason(tmp_path):
    z = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no such prior"):
        Prior.load(z)
    with pytest.raises(FileNotFoundError, match="no prior 'huge'"):
        Prior.load("huge")
    z.write_bytes(b"nonsense")
    with pytest.raises(PriorError, match="damaged"):
        Prior.load(z)
    save_file({"a": torch.ones(2)}, z)
    with pytest.raises(PriorError, match="not a prior"):
        Prior.load(z)
    for name in ("model.pkl", "model.bin", "model.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(PriorError, match="pickled models are refused"):
            Prior.load(tmp_path / name)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(PriorError, match="refused"):
        Prior.load(tmp_path / "model.pt")


def _header(**change):
    base = {
        "format": "mepdiff-prior",
        "version": "1",
        "network": TINY.model_dump_json(),
        "voxel_size": "[1.6, 0.2, 0.2]",
        "energy": "300",
        "scale": "25",
        "info": "{}",
    }
    return {k: v for k, v in {**base, **change}.items() if v is not None}


@pytest.mark.parametrize(
    ("change", "state", "message"),
    [
        ({"version": "2"}, {}, "newer version"),
        ({"network": "{}"}, {}, "does not say"),
        ({"network": None}, {}, "does not say"),
        ({}, {"stem.weight": torch.zeros(1)}, "do not fit"),
        ({}, {"extra": torch.zeros(1)}, "do not fit"),
        ({}, {"stem.bias": torch.full((8,), float("nan"))}, "NaN"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, state, message):
    full = {k: v.clone().contiguous() for k, v in tiny().network.state_dict().items()}
    save_file({**full, **state}, tmp_path / "x.safetensors", metadata=_header(**change))
    with pytest.raises(PriorError, match=message):
        Prior.load(tmp_path / "x.safetensors")


def test_bundled_weights_are_checked_against_their_hash(tmp_path, monkeypatch):
    digest = tiny().save(tmp_path / "mine.safetensors")
    (tmp_path / "weights.json").write_text(json.dumps({"mine": digest}))
    monkeypatch.setattr(files, "of_package", lambda name: (tmp_path / "mine.safetensors", digest))
    assert Prior.load("mine").network.config == TINY
    with open(tmp_path / "mine.safetensors", "r+b") as handle:
        handle.seek(-3, 2)
        handle.write(b"\x01")
    with pytest.raises(PriorError, match="not those that were shipped"):
        Prior.load("mine")


def test_the_shipped_prior_is_there_small_and_sound():
    assert "compact" in bundled()
    folder = resources.files("napari_mepdiff.prior") / "weights"
    assert (folder / "compact.safetensors").stat().st_size < 20e6
    assert "CC-BY" in (folder / "compact.md").read_text()
    prior = Prior.load()
    assert prior.info["samples"] > 1000
    assert prior.voxel_size == (1.6, 0.2, 0.2)


def test_a_prior_is_read_without_the_packages_that_training_needs(tmp_path):
    """Who only reconstructs need not install what training stands on, also with weights from a
    training run.
    """
    prior = tiny(info={"samples": 12})
    state = {"average": prior.network.state_dict(), "prior": prior.card.texts()}
    torch.save(state, tmp_path / "checkpoint.pt")
    code = (
        "import sys\n"
        "from napari_mepdiff.prior.model import Prior\n"
        f"print(Prior.load({str(tmp_path)!r}).info)\n"
        "for name in ('napari_mepdiff.training', 'pyarrow', 'accelerate', 'matplotlib'):\n"
        "    assert not any(m == name or m.startswith(name + '.') for m in sys.modules), name\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "{'samples': 12}"


def test_a_checkpoint_that_does_not_describe_its_network_says_what_to_do(tmp_path):
    state = {"average": tiny().network.state_dict(), "format": "mepdiff-training"}
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(PriorError, match="resume its run for a step"):
        Prior.load(tmp_path)
