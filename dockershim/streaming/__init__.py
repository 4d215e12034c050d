"""Exec, attach and port-forward: what runs between a client's connection and Docker or a pod's network.

Owns the loopback server whose URLs the RPCs hand out. Must not know gRPC. Upstream counterpart: cri-streaming and
cri-dockerd's streaming. Deliberate differences: loopback only; tokens are 256 bits; port-forward needs no program on
the host; a process whose client goes away is killed.
"""
