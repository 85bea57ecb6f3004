"""IntOrString fields: ports by number or name, counts or percentages."""

from __future__ import annotations

import re
from collections.abc import Iterable

from podrt.model.base import IntOrString
from podrt.model.container import ContainerPort

_PERCENT = re.compile(r"([0-9]{1,9})%", re.ASCII)


def resolve_port(port: IntOrString, ports: Iterable[ContainerPort]) -> int:
    """The number of a container port given by number or name. Raises ValueError that names the port."""
    if isinstance(port, int):
        number = port
    else:
        named = [candidate.container_port for candidate in ports if candidate.name == port]
        if not named:
            raise ValueError(f'the container has no port named "{port}"')
        number = named[0]
    if not 1 <= number <= 65535:
        raise ValueError(f"port {number} is not between 1 and 65535")
    return number


def scaled(value: IntOrString, total: int, *, round_up: bool) -> int:
    """A count: the number itself, or the percentage of ``total``. Raises ValueError."""
    if isinstance(value, int):
        return value
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise ValueError(f'"{value}" is neither a number nor a percentage such as 25%')
    product = int(match.group(1)) * total
    return -(-product // 100) if round_up else product // 100
