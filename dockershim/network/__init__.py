"""dockershim.network."""
