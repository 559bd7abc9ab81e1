"""Crystals and the phase volumes that they become."""
