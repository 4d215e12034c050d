"""kubelet_py.log."""
