"""dockershim-oci: an OCI runtime in front of the real one, for what the Engine API has no words for.

An operator registers it with Docker as a runtime; dockershim gives it only the containers that need it, with an
instruction in their configuration. It edits that configuration and becomes the real runtime. Runs by itself, as root,
once for each call of the runtime, so it imports next to nothing: no `typing`, `re`, `dataclasses` or `pathlib`; `json`
and `ctypes` only where they are used. Must not know the rest of dockershim. Upstream counterpart: none; containerd
writes the configuration itself. docs/adr has the reasons.
"""
