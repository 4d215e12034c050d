"""Quantities read, compare and write as the Kubernetes API does."""

import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import quantity as q


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("1", "1"),
        ("100m", "100m"),
        ("0.1", "100m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1000m", "1"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1.5Ki", "1536"),
        ("0.5Ki", "512"),
        ("1024", "1024"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("12E", "9223372036854775807"),
        ("1E", "1E"),
        ("1E3", "1e3"),
        ("5e-1", "500e-3"),
        ("-1.5", "-1500m"),
        ("+2", "2"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1e-999999", "1e-9"),
        ("9e999999", "9223372036854775807"),
        (1, "1"),
        (0.5, "500m"),
        (q.from_bytes(2048), "2Ki"),
        ("0.3Ki", "307200m"),
        ("0.0001Ki", "102400u"),
    ],
)
def test_canonical_text(text: Any, canonical: str) -> None:
    """Each spelling has one canonical form, the API server's."""
    assert str(q.parse(text)) == canonical


_REFUSED = ["", ".", "1Q", "1 Gi", "--1", "e3", "1e", "0x10", "1.2.3", "\uff11", "9" * 257, True, None, [], {}]


@pytest.mark.parametrize("text", [*_REFUSED, pytest.param(10**5000, id="huge")])
def test_what_is_no_quantity_is_named(text: Any) -> None:
    """Other texts and types raise, and the message shows what stands there."""
    with pytest.raises(q.InvalidQuantity, match="no quantity"):
        q.parse(text)


def test_values_are_rounded_away_from_zero() -> None:
    """Whoever asks for something gets something."""
    assert q.parse("1m").value == 1
    assert q.parse("1500m").value == 2
    assert q.parse("-1500m").value == -2
    assert q.parse("1u").milli_value == 1
    assert str(q.parse("1u").rounded_up_to_milli()) == "1m"


def test_equality_and_order_look_at_the_amount() -> None:
    """1Gi is 1073741824, whatever the spelling."""
    assert q.parse("1Gi") == q.parse("1073741824")
    assert q.parse("999m") < q.parse("1")
    assert bool(q.parse("1n"))
    assert not q.ZERO
    assert q.ZERO.is_zero


def test_sums_keep_the_spelling_of_what_is_there() -> None:
    """Zero has no say in how a sum is written."""
    assert str(q.ZERO + q.parse("1Gi")) == "1Gi"
    assert str(q.parse("1Gi") + q.parse("1k")) == str(q.from_bytes(2**30 + 1000))
    assert str(q.parse("1Gi") - q.parse("512Mi")) == "512Mi"
    assert str(q.ZERO - q.parse("1Gi")) == "-1Gi"


def test_makers() -> None:
    """Units, thousandths and bytes."""
    assert str(q.from_units(3)) == "3"
    assert str(q.from_milli(250)) == "250m"
    assert str(q.from_bytes(3 * 2**20)) == "3Mi"


_quantities = st.builds(q.Quantity, st.integers(min_value=-(10**27), max_value=10**27), st.sampled_from(list(q.Format)))


@given(_quantities)
def test_written_and_read_again_is_the_same_amount(amount: q.Quantity) -> None:
    """The canonical text loses nothing, and is its own canonical text.

    But where an amount in Ki is written without a suffix: that is read back as a decimal one, as upstream does it.
    """
    again = q.parse(str(amount))
    assert again == amount
    assert again.format is not amount.format or str(again) == str(amount)


@given(_quantities, _quantities)
def test_sums_are_exact(one: q.Quantity, other: q.Quantity) -> None:
    """Adding and taking away again leaves what was there; order follows the amounts."""
    assert (one + other).nanos == one.nanos + other.nanos
    assert (one + other) - other == one
    assert (one < other) == (one.nanos < other.nanos)


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=9), st.sampled_from(["", "k", "M", "Ki", "Mi"]))
def test_parsing_agrees_with_exact_arithmetic(number: Decimal, suffix: str) -> None:
    """A number with a suffix is that number times what the suffix stands for, cut to what an int64 holds."""
    factor = {"": 1, "k": 1000, "M": 10**6, "Ki": 1024, "Mi": 2**20}[suffix]
    expected = int(Decimal(number).scaleb(9)) * factor
    limit = (2**63 - 1) * 10**9
    assert q.parse(f"{number:f}{suffix}").nanos == max(-limit, min(limit, expected))


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    """Nothing but InvalidQuantity comes out."""
    with contextlib.suppress(q.InvalidQuantity):
        q.parse(text)
