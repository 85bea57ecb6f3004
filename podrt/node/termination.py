"""Why a container ended, in its own words: the termination message.

The file at ``terminationMessagePath`` is a bind mount of a file in the Pod's directory, so it can be read after the
end. With ``FallbackToLogsOnError`` the end of the log serves where the file is empty and the exit code is not 0.
"""

from __future__ import annotations

import os
from pathlib import Path

from podrt.model.container import Container

MESSAGE_BYTES = 4096
LOG_LINES = 80
LOG_BYTES = 2048
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def read_message(container: Container, file: Path, log: Path, exit_code: int) -> str:
    """The message, "" if there is none. Never raises for what the container did to the file."""
    text = _head(file)
    if not text and exit_code != 0 and container.termination_message_policy == "FallbackToLogsOnError":
        text = _log_tail(log)
    return text


def _log_tail(log: Path) -> str:
    """The last 80 lines or 2048 bytes of a CRI log, whichever is less."""
    try:
        # A Pod that collects logs may have put a link there.
        with os.fdopen(os.open(log, _FLAGS), "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            # The head of a line takes up to 48 bytes beside its text.
            stream.seek(max(0, size - LOG_BYTES - LOG_LINES * 48))
            records = stream.read().split(b"\n")[-LOG_LINES - 1 :]
    except OSError:
        return ""
    text = bytearray()
    for record in records:
        parts = record.split(b" ", 3)
        if len(parts) == 4:
            text += parts[3] if parts[2] == b"P" else parts[3] + b"\n"
    return bytes(text[-LOG_BYTES:]).decode(errors="replace")


def _head(file: Path) -> str:
    try:
        # The container can put nothing else in its place (it holds a bind mount), but don't follow links all the same.
        fd = os.open(file, _FLAGS)
    except OSError:
        return ""
    with open(fd, "rb") as stream:
        return stream.read(MESSAGE_BYTES).decode(errors="replace")
