"""The napari plugin: the only floor with Qt and napari. Docks over one session, thin."""
