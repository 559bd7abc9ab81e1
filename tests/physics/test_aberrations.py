import math

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.aberrations import (
    ABERRATIONS,
    CARTESIAN,
    aberration_basis,
    azimuth_of,
    natural_unit,
    to_cartesian,
    to_polar,
)
from napari_mepdiff.physics.conversions import (
    from_ptyrad,
    from_py4dstem,
    to_abtem,
    to_ptyrad,
    to_py4dstem,
)
from napari_mepdiff.physics.optics import (
    Optics,
    aberration_phase,
    aperture,
    aperture_derivatives,
    frequencies,
    probe_from_parameters,
)
from tests.needs import needs

N, D = 64, 0.2


def _everything() -> Optics:
    """Every coefficient makes about 1 rad at the edge, each with its own azimuth."""
    start = Optics(semi_angle=21.4)
    update: dict[str, float] = {}
    for i, (name, (_, m)) in enumerate(ABERRATIONS.items()):
        size = (0.6 + 0.1 * i) * natural_unit(name, start.semi_angle, start.wavelength)
        update["overfocus" if name == "C10" else name] = size
        if m:
            update[azimuth_of(name)] = 0.2 + 0.07 * i
    return start.model_copy(update=update)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative L2 distance of two normalised waves, up to a global phase."""
    ours, theirs = ours / np.linalg.norm(ours), theirs / np.linalg.norm(theirs)
    overlap = np.vdot(theirs, ours)
    return float(np.linalg.norm(ours - theirs * overlap / abs(overlap)))


def test_phase_is_the_written_formula():
    optics = _everything()
    ky, kx = frequencies((N, N - 10), (D, D))
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2)
    phi = torch.atan2(ky.expand_as(angle), kx.expand_as(angle))
    chi = torch.zeros_like(angle)
    values = to_abtem(optics)
    for name, (n, m) in ABERRATIONS.items():
        azimuth = values.get(azimuth_of(name), 0.0)
        chi += angle ** (n + 1) / (n + 1) * values[name] * torch.cos(m * (phi - azimuth))
    chi *= 2 * math.pi / optics.wavelength
    ours = aberration_phase(optics, ky, kx)
    inside = aperture(optics, ky, kx) > 0
    assert float((ours - chi)[inside].abs().max()) < 1e-11
    assert float((ours - chi).abs().max()) < 1e-11 * float(chi.abs().max())
    none = Optics(overfocus=0, C30=0)
    assert float(aberration_phase(none, ky, kx).abs().max()) == 0
    assert aberration_phase(none, ky, kx).shape == (N, N - 10)


def test_basis_is_linear_in_the_cartesian_coefficients():
    optics = _everything()
    ky, kx = frequencies((N, N), (D, D))
    basis = aberration_basis(CARTESIAN, optics.wavelength, ky, kx)
    assert basis.shape == (25, N, N)
    values = torch.tensor([optics.cartesian[n] for n in CARTESIAN], dtype=torch.float64)
    chi = torch.einsum("p,pyx->yx", values, basis)
    assert torch.allclose(chi, aberration_phase(optics, ky, kx), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="C13a"):
        aberration_basis(["C13a"], 0.02, ky, kx)


def test_polar_and_cartesian_are_the_same_aberrations():
    optics = _everything()
    cartesian = optics.cartesian
    again = to_cartesian(to_polar(cartesian))
    assert again == pytest.approx(cartesian, rel=1e-12)
    for name, (_, m) in ABERRATIONS.items():
        if m:
            azimuth = to_polar(cartesian)[azimuth_of(name)]
            assert -math.pi / m < azimuth <= math.pi / m
    # a negative magnitude and an azimuth a period on are the same thing
    turned = to_polar(to_cartesian({"C12": -5.0, "phi12": 0.3 + math.pi}))
    assert turned["C12"] == pytest.approx(5)
    assert turned["phi12"] == pytest.approx(0.3 - math.pi / 2)
    assert to_polar({"C12a": -2.0, "C12b": -0.0})["phi12"] == pytest.approx(math.pi / 2)
    moved = optics.with_cartesian({"C12b": 7.0, "C10": -3.0})
    assert moved.overfocus == -3
    assert moved.cartesian["C12b"] == pytest.approx(7)
    assert moved.cartesian["C56a"] == pytest.approx(cartesian["C56a"])
    with pytest.raises(ValueError, match="C99"):
        optics.with_cartesian({"C99": 1.0})


@pytest.mark.parametrize("name", ["C10", "C23a", "C45b", "C50", "C56"])
def test_natural_unit_is_one_radian_at_the_edge(name):
    optics = Optics()
    unit = natural_unit(name, optics.semi_angle, optics.wavelength)
    key = name if name[-1] in "ab" or ABERRATIONS[name][1] == 0 else name + "a"
    m = ABERRATIONS[name[:3]][1]
    turn = math.pi / (2 * m) if key.endswith("b") else 0.0
    k = torch.tensor(optics.k_max, dtype=torch.float64)
    at = aberration_basis(
        [key], optics.wavelength, (k * math.sin(turn))[None, None], (k * math.cos(turn))[None, None]
    )
    assert unit * float(at) == pytest.approx(1, rel=1e-12)


def test_optics_written_before_still_load():
    old = {
        "energy": 300.0,
        "semi_angle": 21.4,
        "overfocus": 200.0,
        "C12": 0.0,
        "phi12": 0.0,
        "C21": 0.0,
        "phi21": 0.0,
        "C23": 0.0,
        "phi23": 0.0,
        "C30": 5000.0,
        "soft_edge": 0.0,
    }
    assert Optics.model_validate(old) == Optics()
    optics = _everything()
    assert Optics.model_validate_json(optics.model_dump_json()) == optics


@needs("abtem")
@pytest.mark.parametrize("soft", [False, True])
def test_all_aberrations_and_the_soft_edge_are_abtems(soft):
    import abtem

    optics = _everything()
    if soft:
        pixel = 1e3 * optics.wavelength / (N * D)
        optics = optics.model_copy(update={"soft_edge": pixel, "edge": "linear"})
    ours = probe_from_parameters(optics, (N, N), (D, D), dtype=torch.complex128)[0].numpy()
    with abtem.config.set({"precision": "float64"}):
        theirs = abtem.Probe(
            energy=300e3,
            semiangle_cutoff=21.4,
            soft=soft,
            aberrations=to_abtem(optics),
            gpts=N,
            extent=N * D,
        ).build(abtem.CustomScan(np.array([[N // 2 * D] * 2])), lazy=False)
    assert _distance(ours, np.asarray(theirs.array).reshape(N, N).T) < 1e-4


@needs("ptyrad")
def test_all_aberrations_are_ptyrads_and_come_back():
    from ptyrad.optics.aberrations import Aberrations
    from ptyrad.optics.probe import make_stem_probe

    optics = _everything()
    ours = probe_from_parameters(optics, (N, N), (D, D), dtype=torch.complex128)[0].numpy()
    theirs = make_stem_probe(
        kv=300, conv_angle=21.4, Npix=N, dx=D, aberrations=to_ptyrad(optics), method="polar"
    )
    assert _distance(ours, theirs) < 1e-4
    for notation, style in (("krivanek", "polar"), ("krivanek", "cartesian"), ("haider", "polar")):
        exported = Aberrations(to_ptyrad(optics)).export(
            notation=notation, style=style, round_decimals=None
        )
        back = from_ptyrad(exported, Optics())
        assert back.cartesian == pytest.approx(optics.cartesian, rel=1e-9), (notation, style)


def test_py4dstem_counts_azimuths_from_the_rows():
    """Its x are the rows: an astigmatism that was taken as it is would be mirrored."""
    optics = _everything()
    theirs = to_py4dstem(optics)
    ky, kx = frequencies((N, N), (D, D))
    alpha = (optics.wavelength * torch.sqrt(ky**2 + kx**2)).numpy()
    phi = np.arctan2((kx + 0 * ky).numpy(), (ky + 0 * kx).numpy())  # its polar_coordinates
    chi = np.zeros((N, N))
    for name, (n, m) in ABERRATIONS.items():
        azimuth = theirs[azimuth_of(name)] if m else 0.0
        chi += theirs[name] * alpha ** (n + 1) / (n + 1) * np.cos(m * (phi - azimuth))
    chi *= 2 * np.pi / optics.wavelength
    assert np.allclose(chi, aberration_phase(optics, ky, kx).numpy(), rtol=1e-9, atol=1e-9)
    assert from_py4dstem({"C12": 5.0}, Optics()).phi12 == pytest.approx(np.pi / 2)


def test_names_of_other_packages():
    optics = _everything()
    back = from_py4dstem(to_py4dstem(optics), Optics())
    assert back.model_dump(exclude={"edge"}) == pytest.approx(optics.model_dump(exclude={"edge"}))
    assert from_py4dstem({"defocus": 70.0, "Cs": 9.0}, optics).overfocus == -70
    assert from_py4dstem({"defocus": 70.0}, optics).C56 == 0
    assert from_ptyrad({"defocus": -205.0, "Cs": 9.0}, Optics()).overfocus == 205
    with pytest.raises(ValueError, match="unknown aberration Q7"):
        from_ptyrad({"Q7": 1.0}, Optics())
    with pytest.raises(ValueError, match="not both"):
        from_ptyrad({"C12": 1.0, "C12a": 1.0}, Optics())


@pytest.mark.parametrize("edge", ["cosine", "linear"])
def test_aperture_derivatives_match_finite_differences(edge):
    optics = Optics(soft_edge=3.3, edge=edge)
    ky, kx = frequencies((N, N), (D, D))
    exact = aperture_derivatives(optics, ky, kx)
    h = 1e-6
    for name, derivative in zip(("semi_angle", "soft_edge"), exact, strict=True):
        value = getattr(optics, name)
        high, low = (
            aperture(optics.model_copy(update={name: value + s * h}), ky, kx) for s in (1, -1)
        )
        assert float((derivative - (high - low) / (2 * h)).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="hard aperture"):
        aperture_derivatives(Optics(), ky, kx)
