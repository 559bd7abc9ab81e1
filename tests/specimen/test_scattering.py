"""Scattering factors against abTEM's, and against what is known of atoms without it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.specimen.scattering import projected_factor

K2 = np.add.outer(np.fft.fftfreq(48, 0.2) ** 2, np.fft.rfftfreq(40, 0.173) ** 2)


@pytest.mark.parametrize("number", range(1, 104))
def test_they_are_abtems_to_the_last_bit(number):
    """The atoms that the posterior places and the atoms of simulated data would differ
    otherwise."""
    parametrizations = pytest.importorskip("abtem.parametrizations")
    from ase.data import chemical_symbols

    theirs = parametrizations.LobatoParametrization().projected_scattering_factor(
        chemical_symbols[number]
    )
    assert np.array_equal(projected_factor(number, K2), np.asarray(theirs(K2)))


@pytest.mark.parametrize("number", [1, 6, 8, 22, 38, 79])
def test_far_out_every_atom_is_its_nucleus(number):
    """Mott and Bethe: f(k) → Z / (2 π² a₀ k²) where electrons do not reach; V = 47.878 V·Å² · f."""
    k2 = np.array([36.0])
    nucleus = number / (2 * np.pi**2 * 0.529177 * k2) * 47.878
    assert projected_factor(number, k2) == pytest.approx(nucleus, rel=0.16)


def test_an_element_without_parameters_is_refused():
    with pytest.raises(ValueError, match="atomic number 104"):
        projected_factor(104, K2)
