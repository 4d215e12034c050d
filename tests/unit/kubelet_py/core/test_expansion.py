"""$(NAME) references expand as in the Go kubelet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.expansion import expand, expand_all, expand_strictly

VALUES = {"A": "1", "B": "two words", "EMPTY": "", "C": "$(A)"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1ytwo wordsz"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(EMPTY)", ""),
        ("$(C)", "$(A)"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$A", "$A"),
        ("$()", "$()"),
        ("$($(A)", "$($(A)"),
        ("$(x$$y", "$(x$y"),
        ("$(a\nb)", "$(a\nb)"),
        ("\\$(A)", "\\1"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    """Known names are replaced once; everything else stays as it is written."""
    assert expand(text, VALUES) == expected


def test_first_mapping_wins() -> None:
    """The container's own variables hide those of services."""
    assert expand("$(A) $(S)", VALUES, {"A": "no", "S": "s"}) == "1 s"


def test_expand_all() -> None:
    """Each text on its own; nothing stays nothing."""
    assert expand_all(["$(A)", "b"], VALUES) == ["1", "b"]
    assert expand_all(None, VALUES) == []


def test_paths_need_every_value() -> None:
    """All names without a value are told, in order."""
    assert expand_strictly("a/$(A)/$$x", VALUES) == "a/1/$x"
    with pytest.raises(ValueError, match="missing value for EMPTY, M"):
        expand_strictly("$(M)/$(EMPTY)/$(A)/$(M)", VALUES)


@given(st.text(alphabet="$()AB x", max_size=30))
def test_without_values_only_doubled_dollars_change(text: str) -> None:
    """Expanding with nothing known changes nothing but $$."""
    result = expand(text)
    if "$$" not in text:
        assert result == text
    assert len(result) <= len(text)


@given(st.text(max_size=30))
def test_doubling_dollars_quotes_any_text(text: str) -> None:
    """A text with each dollar doubled comes out as it went in."""
    assert expand(text.replace("$", "$$"), VALUES) == text
