"""Signals by name or number, as images, Pods and users write them. Pure."""

from __future__ import annotations

import re
import signal

from podrt.errors import InvalidError

_REALTIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?$")


def parse(text: str) -> int:
    """The number of ``SIGTERM``, ``term``, ``15``, ``SIGRTMIN+3``, ``RTMAX-1``.

    Raises InvalidError that names what was given.
    """
    name = text.strip().upper().removeprefix("SIG")
    number = 0
    if name.isascii() and name.isdigit():
        number = int(name)
    elif match := _REALTIME.match(name):
        base = signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX
        offset = int(match[3] or 0)
        number = base - offset if match[2] == "-" else base + offset
        if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            number = 0
    elif name and not name.startswith("_"):
        number = int(getattr(signal, f"SIG{name}", 0))
    if not 1 <= number <= signal.SIGRTMAX:
        raise InvalidError(f"{text!r} is not a signal; give a name like SIGTERM or SIGRTMIN+3, or a number 1-64")
    return number
