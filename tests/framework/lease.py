"""One subnet number per daemon under test, unique on the machine whatever else runs there.

The number is held by a lock on a file, so it comes free when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

DIRECTORY = Path("/run/podrt-test-subnets")


class SubnetLease:
    """A number from 1 to 254, held until :meth:`release`. Raises RuntimeError if all are held."""

    def __init__(self) -> None:
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        for number in range(1, 255):
            fd = os.open(DIRECTORY / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            self.number = number
            self._fd = fd
            return
        raise RuntimeError(f"all 254 test subnets are held: see the locks in {DIRECTORY}")

    @property
    def v4(self) -> str:
        return f"10.213.{self.number}.0/24"

    @property
    def v6(self) -> str:
        return f"fd13:7064:7274:{self.number:x}::/64"

    def release(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
