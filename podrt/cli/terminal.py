"""The user's terminal: raw mode that is always undone, its size, and the keys that detach."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

DETACH_KEYS = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as with docker attach."""


class RawTerminal:
    """A context manager: ``fd`` in raw mode, and back as it was, also after SIGTERM and SIGHUP.

    Does nothing where ``fd`` is no terminal.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> RawTerminal:
        if os.isatty(self._fd):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._terminated)
            tty.setraw(self._fd)
        return self

    def _terminated(self, number: int, _: FrameType | None) -> None:
        self.restore()
        sys.exit(128 + number)

    def restore(self) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
            self._saved = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


def size(fd: int) -> tuple[int, int] | None:
    """Columns and rows of the terminal ``fd``; None if it is none or doesn't know."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (columns, rows) if columns and rows else None


class DetachKeys:
    """Finds ``keys`` in typed input, also when they come in separate reads."""

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What may be sent on, and whether the keys are complete. A beginning of the keys is held back."""
        data = self._held + data
        self._held = b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(len(self._keys) - 1, 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False
