import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from napari_mepdiff.physics.optics import interaction_parameter
from napari_mepdiff.specimen.atoms import atoms_in
from napari_mepdiff.specimen.cif import load_crystal
from napari_mepdiff.specimen.lattice import any_orientation, cut_box, fill_box, orientation
from napari_mepdiff.specimen.render import render
from napari_mepdiff.specimen.volume import Volume

from ..conftest import CRYSTALS
from ..needs import needs


def test_cif_and_atoms_give_the_same_crystal(tmp_path):
    cell = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    write(tmp_path / "nacl.cif", cell)
    a, b = load_crystal(tmp_path / "nacl.cif"), load_crystal(cell)
    assert sorted(a.numbers) == sorted(b.numbers)
    assert np.allclose(a.cell.lengths(), b.cell.lengths(), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not a crystal", "cannot be read"),
        ("", "cannot be read"),
        (
            "data_x\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n"
            "_cell_angle_alpha 90\n_cell_angle_beta 90\n"
            "_cell_angle_gamma 90\nloop_\n_atom_site_label\n"
            "_atom_site_type_symbol\n_atom_site_fract_x\n"
            "_atom_site_fract_y\n"
            "_atom_site_fract_z\n_atom_site_occupancy\nFe1 Fe 0 0 0 0.5\n",
            "occupied",
        ),
    ],
)
def test_bad_cifs_are_named(tmp_path, text, message):
    (tmp_path / "x.cif").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_crystal(tmp_path / "x.cif")
    with pytest.raises(FileNotFoundError):
        load_crystal(tmp_path / "y.cif")
    with pytest.raises(ValueError, match="unit cell"):
        load_crystal(Atoms("H", positions=[[0, 0, 0]]))


@pytest.mark.parametrize("axis", ["a", "b", "c", (1, 1, 0), (1, 2, 3)])
def test_the_zone_axis_points_along_the_beam(axis):
    cell = load_crystal(CRYSTALS / "CuWO4.cif").cell.array
    turn = orientation(cell, axis, np.radians(17))
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    uvw = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0, 1)}.get(axis, axis)
    along = turn @ (np.array(uvw) @ cell)
    assert np.allclose(along[:2], 0, atol=1e-9)
    assert along[2] > 0
    with pytest.raises(ValueError, match="zone axis"):
        orientation(cell, "d")
    with pytest.raises(ValueError, match="not all zero"):
        orientation(cell, (0, 0, 0))


def test_a_box_holds_the_density_of_the_crystal_whatever_its_orientation():
    cell = load_crystal(CRYSTALS / "CuWO4.cif")
    size = (25.6, 25.6, 25.6)
    expected = len(cell) / cell.cell.volume * np.prod(size)
    for axis, rotation in (("a", 0), ("c", 33), ((1, 1, 1), 80)):
        box = cut_box(cell, size, zone_axis=axis, rotation=rotation)
        assert len(box) == pytest.approx(expected, rel=0.05)
        assert (box.positions >= -1e-6).all()
        assert (box.positions < 25.6).all()
        d = box.get_all_distances()
        assert d[np.triu_indices(len(d), 1)].min() > 1.5  # no atom twice


def test_whole_cells_are_counted_exactly():
    box = cut_box(bulk("Cu", cubic=True, a=3.2), (12.8, 12.8, 12.8), zone_axis="c")
    assert len(box) == 4 * 4**3


def test_vacancies_are_the_fraction_asked_for_and_seeded():
    cell = bulk("Cu", cubic=True, a=3.2)
    whole = len(cut_box(cell, (32, 32, 32)))
    one = cut_box(cell, (32, 32, 32), vacancies=0.01, seed=5)
    assert len(one) == pytest.approx(0.99 * whole, abs=25)
    assert len(one) < whole
    assert np.array_equal(
        one.positions, cut_box(cell, (32, 32, 32), vacancies=0.01, seed=5).positions
    )
    with pytest.raises(ValueError, match="atoms; make it smaller"):
        cut_box(cell, (1e4, 1e4, 1e4))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_filled_for_training_is_the_box_cut_for_simulation(axis):
    """One crystal, one geometry: the prior learns crystals as they are simulated."""
    crystal = load_crystal(CRYSTALS / "CuWO4.cif")
    cell, angle = crystal.cell.array, 0.3
    numbers, positions = fill_box(
        cell, crystal.numbers, crystal.get_scaled_positions(), (12.8, 12.8, 12.8),
        orientation(cell, "abc"[axis], angle), np.full(3, 0.11), 4.0,
    )  # fmt: skip
    turned = cell @ orientation(cell, "abc"[axis], angle).T
    box = cut_box(
        crystal, zone_axis="abc"[axis], rotation=np.degrees(angle), margin=4.0,
        shift=tuple((np.full(3, 0.11) @ turned)[::-1]),
    )  # fmt: skip
    order = np.lexsort((positions[:, 2], positions[:, 1], positions[:, 0]))
    assert np.allclose(positions[order], box.positions[:, ::-1], atol=1e-9)
    assert np.array_equal(numbers[order], box.numbers)


def test_any_direction_comes_to_lie_along_the_beam():
    rng = np.random.default_rng(0)
    for direction in [*rng.normal(size=(20, 3)), np.array([0.0, 0, 2]), np.array([-1.0, 0, 0])]:
        turned = any_orientation(direction, 0.4)
        assert np.allclose(turned @ turned.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turned) == pytest.approx(1)
        assert np.allclose(turned @ direction, [0, 0, np.linalg.norm(direction)], atol=1e-12)


@needs("abtem")
def test_render_is_sigma_times_the_projected_potential_of_abtem():
    import abtem

    atoms = Atoms("Ba", positions=[[6.4, 5.2, 2.0]], cell=[12.8, 12.8, 6.4], pbc=True)
    volume = render(atoms, (4, 64, 64))
    direct = (
        abtem.Potential(
            atoms, gpts=64, slice_thickness=1.6, parametrization="lobato", projection="infinite"
        )
        .build(lazy=False)
        .array
    )
    ours = volume.array / interaction_parameter(300)
    assert (
        np.abs(ours[1] - direct[1].T).max() < 0.01 * direct.max()
    )  # the margin takes the periodic images away
    assert volume.array[1].sum() / volume.array.sum() > 0.999
    y, x = np.unravel_index(volume.array[1].argmax(), (64, 64))
    assert (y, x) == (26, 32)
    assert volume.unit == "rad"
    with pytest.raises(ValueError, match="box ends"):
        render(atoms, (1, 64, 64))


@needs("abtem")
def test_atoms_of_the_margin_reach_in_but_are_not_counted():
    atoms = Atoms(
        "BaBa", positions=[[6.4, 6.4, 1.0], [-0.4, 3.0, 1.0]], cell=[12.8, 12.8, 1.6], pbc=True
    )
    volume = render(atoms, (1, 64, 64))
    assert volume.array[0, 15, 0] > 0.1
    assert volume.array[0, 15, 63] < 0.01
    assert len(atoms_in(atoms, volume)["numbers"]) == 1


def test_volume_keeps_units_and_place(tmp_path):
    v = Volume(
        np.random.default_rng(0).random((8, 10, 12)),
        (1.6, 0.2, 0.25),
        (0.0, 1.0, 2.0),
        energy=300,
        provenance={"made_by": "a test", "seed": 3},
    )
    part = v.crop(slice(2, 6), slice(1, 5), slice(3, None))
    assert part.shape == (4, 4, 9)
    assert part.origin == pytest.approx((3.2, 1.2, 2.75))
    volts = v.to_unit("V·Å")
    assert volts.array.max() == pytest.approx(v.array.max() / interaction_parameter(300))
    assert np.allclose(volts.to_unit("rad").array, v.array)
    v.save(tmp_path / "v.h5")
    again = Volume.load(tmp_path / "v.h5")
    assert np.array_equal(again.array, v.array)
    assert (again.voxel_size, again.origin, again.unit, again.energy, again.provenance) == (
        v.voxel_size,
        v.origin,
        v.unit,
        v.energy,
        v.provenance,
    )


def test_impossible_volumes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="D, H, W"):
        Volume(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="NaN"):
        Volume(np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="voxel size"):
        Volume(np.zeros((2, 2, 2)), (0, 1, 1))
    with pytest.raises(ValueError, match="beam energy"):
        Volume(np.zeros((2, 2, 2))).to_unit("V·Å")
    with pytest.raises(ValueError, match="empty"):
        Volume(np.zeros((2, 2, 2))).crop(slice(5, 6))
    (tmp_path / "x.h5").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        Volume.load(tmp_path / "x.h5")
