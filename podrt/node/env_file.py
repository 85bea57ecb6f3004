"""fileKeyRef: a variable from a file that another container of the Pod wrote into a volume.

The file is a subset of what a POSIX shell sources, as Kubernetes 1.35 documents: ``NAME='value'`` (the value may have
line breaks and ends at the next quote), comments and empty lines; ``NAME=value`` of 1.34 is read too. The file is a
container's, so it is opened inside its volume without a way out, must be a plain file, and no more than 64 KiB of it
is read. Messages never show its content.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from podrt.errors import InvalidError
from podrt.linux import inroot
from podrt.model.container import FileKeySelector

MAX_BYTES = 64 * 1024
_VALUE = r"(?:'(?P<quoted>[^']*)'|(?P<plain>[^\n'#]*))"
_LINE = re.compile(rf"[ \t]*(?:(?P<name>[^=\s#']+)={_VALUE}[ \t]*)?(?:#[^\n]*)?(?:\n|\Z)")


def value(volume: Path | None, reference: FileKeySelector) -> str:
    """The value of the key. Raises KeyError that says what is missing (file or key), InvalidError for a bad file."""
    where = f"file {reference.path!r} of volume {reference.volume_name!r}"
    if volume is None:
        raise InvalidError(f"couldn't read {where}: the Pod has no such volume")
    try:
        text = _read(volume, reference.path).decode()
    except FileNotFoundError:
        raise KeyError(f"couldn't find {where}") from None
    except UnicodeDecodeError:
        raise InvalidError(f"couldn't read {where}: it is not UTF-8 text") from None
    except OSError as error:
        raise InvalidError(f"couldn't read {where}: {error.strerror}") from None
    values = parse(text, where)
    if reference.key not in values:
        raise KeyError(f"couldn't find key {reference.key} in {where}")
    return values[reference.key]


def _read(volume: Path, path: str) -> bytes:
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Not blocking: the container may have put a FIFO there.
        fd = inroot.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is not a plain file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(0, f"it is larger than {MAX_BYTES} bytes")
    return data


def parse(text: str, where: str = "file") -> dict[str, str]:
    """All variables; the last of a name counts. Raises InvalidError that names the line, not what is in it."""
    values: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    position = 0
    while position < len(text):
        match = _LINE.match(text, position)
        if match is None or "\0" in match.group():
            line = text.count("\n", 0, position) + 1
            raise InvalidError(f"couldn't read {where}: line {line} is not of the form NAME='value'")
        if match["name"] is not None:
            values[match["name"]] = match["quoted"] if match["quoted"] is not None else match["plain"].rstrip()
        position = match.end()
    return values
