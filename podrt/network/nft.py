"""The one nftables table of the built-in network: rules made once, and maps to which each Pod's host ports are added.

The table is of family ``inet`` and is podrt's alone; no other table is read or changed. The rules are loaded by nft(8)
when the daemon starts, in one transaction, the maps' elements kept; elements of Pods go straight through netlink.

- Traffic that leaves the Pods' subnets is masqueraded.
- A connection to a host port, from outside, from the host itself (127.0.0.1 too) or from a Pod, is sent on to the Pod.
  Where the answer would otherwise bypass the host (from a Pod, perhaps the same one) or could not be sent (from
  127.0.0.1), the source is masqueraded too.
- For 127.0.0.1 the bridge has route_localnet set; what comes from a Pod for 127.0.0.0/8 is dropped (CVE-2020-8558).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from podrt.errors import UnsupportedError
from podrt.linux import netlink

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_MAPS = ("host4", "any4", "host6", "any6")


class Element(NamedTuple):
    """A host port of a Pod. An empty ``host_ip`` means every address of the host."""

    protocol: str
    host_ip: str
    host_port: int
    pod_ip: str
    pod_port: int

    @property
    def map(self) -> str:
        return ("host" if self.host_ip else "any") + ("6" if ":" in self.pod_ip else "4")

    def key(self) -> bytes:
        """Host address if any, protocol, port; each field padded to four bytes."""
        address = ipaddress.ip_address(self.host_ip).packed if self.host_ip else b""
        return address + bytes((PROTOCOLS[self.protocol], 0, 0, 0)) + _port(self.host_port)

    def value(self) -> bytes:
        return ipaddress.ip_address(self.pod_ip).packed + _port(self.pod_port)

    def text(self) -> str:
        """As nft(8) has it."""
        parts = [*([self.host_ip] if self.host_ip else []), self.protocol.lower(), str(self.host_port)]
        return f"{' . '.join(parts)} : {self.pod_ip} . {self.pod_port}"


def _port(number: int) -> bytes:
    return struct.pack("!HH", number, 0)


def ruleset(table: str, bridge: str, subnet_v4: str, subnet_v6: str, elements: Iterable[Element] | None) -> str:
    """The input of nft(8) that makes or remakes the table. ``elements`` replace the maps' (None: they are kept)."""
    name = f"inet {table}"
    key, to = "inet_proto . inet_service", "inet_service"
    lines = [
        f"add table {name}",
        f"add map {name} host4 {{ type ipv4_addr . {key} : ipv4_addr . {to}; }}",
        f"add map {name} any4 {{ type {key} : ipv4_addr . {to}; }}",
        f"add map {name} host6 {{ type ipv6_addr . {key} : ipv6_addr . {to}; }}",
        f"add map {name} any6 {{ type {key} : ipv6_addr . {to}; }}",
        f"add chain {name} host_ports",
        f"add chain {name} local_only {{ type filter hook prerouting priority raw; policy accept; }}",
        f"add chain {name} prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}",
        f"add chain {name} output {{ type nat hook output priority -100; policy accept; }}",
        f"add chain {name} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}",
    ]
    lines += [f"flush chain {name} {c}" for c in ("host_ports", "local_only", "prerouting", "output", "postrouting")]
    local = "fib daddr type local meta l4proto { tcp, udp, sctp }"
    rules = [
        ("host_ports", "dnat ip to ip daddr . meta l4proto . th dport map @host4"),
        ("host_ports", "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4"),
        ("host_ports", "dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6"),
        ("host_ports", "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6"),
        ("local_only", f'iifname "{bridge}" ip daddr 127.0.0.0/8 drop'),
        ("local_only", f'iifname "{bridge}" ip saddr 127.0.0.0/8 drop'),
        ("prerouting", f"{local} jump host_ports"),
        # IPv6 has no route_localnet: a connection to ::1 can't be sent on, so it is refused as without a host port.
        ("output", f"ip6 daddr != ::1 {local} jump host_ports"),
        ("output", f"meta nfproto ipv4 {local} jump host_ports"),
        ("postrouting", f'ct status dnat oifname "{bridge}" ip saddr {{ 127.0.0.0/8, {subnet_v4} }} masquerade'),
        (
            "postrouting",
            f'oifname != "{bridge}" ip saddr {subnet_v4} ip daddr != {{ {subnet_v4}, 224.0.0.0/4 }} masquerade',
        ),
    ]
    if subnet_v6:
        rules += [
            ("postrouting", f'ct status dnat oifname "{bridge}" ip6 saddr {subnet_v6} masquerade'),
            (
                "postrouting",
                f'oifname != "{bridge}" ip6 saddr {subnet_v6} ip6 daddr != {{ {subnet_v6}, ff00::/8 }} masquerade',
            ),
        ]
    lines += [f"add rule {name} {chain} {rule}" for chain, rule in rules]
    if elements is not None:
        lines += [f"flush map {name} {m}" for m in _MAPS]
        lines += [f"add element {name} {element.map} {{ {element.text()} }}" for element in elements]
    return "\n".join(lines) + "\n"


def run(text: str) -> None:
    """Have nft(8) carry out ``text`` as one transaction. Raises UnsupportedError, OSError."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise UnsupportedError("the built-in network needs nft(8); install nftables") from error
    if done.returncode:
        raise OSError(errno.EINVAL, f"nft: {done.stderr.strip()[:2000]}")


def delete_table(table: str) -> None:
    """Remove the table; nothing if there is none."""
    run(f"add table inet {table}\ndelete table inet {table}\n")


def add(table: str, elements: Sequence[Element]) -> None:
    """Add elements, all or none. Raises OSError, EEXIST where a host port belongs to another Pod."""
    if elements:
        netlink.send_elements([netlink.map_element(table, one.map, one.key(), one.value()) for one in elements])


def remove(table: str, elements: Iterable[Element]) -> None:
    """Remove elements, each that is there. One transaction if all are, for each waits for an RCU grace period."""
    requests = [netlink.map_element(table, one.map, one.key(), b"", delete=True) for one in elements]
    if not requests:
        return
    try:
        netlink.send_elements(requests)
    except FileNotFoundError:
        for request in requests:
            netlink.send_elements([request], ignore=(errno.ENOENT,))


def check_free(protocol: str, host_ip: str, port: int, family: int) -> bool:
    """Whether no process of the host has the port. Raises OSError EADDRNOTAVAIL if ``host_ip`` isn't the host's."""
    kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}.get(protocol)
    if kind is None:
        return True
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "TCP":
            # Connections that are ending don't count, only one that listens does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host_ip, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
