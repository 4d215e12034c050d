"""kubelet_py.host."""
