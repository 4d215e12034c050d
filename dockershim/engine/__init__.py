"""dockershim.engine."""
