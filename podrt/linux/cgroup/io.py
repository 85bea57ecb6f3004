"""Block I/O of a cgroup, by device. cgroup v2 only: in v1 podrt makes no cgroups in the blkio hierarchy."""

from __future__ import annotations

from typing import NamedTuple

from podrt.linux.cgroup.files import read


class DeviceIO(NamedTuple):
    """Since the cgroup was made."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


def stats(directory: str) -> tuple[DeviceIO, ...]:
    """Empty where the controller is not enabled."""
    try:
        return parse(read(directory, "io.stat"))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def parse(text: str) -> tuple[DeviceIO, ...]:
    """Lines of ``8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0``; a device alone was only ever limited."""
    found = []
    for line in text.splitlines():
        device, *fields = line.split(" ")
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        if values:
            numbers = (int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios"))
            found.append(DeviceIO(*map(int, device.split(":")), *numbers))
    return tuple(found)
