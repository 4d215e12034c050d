"""What this process holds open, for tests of who must give everything back."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def open_below(directory: Path) -> list[str]:
    """The open files and directories below one of the test's own; others come and go with what earlier tests left."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                continue  # the descriptor of the listing itself
            path = f"{directory}/ and so deep that it has no name"
        if Path(path).is_relative_to(directory):
            found.append(path)
    return found
