"""kubelet_py."""
