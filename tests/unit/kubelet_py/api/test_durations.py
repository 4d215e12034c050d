"""Durations are read and written as Go does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1m30s", 90), ("1.5h", 5400), ("100ms", 0.1), ("-2m", -120), ("+1s", 1), (".5s", 0.5), ("1µs", 1e-6)],
)
def test_go_spellings_are_read(text: str, seconds: float) -> None:
    """Numbers with units, fractions and signs."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-", "1x", "1m 30s", ".s", "1d", "300h5", "9" * 30 + "h"])
def test_what_go_refuses_is_refused(text: str) -> None:
    """No unit, no number, unknown units, overflow."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90, "1m30s"),
        (60, "1m0s"),
        (3600, "1h0m0s"),
        (0.1, "100ms"),
        (1.5, "1.5s"),
        (80, "1m20s"),
        (3725, "1h2m5s"),
        (-61, "-1m1s"),
        (2e-6, "2µs"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    """The spelling in configz."""
    assert format_duration(seconds) == text


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_a_written_duration_reads_back(microseconds: int) -> None:
    """To the microsecond, over three decades."""
    seconds = microseconds / 1_000_000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
