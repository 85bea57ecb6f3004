"""Host ports: who has which. Kept in memory and as one file per sandbox, ``<directory>/<sandbox id>``."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from podrt.errors import ConflictError, InvalidError
from podrt.fsutil import unlink_missing_ok, write_atomic
from podrt.network import nft
from podrt.network.nft import Element
from podrt.network.types import Port


def elements(ports: Sequence[Port], ips: Sequence[str]) -> list[Element]:
    """What goes into the maps for a Pod with the addresses ``ips``. Raises InvalidError for what can't be published."""
    found: dict[Element, None] = {}
    for port in ports:
        if not port.host_port:
            continue
        if port.protocol not in nft.PROTOCOLS:
            raise InvalidError(f"host port {port.host_port}: protocol {port.protocol!r} must be TCP, UDP or SCTP")
        if not 0 < port.host_port < 65536 or not 0 < port.container_port < 65536:
            raise InvalidError(f"host port {port.host_port} to {port.container_port}: ports are 1 to 65535")
        try:
            address = ipaddress.ip_address(port.host_ip) if port.host_ip else None
        except ValueError as error:
            raise InvalidError(f"host port {port.host_port}: hostIP {port.host_ip!r} is not an address") from error
        for ip in ips:
            if address is not None and address.version != ipaddress.ip_address(ip).version:
                continue
            host_ip = "" if address is None or address.is_unspecified else str(address)
            found[Element(port.protocol, host_ip, port.host_port, ip, port.container_port)] = None
    return list(found)


class HostPorts:
    """Not safe for several threads at once: the caller has a lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._owned: dict[str, list[Element]] = {}

    def load(self) -> list[str]:
        """Read the files; returns the names of those that can't be read, which :meth:`release` removes."""
        self._owned.clear()
        broken = []
        for path in self.directory.iterdir():
            try:
                self._owned[path.name] = [Element(*row) for row in json.loads(path.read_bytes())]
            except (ValueError, TypeError):
                broken.append(path.name)
        return broken

    def reserve(self, owner: str, wanted: Sequence[Element]) -> None:
        """Note that ``owner`` has these. Raises ConflictError that names the port and who has it, InvalidError."""
        for element in wanted:
            self._check(element)
        self._owned[owner] = list(wanted)
        write_atomic(self.directory / owner, json.dumps(wanted).encode())

    def _check(self, element: Element) -> None:
        name = f"host port {element.host_port}/{element.protocol}"
        for owner, held in self._owned.items():
            if any(_clash(element, other) for other in held):
                raise ConflictError(f"{name} is taken by sandbox {owner[:12]}; choose another hostPort")
        family = socket.AF_INET6 if ":" in element.pod_ip else socket.AF_INET
        try:
            free = nft.check_free(element.protocol, element.host_ip, element.host_port, family)
        except OSError as error:
            raise InvalidError(f"{name}: hostIP {element.host_ip}: {error.strerror}") from error
        if not free:
            raise ConflictError(f"{name} is in use by a process of the host; choose another hostPort")

    def of(self, owner: str) -> list[Element]:
        return self._owned.get(owner, [])

    def owners(self) -> set[str]:
        return set(self._owned)

    def release(self, owner: str) -> None:
        self._owned.pop(owner, None)
        unlink_missing_ok(self.directory / owner)


def _clash(first: Element, second: Element) -> bool:
    same = first.protocol == second.protocol and first.host_port == second.host_port
    family = (":" in first.pod_ip) == (":" in second.pod_ip)
    return same and family and (first.host_ip == second.host_ip or not first.host_ip or not second.host_ip)
