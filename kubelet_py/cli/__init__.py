"""kubelet_py.cli."""
