"""Solvers without a prior."""
