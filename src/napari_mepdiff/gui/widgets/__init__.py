"""Widgets of the docks."""
