"""IntOrString fields that are counts or percentages. Ports by number or name are resolved by ``node.handlers``."""

from __future__ import annotations

import re

from podrt.model.base import IntOrString

_PERCENT = re.compile(r"([0-9]{1,9})%", re.ASCII)


def scaled(value: IntOrString, total: int, *, round_up: bool) -> int:
    """A count: the number itself, or the percentage of ``total``. Raises ValueError."""
    if isinstance(value, int):
        return value
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise ValueError(f'"{value}" is neither a number nor a percentage such as 25%')
    product = int(match.group(1)) * total
    return -(-product // 100) if round_up else product // 100
