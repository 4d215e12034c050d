"""dockershim.__main__."""
