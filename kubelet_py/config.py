"""kubelet_py.config."""
