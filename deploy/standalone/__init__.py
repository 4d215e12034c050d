"""`make up` and `make down`: one node without an API server, on Docker or on containerd, and its complete removal.

This lives beside the programs and not in `kubelet_py/cli`: it installs Debian packages, starts engines and undoes all
of it, which no installed agent should be able to do, and it knows both programs, which may not know each other.
"""
