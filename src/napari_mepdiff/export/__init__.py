"""Volumes to files that other programs open."""
