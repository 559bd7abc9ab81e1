"""The probe that a refinement begins with: from its parameters where it is made of such."""

from __future__ import annotations

from torch import Tensor

from ...physics.illumination import Illumination
from ..problem import Problem
from .probe_block import OpticsBlock, with_modes
from .refine_settings import RefineSettings

SOURCE = 0.2  # of λ/α, rms: what a source is taken for before anything is known
SOFT_EDGE = 0.6  # mrad: likewise, of an aperture as it is sampled


def first_probe(problem: Problem, s: RefineSettings) -> tuple[Tensor, OpticsBlock | None]:
    """Modes, (M, Ky, Kx) complex64, centred, √electrons, and their parameters if they have some.

    An earlier run's probe has its pixels, which are gone on with; where only optics are to be
    fitted (``probe="optics"``), it begins again from the optics that were read off them.

    Raises
    ------
    ValueError
        If optics are to be fitted and nothing says which.
    """
    optics, source = problem.optics, 0.0
    if optics is not None and s.modes > 1:
        source = SOURCE * 1e3 * optics.wavelength / optics.semi_angle
    if optics is None and s.probe == "optics":
        optics = problem.told_here
        if optics is None or (problem.source_size is None and s.modes > 1):
            raise ValueError(
                "the probe is given by its pixels, and no optics were read off them: set Probe to "
                "'free', or leave the probe away so that it is made from semi-angle and defocus"
            )
        source = problem.source_size or 0.0 if s.modes > 1 else 0.0
    if optics is None or s.probe == "fixed":
        wanted = len(problem.probe) if s.probe == "fixed" else s.modes
        return with_modes(problem.probe, wanted), None
    if not optics.soft_edge:
        optics = optics.model_copy(update={"soft_edge": SOFT_EDGE})
    window = (problem.probe.shape[1], problem.probe.shape[2])
    size = (problem.voxel_size[1], problem.voxel_size[2])
    block = OpticsBlock(Illumination(optics, source, 0.0, s.modes, window, size), problem.electrons)
    return block.probe(), block
