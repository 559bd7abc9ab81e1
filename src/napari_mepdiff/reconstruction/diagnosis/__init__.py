"""Diagnosis: what a misfit well above shot noise is made of, and what to do about it."""

from __future__ import annotations

from .diagnose import diagnose
from .result import MUCH, WELL, Cause, Diagnosis, Pictures, Remedy

__all__ = ["MUCH", "WELL", "Cause", "Diagnosis", "Pictures", "Remedy", "diagnose"]
