"""dockershim.interceptor."""
