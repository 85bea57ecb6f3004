"""Times and sizes as kubectl shows and takes them: ages, Go durations, RFC 3339, quantities."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from podrt.cli.errors import CliError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|h|m|s)")
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``1h30m``, ``500ms``); a bare number is seconds. Raises CliError."""
    body = text[1:] if text[:1] in "+-" else text
    if body.replace(".", "", 1).isdigit():
        return float(text)
    if not body or _DURATION.sub("", body):
        raise CliError(f'invalid duration "{text}"; write it like 30s, 5m or 1h30m')
    total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(body))
    return -total if text[0] == "-" else total


def parse_time(text: Any) -> datetime | None:
    """An RFC 3339 time, or None if there is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        value = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def human_duration(seconds: float) -> str:
    """Short form of a time span, as kubectl's AGE column rounds it."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = total // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def age(stamp: Any) -> str:
    """Time since ``stamp`` (RFC 3339), ``<unknown>`` if there is none."""
    then = parse_time(stamp)
    return human_duration((datetime.now(UTC) - then).total_seconds()) if then else "<unknown>"


def local_time(stamp: Any) -> str:
    """RFC 1123 with the local zone, as ``describe`` shows times."""
    then = parse_time(stamp)
    return then.astimezone().strftime("%a, %d %b %Y %H:%M:%S %z") if then else "<unknown>"


def quantity(text: Any) -> float:
    """The number that a Kubernetes quantity stands for (``100m`` is 0.1, ``1Ki`` 1024). Raises CliError."""
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?)", str(text))
    if match is None:
        raise CliError(f'"{text}" is not a quantity; write it like 100m, 0.5, 64Mi or 1G')
    factor = _BINARY.get(match[2]) or _DECIMAL[match[2]]
    return float(match[1]) * factor


def human_size(count: float) -> str:
    """Bytes with a decimal unit and three digits: ``12.3MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 99.95 else f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError
