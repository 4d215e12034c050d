"""Text for encoders."""

import os

from kubelet_py.text import to_valid_text


def test_bytes_that_are_no_utf_8_become_the_replacement_character() -> None:
    """One each, as Go writes them."""
    assert to_valid_text(os.fsdecode(b"/etc/\xff\xfe \xc3\xa9")) == "/etc/\ufffd\ufffd é"


def test_other_text_stays_as_it_is() -> None:
    text = "é\U0001f600\ufffd\n"
    assert to_valid_text(text) == text
