"""Electrons through a specimen: optics, scan, multislice and its likelihood (torch only)."""
