"""Diffusion posterior sampling."""
