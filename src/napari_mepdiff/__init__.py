"""Multislice electron ptychography with a generative prior, for napari.

Importing this package costs nothing: torch, Qt and the file libraries load with the
module that uses them.
"""

from .base.log import quiet as _quiet

__version__ = "0.1.0"

_quiet()
