"""Whole atoms as the unknowns."""
