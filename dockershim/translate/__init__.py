"""dockershim.translate."""
