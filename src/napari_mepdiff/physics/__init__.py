"""Electrons through a specimen: optics, scan, multislice and its likelihood (torch; FFTW and numba
on CPU cores)."""
