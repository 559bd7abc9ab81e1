"""The fast renderer against abTEM."""

from __future__ import annotations

import numpy as np
import torch

from napari_mepdiff.specimen.atoms import structure_of
from napari_mepdiff.specimen.kernels import MARGIN
from napari_mepdiff.specimen.render import render, render_batch
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.stream import VOXEL_SIZE, CrystalStream

from ..needs import needs


def _compare(count, seed):
    from ase import Atoms

    shape = (8, 64, 64)
    size = tuple(n * v for n, v in zip(shape, VOXEL_SIZE, strict=True))
    stream = CrystalStream(load_structures(), seed=seed)
    rng = np.random.default_rng(seed)
    pairs = [stream.atoms(rng, size, MARGIN) for _ in range(count)]
    ours = render_batch(pairs, shape).numpy()
    errors = []
    for (numbers, positions), volume in zip(pairs, ours, strict=True):
        atoms = Atoms(numbers, positions=positions[:, ::-1], cell=[12.8, 12.8, 12.8], pbc=True)
        truth = render(atoms, shape).array
        errors.append(np.linalg.norm(volume - truth) / np.linalg.norm(truth))
    return np.array(errors)


@needs("abtem")
def test_200_random_crystals_are_rendered_as_abtem_does():
    assert _compare(200, seed=2).max() < 1e-4


def test_atoms_on_the_faces_and_outside():
    one = np.array([14])
    edge = render_batch([(one, np.array([[0.0, -0.4, 3.0]]))], (2, 32, 32))[0]
    assert edge[0, 0, 15] > 0.05  # reaches in
    assert edge[0, 31].abs().max() < 0.01  # but does not wrap around
    outside = render_batch(
        [(one, np.array([[5.0, 3.0, 3.0]])), (one, np.array([[1.0, 30.0, 3.0]]))], (2, 32, 32)
    )
    assert outside.abs().max() == 0
    upper = render_batch([(one, np.array([[1.6, 3.0, 3.0]]))], (2, 32, 32))[0]
    assert upper[0].abs().max() == 0
    assert upper[1].max() > 0.1


def test_a_batch_is_what_its_members_are_alone():
    stream = CrystalStream(load_structures().part("validation"))
    _, pairs, _ = stream.fixed(limit=5)
    together = render_batch(pairs)
    alone = torch.cat([render_batch([p]) for p in pairs])
    assert (together - alone).abs().max() < 1e-5


@needs("abtem")
def test_other_voxels_and_energies():
    from ase import Atoms

    atoms = Atoms("SrO", positions=[[3.0, 4.1, 0.5], [5.2, 2.2, 2.5]], cell=[9, 9, 4], pbc=True)
    kwargs = {"shape": (2, 36, 30), "voxel_size": (2.0, 0.25, 0.25), "energy": 80.0}
    truth = render(atoms, **kwargs).array
    ours = render_batch([structure_of(atoms)], **kwargs)[0].numpy()
    assert np.linalg.norm(ours - truth) < 1e-3 * np.linalg.norm(truth)


@needs("abtem")
def test_a_thickness_that_is_not_a_round_number_gives_the_slices_that_were_asked_for():
    """7 slices of 9.7667… Å are 68.367… Å, of which abTEM made 8 slices by rounding."""
    from ase import Atoms

    thick = 9.766734374124786
    atoms = Atoms("Sr", positions=[[2.0, 2.0, 60.0]], cell=[4, 4, 7 * thick], pbc=True)
    assert render(atoms, (7, 20, 20), (thick, 0.2, 0.2)).array.shape == (7, 20, 20)
