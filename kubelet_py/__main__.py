"""kubelet_py.__main__."""
