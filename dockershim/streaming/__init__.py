"""dockershim.streaming."""
