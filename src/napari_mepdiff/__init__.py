"""Multislice electron ptychography with a generative prior, for napari.

Importing this package costs nothing: torch, Qt and the file libraries load with the
module that uses them.
"""

__version__ = "0.1.0"
