"""kubelet_py.sync."""
