"""kubelet_py.server."""
