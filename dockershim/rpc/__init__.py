"""dockershim.rpc."""
