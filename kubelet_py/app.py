"""kubelet_py.app."""
