"""How the output of a container with a terminal gets into the spool: a name is lent to us between `create` and `start`.

The terminal belongs to containerd's shim and stays there, so nobody's death hangs it up. What the shim reads from it
goes into a FIFO that it opens by its name, after `create` has returned and before it calls `start`; dockerd has opened
that FIFO before `create` and holds on to the file. So at `create` the name becomes a link to a FIFO of the spool, and
at `start` it is Docker's FIFO again, where a dockerd that restarts looks for it. A name is replaced, never taken away.
A start that fails needs no more: Docker removes the directory with all that is in it. Must not know what the output
means. docs/adr/0007 has the reasons.
"""

from __future__ import annotations

import os
import stat

from dockershim.oci import spool

ASIDE = ".docker"
"""Ends the name that Docker's FIFO has meanwhile."""
_NEW = ".new"


def engine_fifos(root: str, container_id: str) -> list[str]:
    """Where Docker's FIFO may be. The runtime's --root tells its exec-root: EXEC_ROOT/runtime-runc/NAMESPACE.

    The first process of a container is called `init` in old engines, and in those of today as the container is.
    """
    directory = f"{os.path.dirname(os.path.dirname(root))}/containerd/{container_id}"
    return [f"{directory}/{name}-stdout" for name in (container_id, "init")]


def take_output(spool_directory: str, container_id: str, engine: str) -> bool:
    """Let the shim write into the spool, and the spooler into Docker's FIFO. False where there is none to be found.

    The spooler gets both before the name changes, so without one all stays as it is. Ours is not opened for writing
    here: its first writer is the shim, so that its end is the end of the output. RuntimeError when the name is left
    from a start that was cut off, which Docker ends by removing it.
    """
    try:
        mode = os.lstat(engine).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(mode):
        raise RuntimeError(f"{engine} is left from a start that was cut off; Docker removes it now, so start once more")
    if not stat.S_ISFIFO(mode):
        return False
    directory = f"{spool_directory}/{container_id}"
    path, reading = spool.make_fifo(directory, spool.STREAMS[0], os.O_RDONLY | os.O_NONBLOCK)
    # open for reading too: it breaks with nobody's death, and what is in it waits for the next dockerd
    copy = os.open(engine, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    ended, writing = os.pipe()  # a terminal has one stream: the other one is over
    os.close(writing)
    spool.hand_over(spool_directory, container_id, [reading, copy, ended, copy])
    for end in (reading, copy, ended):
        os.close(end)
    for name in (engine + ASIDE, engine + _NEW):
        _remove(name)
    os.link(engine, engine + ASIDE)
    os.symlink(path, engine + _NEW)
    os.rename(engine + _NEW, engine)
    return True


def give_name_back(engine: str) -> None:
    """The shim has opened ours by now. Nothing happens where the name was not lent."""
    try:
        os.rename(engine + ASIDE, engine)
    except (FileNotFoundError, NotADirectoryError):
        return


def _remove(name: str) -> None:
    """What a wrapper left that was killed in the middle."""
    try:
        os.unlink(name)
    except FileNotFoundError:
        return
