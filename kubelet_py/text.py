"""Text that UTF-8 can hold. Pure.

What Python reads of the system, a file's name say, holds a lone surrogate for each byte that is no UTF-8; no encoder
takes those. Source of the replacement: Go's encoding/json, which writes U+FFFD for such bytes.
"""

import re
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def to_valid_text(text: str) -> str:
    """The text with U+FFFD for whatever cannot be encoded."""
    return _SURROGATE.sub("\ufffd", text)
