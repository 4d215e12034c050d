"""The words in which dockershim tells dockershim-oci what to do with a container.

Pure constants; both sides import them. The instruction is a JSON object in the container's OCI configuration, under
`linux.sysctl[KEY]`: the one map of strings that every engine hands to its runtime as it is. A runtime that does not
know the key refuses to make the container, so an instruction is carried out or is an error, never lost.
"""

PROGRAM = "dockershim-oci"
SPOOLER_VERB = "spooler"
"""Of its own: serves a directory as the spooler of containers' output."""
USER_NAMESPACES_VERB = "user-namespaces"
"""Of its own: prints why containers below a directory cannot have them; nothing if they can."""
KEY = "dockershim.oci"
VERSION = "version"
CURRENT_VERSION = 1

STRICT_GROUPS = "strict_groups"
"""Groups of the first process beside its primary one, by number: these and no others."""
RECURSIVE_READ_ONLY = "recursive_read_only"
"""Destinations of mounts that are read-only with all that is mounted below them."""
AMBIENT_CAPABILITIES = "ambient_capabilities"
"""Capabilities that stay with a process that is not root."""
POSSIBLE_CAPABILITIES = "possible_capabilities"
"""True: leave out the capabilities that this host cannot give, which an old engine puts into privileged containers."""
CDI = "cdi"
"""Device nodes, mounts and hooks of CDI devices; nodes and hooks as CDI has them, mounts as OCI has them."""
LOG_SPOOL = "log_spool"
"""The directory of the spool that takes the output of a container without a terminal; see `spool`."""
TERMINAL_SPOOL = "terminal_spool"
"""The same for a container with a terminal; see `terminal`."""
USER_NAMESPACE = "user_namespace"
"""An object: how ids are mapped, and whether the namespace exists already."""
UIDS, GIDS = "uids", "gids"
"""Of a user namespace: lists of [id inside, id on the host, how many]."""
JOINS = "joins"
"""Of a user namespace: true for that of the sandbox whose network and IPC the container shares, else a new one."""
UNMAPPED_MOUNTS = "unmapped_mounts"
"""Of a user namespace: destinations of mounts whose files keep the owners that they have on the host."""
