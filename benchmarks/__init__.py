"""Measurements of speed and quality, each a command: ``python benchmarks/gradient.py --help``."""
