"""What goes into a network driver and what comes out of it: plain data."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

INTERFACE = "eth0"
"""The name of the interface inside a Pod."""


class Port(NamedTuple):
    """A port that a Pod publishes. ``host_port`` 0: not published. ``host_ip``: empty for all addresses, ``0.0.0.0``
    for all of IPv4, ``::`` for all of IPv6."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


class Dns(NamedTuple):
    """What goes into a resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class AttachRequest(NamedTuple):
    """A sandbox that is to be connected, and what plugins may want to know of it."""

    sandbox_id: str
    netns: str
    """Path of the pinned network namespace."""
    ports: tuple[Port, ...] = ()
    name: str = ""
    namespace: str = ""
    uid: str = ""
    annotations: Mapping[str, str] = types.MappingProxyType({})
    dns: Dns = Dns()
    cgroup: str = ""


class Attachment(NamedTuple):
    """How a Pod is connected."""

    ips: tuple[str, ...]
    """IPv4 first."""
    mac: str
    host_ifname: str
    gateways: tuple[str, ...]
    dns: Dns = Dns()
    """What the network says about names; empty: nothing."""
