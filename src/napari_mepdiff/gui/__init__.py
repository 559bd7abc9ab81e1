"""The napari plugin: the only floor that knows Qt and napari. Docks over one session; all work is done below."""
