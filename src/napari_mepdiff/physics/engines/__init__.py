"""Engines that evaluate the likelihood: cores (FFTW and numba), PyTorch, PtyRAD."""
