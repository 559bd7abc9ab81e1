"""How good a reconstruction is, and figures that show it."""
