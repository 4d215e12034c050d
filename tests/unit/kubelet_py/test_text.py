"""Text for encoders and terminals."""

import os

from kubelet_py.text import to_terminal_text, to_valid_text


def test_bytes_that_are_no_utf_8_become_the_replacement_character() -> None:
    """One each, as Go writes them."""
    assert to_valid_text(os.fsdecode(b"/etc/\xff\xfe \xc3\xa9")) == "/etc/\ufffd\ufffd é"


def test_other_text_stays_as_it_is() -> None:
    text = "é\U0001f600\ufffd\n"
    assert to_valid_text(text) == text


def test_a_terminal_gets_no_control_characters_but_newline_and_tab() -> None:
    """Neither escape sequences nor their one-byte forms (C1)."""
    assert to_terminal_text("a\tb\né\x1b[2J\r\x00\x7f\x9b1m") == "a\tb\né\\x1b[2J\\x0d\\x00\\x7f\\x9b1m"
