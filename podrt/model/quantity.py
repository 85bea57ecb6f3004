"""Resource quantities (``500m``, ``1.5Gi``, ``2e3``): exact arithmetic, canonical text.

A quantity is a decimal number with a binary (``Ki`` ... ``Ei``), decimal (``n u m k M G T P E``) or exponent (``e3``)
suffix. The canonical text keeps the suffix's family and has no fraction and the largest suffix that allows it: ``0.5``
is ``500m``, ``1024Mi`` is ``1Gi``. What is finer than 10^-9 is rounded up, away from zero, as Kubernetes does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Self

BINARY = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4, "Pi": 1024**5, "Ei": 1024**6}
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

_FORM = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]+)", re.ASCII)
_MAX_LENGTH = 64
_MAX_EXPONENT = 40
_NANO = 10**9
_LARGEST = 2**63 - 1

ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


class QuantityError(ValueError):
    """The text is not a quantity."""


def _ceil(value: Fraction) -> int:
    """Round away from zero."""
    whole = -(-abs(value.numerator) // value.denominator)
    return whole if value >= 0 else -whole


@dataclass(frozen=True, slots=True, order=False)
class Quantity:
    """An exact number in units of the resource (cores, bytes, pieces) and the family of suffixes it is printed in."""

    value: Fraction
    form: str = "decimal"
    """decimal, binary or exponent."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises QuantityError."""
        match = _FORM.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise QuantityError(ERROR)
        sign, number, suffix = match.groups()
        value = Fraction(number.rstrip(".") if not number.startswith(".") else "0" + number)
        form = "decimal"
        if suffix in BINARY:
            value, form = value * BINARY[suffix], "binary"
        elif suffix in DECIMAL:
            value *= Fraction(10) ** DECIMAL[suffix]
        else:
            exponent = int(suffix[1:])
            if abs(exponent) > _MAX_EXPONENT:
                raise QuantityError(f"the exponent of {text} is too large")
            value, form = value * Fraction(10) ** exponent, "exponent"
        # As in Kubernetes: nothing finer than a nano-unit, nothing above 2^63-1.
        value = Fraction(_ceil(value * _NANO), _NANO)
        value = min(value, Fraction(_LARGEST))
        return cls(-value if sign == "-" else value, form)

    @classmethod
    def bytes(cls, count: int) -> Self:
        """A number of bytes, printed with binary suffixes."""
        return cls(Fraction(count), "binary")

    @classmethod
    def milli(cls, count: int) -> Self:
        """Thousandths, for example millicores."""
        return cls(Fraction(count, 1000))

    def __int__(self) -> int:
        """In whole units, rounded up (away from zero)."""
        return _ceil(self.value)

    @property
    def milli_value(self) -> int:
        """In thousandths, rounded up: millicores."""
        return _ceil(self.value * 1000)

    def __str__(self) -> str:
        """The canonical text."""
        value = self.value
        if value == 0:
            return "0"
        if self.form == "binary" and value.denominator == 1 and abs(value) >= 1024:
            whole = int(value)
            for suffix, size in reversed(BINARY.items()):
                if whole % size == 0:
                    return f"{whole // size}{suffix}"
            return str(whole)
        if self.form == "binary" and value.denominator == 1:
            return str(int(value))
        for suffix, exponent in reversed(DECIMAL.items()):
            scaled = value / Fraction(10) ** exponent
            if scaled.denominator == 1:
                if self.form == "exponent":
                    return f"{int(scaled)}e{exponent}" if exponent else str(int(scaled))
                return f"{int(scaled)}{suffix}"
        raise AssertionError("a quantity is always a multiple of a nano-unit")

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.value + other.value, self.form if self.value else other.form)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.value - other.value, self.form if self.value else other.form)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: Quantity) -> bool:
        return self.value < other.value

    def __le__(self, other: Quantity) -> bool:
        return self.value <= other.value


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """:meth:`Quantity.parse`, remembered: the same few texts come again and again. Raises QuantityError."""
    return Quantity.parse(text)


def canonical(text: str) -> str:
    """The canonical text of a quantity. Raises QuantityError."""
    return str(parse(text))
