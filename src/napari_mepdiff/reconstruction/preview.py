"""Preview: the same run with less work, for a first look within seconds without a GPU."""

from __future__ import annotations

from .settings import SolverSettings

NOTICE = (
    "preview: fewer steps, every second detector pixel, a part of the positions. Do not publish it."
)


def preview(settings: SolverSettings) -> SolverSettings:
    """Settings of a preview of a run; each solver says what is less work for it.

    Parameters
    ----------
    settings : SolverSettings
        Of the run that is meant; what a preview does not change stays. PtyRAD's engine has no
        detector stride; its previews run on our own.
    """
    return settings.preview()
