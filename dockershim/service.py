"""dockershim.service."""
