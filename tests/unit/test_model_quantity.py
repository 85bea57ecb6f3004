"""Quantities: exact values, canonical text, errors."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.model.quantity import BINARY, DECIMAL, Quantity, QuantityError, canonical, parse


@pytest.mark.parametrize(
    ("text", "value", "printed"),
    [
        ("0", 0, "0"),
        ("0Ki", 0, "0"),
        ("1", 1, "1"),
        ("+1", 1, "1"),
        ("-1", -1, "-1"),
        ("100m", Fraction(1, 10), "100m"),
        ("0.1", Fraction(1, 10), "100m"),
        ("0.5", Fraction(1, 2), "500m"),
        (".5", Fraction(1, 2), "500m"),
        ("5.", 5, "5"),
        ("1.5", Fraction(3, 2), "1500m"),
        ("1000m", 1, "1"),
        ("1000", 1000, "1k"),
        ("1024", 1024, "1024"),
        ("1500", 1500, "1500"),
        ("1000000", 10**6, "1M"),
        ("1024Ki", 1024**2, "1Mi"),
        ("1024Mi", 1024**3, "1Gi"),
        ("1.5Gi", 3 * 1024**3 // 2, "1536Mi"),
        ("0.5Ki", 512, "512"),
        ("1Ei", 1024**6, "1Ei"),
        ("1e3", 1000, "1e3"),
        ("1E3", 1000, "1e3"),
        ("5E", 5 * 10**18, "5E"),
        ("12e-3", Fraction(12, 1000), "12e-3"),
        ("1n", Fraction(1, 10**9), "1n"),
        ("1u", Fraction(1, 10**6), "1u"),
        ("0.0000000001", Fraction(1, 10**9), "1n"),
        ("-0.0000000001", Fraction(-1, 10**9), "-1n"),
        ("0.3Ki", Fraction(3072, 10), "307200m"),
        ("100E", 2**63 - 1, "9223372036854775807"),
    ],
)
def test_parse_and_print(text: str, value: Fraction | int, printed: str) -> None:
    quantity = parse(text)
    assert quantity.value == value
    assert str(quantity) == printed
    assert parse(printed).value == quantity.value


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "1 ", " 1", "1kb", "1KiB", "1ki", "1K", "1mi", "--1", "1.2.3", "1e", "1e+", "1e3Ki", "0x1", "1_0",
     "\u0661", "1e999", "1" * 65, "NaN", "inf", "1,5", "½", "."],
)  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "milli", "whole"),
    [
        ("100m", 100, 1),
        ("1", 1000, 1),
        ("1u", 1, 1),
        ("-1u", -1, -1),
        ("1500m", 1500, 2),
        ("0", 0, 0),
        ("2Ki", 2048000, 2048),
    ],
)
def test_rounds_up_to_milli_and_whole_units(text: str, milli: int, whole: int) -> None:
    assert parse(text).milli_value == milli
    assert int(parse(text)) == whole


def test_arithmetic_keeps_the_first_family() -> None:
    assert str(parse("1Gi") + parse("512Mi")) == "1536Mi"
    assert str(parse("100m") + parse("0.9")) == "1"
    assert str(Quantity(Fraction(0)) + parse("1Gi")) == "1Gi"
    assert str(parse("2") - parse("500m")) == "1500m"
    assert parse("1Ki") == parse("1024")
    assert parse("1k") < parse("1Ki") <= parse("1024")


@given(
    number=st.integers(0, 10**9),
    decimals=st.integers(0, 10**6),
    suffix=st.sampled_from([*BINARY, *DECIMAL, "e3", "E-2", "e0"]),
    sign=st.sampled_from(["", "-", "+"]),
)
def test_canonical_text_round_trips(number: int, decimals: int, suffix: str, sign: str) -> None:
    text = f"{sign}{number}.{decimals:06d}{suffix}"
    quantity = parse(text)
    printed = str(quantity)
    assert parse(printed).value == quantity.value
    assert canonical(printed) == printed
    assert "." not in printed


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_an_error(text: str) -> None:
    try:
        printed = canonical(text)
    except QuantityError:
        return
    assert canonical(printed) == printed


@given(st.integers(0, 2**62))
def test_bytes_and_milli_are_exact(count: int) -> None:
    assert int(parse(str(Quantity.bytes(count)))) == count
    assert parse(str(Quantity.milli(count))).milli_value == count
