"""Text that UTF-8 can hold, and text that a terminal may be given. Pure.

What Python reads of the system, a file's name say, holds a lone surrogate for each byte that is no UTF-8; no encoder
takes those. Source of the replacement: Go's encoding/json, which writes U+FFFD for such bytes.
"""

import re
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# C0, DEL and C1, except tab and newline
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def to_valid_text(text: str) -> str:
    """The text with U+FFFD for whatever cannot be encoded."""
    return _SURROGATE.sub("\ufffd", text)


def to_terminal_text(text: str) -> str:
    """The text with each control character but newline and tab spelled out, so that a pod's words move no cursor."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
