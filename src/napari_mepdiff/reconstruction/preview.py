"""Preview: the same run with less work, for a first look within seconds on a machine without a GPU."""

from __future__ import annotations

from typing import Any

from .stream import SolverSettings

NOTICE = "preview: fewer steps, every second detector pixel, a part of the positions. Do not publish it."
_LESS: dict[str, dict[str, Any]] = {
    # paper's guidance, told the volume of a short ordinary run: a picture after about a second, an answer after ten
    "dps": {"detector_stride": 2, "fraction": 0.15, "steps": 30, "passes": 1, "samples": 1, "evaluations": 20, "guidance": "paper",
            "prior": "compact", "misfit": "poisson"},
    "adam": {"detector_stride": 2, "iterations": 10, "learning_rate": 3e-3},
    "lbfgs": {"detector_stride": 2, "iterations": 2, "evaluations": 10, "learning_rates": (1.0,), "batch": None,
              "line_search": True, "misfit": "poisson", "non_negative": True},
    "atomic": {"detector_stride": 2},
    "refine": {"detector_stride": 2},
}


def preview(solver: str, settings: SolverSettings) -> SolverSettings:
    """Settings of a preview of a run.

    Parameters
    ----------
    solver : str
        Name in the registry. PtyRAD's engine has no detector stride; its previews run on our own.
    settings : SolverSettings
        Of the run that is meant; what a preview does not change stays.
    """
    name = solver.removeprefix("ptyrad-")
    fields = {k: v for k, v in _LESS.get(name, {}).items() if k in type(settings).model_fields}
    if "engine" in type(settings).model_fields:
        fields["engine"] = "own"
    return type(settings).model_validate({**settings.model_dump(), **fields})
