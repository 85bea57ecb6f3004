"""Ages as kubectl prints them: two units at most, coarser the older."""

from __future__ import annotations

import time

from podrt.model.base import parse_time

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def human_duration(seconds: float) -> str:
    """``90s``, ``4m32s``, ``5h3m``, ``3d4h``, ``2y40d``."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 2 * _MINUTE:
        return f"{max(total, 0)}s"
    if total < 10 * _MINUTE:
        return _two(total, _MINUTE, "m", 1, "s")
    if total < 3 * _HOUR:
        return f"{total // _MINUTE}m"
    if total < 8 * _HOUR:
        return _two(total, _HOUR, "h", _MINUTE, "m")
    if total < 2 * _DAY:
        return f"{total // _HOUR}h"
    if total < 8 * _DAY:
        return _two(total, _DAY, "d", _HOUR, "h")
    if total < 2 * _YEAR:
        return f"{total // _DAY}d"
    if total < 8 * _YEAR:
        return _two(total, _YEAR, "y", _DAY, "d")
    return f"{total // _YEAR}y"


def _two(total: int, big: int, big_name: str, small: int, small_name: str) -> str:
    rest = total % big // small
    return f"{total // big}{big_name}" + (f"{rest}{small_name}" if rest else "")


def age(timestamp: str | None, now: float | None = None) -> str:
    """The time since an RFC 3339 timestamp; ``<unknown>`` where there is none or it can't be read."""
    if not timestamp:
        return "<unknown>"
    try:
        moment = parse_time(timestamp).timestamp()
    except ValueError:
        return "<unknown>"
    return human_duration((time.time() if now is None else now) - moment)
