"""kubelet_py.kube."""
