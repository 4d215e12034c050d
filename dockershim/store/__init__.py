"""dockershim.store."""
