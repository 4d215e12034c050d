"""dockershim.errors."""
