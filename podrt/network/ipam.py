"""Addresses of Pods: leases as files, ``<directory>/<address>`` with the sandbox's id in it.

A lease is made with O_EXCL before the address is used and removed after it is given up, so a daemon that is killed at
any point finds every address that may be in use. Addresses are given out in turn: one that has just become free is the
last to be given again, for neighbours and connection tracking still know it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from pathlib import Path

from podrt.errors import ExhaustedError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Pool:
    """The addresses of one subnet. Not safe for several threads at once: the caller has a lock.

    The network's own address, the first host (the bridge) and on IPv4 the broadcast address are never given out.
    """

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self.directory = directory
        self._base = int(network.network_address)
        self._first = 2
        self._last = network.num_addresses - (2 if network.version == 4 else 1)
        self._used: dict[int, str] = {}
        self._next = self._first

    @property
    def gateway(self) -> str:
        """The bridge's address."""
        return str(self.network[1])

    def load(self) -> None:
        """Read the leases that are there, and go on after the newest. Other files are left alone."""
        self._used.clear()
        newest = (0, self._first - 1)
        for path in self.directory.iterdir():
            try:
                address = ipaddress.ip_address(path.name)
            except ValueError:
                continue
            if address in self.network:
                index = int(address) - self._base
                self._used[index] = path.read_text()
                newest = max(newest, (path.stat().st_mtime_ns, index))
        self._next = newest[1] + 1

    def acquire(self, owner: str) -> str:
        """A free address, leased to ``owner``. Raises ExhaustedError."""
        if len(self._used) >= self._last - self._first + 1:
            raise ExhaustedError(f"no address is free in {self.network}; remove Pods or configure a larger subnet")
        index = self._next
        while True:
            if index > self._last:
                index = self._first
            if index not in self._used:
                address = str(self.network[index])
                if self._write(address, owner):
                    break
                # Someone else's file: as good as taken.
                self._used[index] = ""
            index += 1
            if len(self._used) >= self._last - self._first + 1:
                raise ExhaustedError(f"no address is free in {self.network}")
        self._used[index] = owner
        self._next = index + 1
        return address

    def release(self, owner: str) -> list[str]:
        """Give up all addresses of ``owner``; returns them."""
        found = [index for index, name in self._used.items() if name == owner]
        addresses = []
        for index in found:
            address = str(self.network[index])
            with contextlib.suppress(FileNotFoundError):
                (self.directory / address).unlink()
            del self._used[index]
            addresses.append(address)
        return addresses

    def owners(self) -> set[str]:
        return {owner for owner in self._used.values() if owner}

    def _write(self, address: str, owner: str) -> bool:
        try:
            fd = os.open(self.directory / address, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(fd, owner.encode())
        finally:
            os.close(fd)
        return True
