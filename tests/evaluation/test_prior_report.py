"""Statistics of crystals, nearest neighbours, the report on a prior."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_mepdiff.cli.main import app
from napari_mepdiff.evaluation import prior as report_module
from napari_mepdiff.evaluation.crystallinity import atoms_per_slice, periodicity, statistics
from napari_mepdiff.evaluation.neighbours import descriptor, nearest
from napari_mepdiff.specimen.render import render_batch
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.stream import CrystalStream
from napari_mepdiff.training.validation import GRID, losses

from ..prior.nets import tiny


def _lattice(step, depth=2, size=64):
    y, x = np.meshgrid(np.arange(1.0, 12.8, step), np.arange(1.0, 12.8, step), indexing="ij")
    places = np.stack([np.full(y.size, 0.8), y.ravel(), x.ravel()], axis=1)
    return render_batch([(np.full(len(places), 26), places)], (depth, size, size))[0].numpy(), len(
        places
    )


def test_a_lattice_is_periodic_and_scattered_atoms_are_not():
    lattice, _ = _lattice(2.4)
    rng = np.random.default_rng(0)
    places = np.concatenate([np.full((20, 1), 0.8), rng.uniform(0.5, 12.3, (20, 2))], axis=1)
    scattered = render_batch([(np.full(20, 26), places)], (2, 64, 64))[0].numpy()
    assert periodicity(lattice) > 0.97
    assert periodicity(scattered) < 0.6
    assert periodicity(lattice + rng.normal(0, lattice.std(), lattice.shape)) < periodicity(lattice)


def test_atoms_are_counted_slice_by_slice():
    lattice, count = _lattice(2.4)
    assert atoms_per_slice(lattice).tolist() == [count, 0]


def test_statistics_of_a_flat_volume_and_of_a_stack():
    stack, _ = _lattice(2.4)
    s = statistics(np.stack([stack, np.broadcast_to(stack.mean(axis=0), stack.shape)]))
    assert s.spread[0] > 0.4
    assert s.spread[1] == pytest.approx(0, abs=1e-9)
    assert s.histogram.sum() == pytest.approx(1)
    # Parseval: the power over all frequencies is the mean square; the rings up to the largest
    # circle hold most of it
    assert s.power[0] > 0
    assert s.periodicity.shape == (2,)


def test_a_copy_of_a_training_crystal_is_found_wherever_it_lies():
    structures = load_structures().part("validation").choose(np.arange(25))
    stream = CrystalStream(structures)
    rng = np.random.default_rng(5)
    pair = stream.atoms(rng, (12.8, 12.8, 12.8), 4.0, index=7, axis=1)
    volume = render_batch([pair]).numpy()
    found = nearest(volume, structures, library=300, finalists=3)[0]
    assert found.name == structures.names[7]
    assert found.correlation > 0.5


def test_descriptors_do_not_change_when_a_volume_is_turned():
    structures = load_structures().part("validation")
    volume = CrystalStream(structures).fixed(limit=1)[0][0].numpy()
    other = CrystalStream(structures).fixed(limit=30)[0][29].numpy()
    turned = np.rot90(volume, axes=(1, 2))[::-1]
    assert (
        np.abs(descriptor(volume) - descriptor(turned)).sum()
        < 0.05 * np.abs(descriptor(volume) - descriptor(other)).sum()
    )


def test_validation_losses_are_those_of_the_formula_and_repeat():
    volumes = CrystalStream(load_structures().part("validation")).fixed(limit=4)[0]

    def zero(z, level, condition, flags):
        return torch.zeros_like(z)

    found = losses(zero, volumes, precision="float32")
    assert set(found) == {"none", "sum", "trend", "weighted none", "weighted sum", "weighted trend"}
    # v = α ε − σ x: at λ = −16 it is −x almost alone, and E v² = α² + σ² E x²
    assert found["none"][0] == pytest.approx(float((25 * volumes).square().mean()), rel=1e-2)
    assert len(found["none"]) == len(GRID)
    assert losses(zero, volumes, precision="float32") == found


def test_the_report_has_everything_in_it(tmp_path, monkeypatch):
    # fewer training crystals to search: the search is the same
    monkeypatch.setattr(report_module, "nearest", partial(nearest, library=32, finalists=2))
    tiny().save(tmp_path / "p.safetensors")
    out = CliRunner().invoke(
        app,
        [
            "prior",
            "evaluate",
            str(tmp_path / "p.safetensors"),
            "-o",
            str(tmp_path / "r"),
            "--crystals",
            "3",
            "--samples",
            "2",
            "--depth",
            "1",
            "--steps",
            "3",
            "--part",
            "test",
        ],
    )
    assert out.exit_code == 0, out.output
    text = (tmp_path / "r" / "report.md").read_text()
    for part in (
        "nothing known",
        "x-predictions",
        "Unconditional samples",
        "Nearest training crystals",
        "even spread",
    ):
        assert part in text
    for picture in ("predictions", "samples", "statistics", "depth"):
        assert (tmp_path / "r" / f"{picture}.png").stat().st_size > 5000
    numbers = json.loads((tmp_path / "r" / "report.json").read_text())
    assert numbers["volumes"] == 3
    assert numbers["depth"][0]["even spread"]["depth_correlation"] == pytest.approx(0, abs=1e-6)
    again = CliRunner().invoke(
        app,
        [
            "prior",
            "evaluate",
            str(tmp_path / "p.safetensors"),
            "-o",
            str(tmp_path / "s"),
            "--crystals",
            "3",
            "--losses-only",
            "--part",
            "test",
        ],
    )
    assert again.exit_code == 0
    assert json.loads((tmp_path / "s" / "report.json").read_text())["losses"] == numbers["losses"]


def test_samples_and_information_from_the_command_line(tmp_path):
    tiny(info={"samples": 3}).save(tmp_path / "p.safetensors")
    run = CliRunner()
    out = run.invoke(app, ["prior", "info", str(tmp_path / "p.safetensors")])
    assert '"samples": 3' in out.output
    out = run.invoke(
        app,
        [
            "prior",
            "sample",
            "--prior",
            str(tmp_path / "p.safetensors"),
            "-o",
            str(tmp_path / "v.h5"),
            "--steps",
            "2",
            "--slices",
            "4",
            "--size",
            "16",
            "--count",
            "2",
        ],
    )
    assert out.exit_code == 0, out.output
    from napari_mepdiff.export.volumes import load_volume

    first = load_volume(tmp_path / "v-1.h5")
    assert first.shape == (4, 16, 16)
    assert first.unit == "rad"
    known = run.invoke(
        app,
        [
            "prior",
            "sample",
            "--prior",
            str(tmp_path / "p.safetensors"),
            "-o",
            str(tmp_path / "w.h5"),
            "--steps",
            "2",
            "--condition",
            str(tmp_path / "v-1.h5"),
            "--trust",
            "0.3",
        ],
    )
    assert known.exit_code == 0, known.output
    assert load_volume(tmp_path / "w.h5").shape == (4, 16, 16)
