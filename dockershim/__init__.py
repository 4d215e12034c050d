"""dockershim."""
