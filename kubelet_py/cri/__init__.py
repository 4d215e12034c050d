"""kubelet_py.cri."""
