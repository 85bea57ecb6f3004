"""Reading and writing the files of a cgroup."""

from __future__ import annotations

import os


def write(directory: str, name: str, value: str) -> None:
    """One write(2), as the kernel wants it. Raises OSError that names file and value."""
    path = f"{directory}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"writing {value!r}: {error.strerror}", path) from error
    finally:
        os.close(fd)


def write_each(directory: str, name: str, values: list[str]) -> None:
    """One write(2) for each value, through one descriptor."""
    path = f"{directory}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise OSError(error.errno, f"writing {value!r}: {error.strerror}", path) from error
    finally:
        os.close(fd)


def read(directory: str, name: str) -> str:
    """The whole of a file. Raises OSError."""
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = chunk = os.read(fd, 65536)
        while chunk:
            chunk = os.read(fd, 65536)
            data += chunk
    finally:
        os.close(fd)
    return data.decode()


def read_number(directory: str, name: str) -> int:
    """A file with one number; 0 for ``max`` or if there is no such file."""
    try:
        text = read(directory, name).strip()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return int(text) if text.lstrip("-").isdigit() else 0


def read_table(directory: str, name: str) -> dict[str, int]:
    """A flat keyed file, ``key number`` in each line; empty if there is no such file."""
    try:
        text = read(directory, name)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    rows = (line.split(" ") for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}


def limit_v2(value: int) -> str:
    """A number in cgroup v2's form: -1 is ``max``."""
    return "max" if value < 0 else str(value)
