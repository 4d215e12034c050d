"""kubelet_py.managers."""
