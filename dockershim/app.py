"""dockershim.app."""
