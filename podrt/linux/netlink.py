"""Links, addresses, routes and nftables elements through netlink. The only file that imports pyroute2.

pyroute2 encodes the messages; they are sent through a plain socket of the calling thread's network namespace, several
in one send(2), and the kernel's answers are read here. (pyroute2's own sockets run an event loop each, which costs
milliseconds, and its namespace helper forks the interpreter.) Daemon only: importing this takes 140 ms.

Functions fail as OSError with the kernel's errno and what was asked for.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_F_REQUEST, _F_ACK, _F_DUMP = 0x1, 0x4, 0x300
_F_EXCL, _F_CREATE = 0x200, 0x400
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE = 24
_IFF_UP = 1
_IFA_F_NODAD = 0x2
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1

_NFNL_SUBSYS_NFTABLES = 10
_NFNL_BATCH_BEGIN, _NFNL_BATCH_END = 16, 17
_NFT_NEWSETELEM, _NFT_DELSETELEM = 12, 14
_NFPROTO_INET = 1

_HEADER = struct.Struct("=IHHII")
_BUFFER = 256 * 1024
_TIMEOUT = 60
"""Seconds: the kernel always answers, but a transaction under memory pressure may lose an answer."""


class Request(NamedTuple):
    """An encoded message and what it does, for the error."""

    data: bytes
    what: str


class Link(NamedTuple):
    number: int
    name: str
    master: int
    up: bool


def _encode(message: Any, kind: int, how: int, what: str, **fields: Any) -> Request:
    message["header"] = {"type": kind, "flags": how | _F_REQUEST | _F_ACK}
    for name, value in fields.items():
        message[name] = value
    message.encode()
    return Request(bytes(message.data), what)


# -- messages


def new_veth(name: str, master: int, mtu: int, peer: str, peer_mac: str, peer_netns: int) -> Request:
    """A veth pair in one message: ``name`` here, up and a port of ``master``; ``peer`` in the namespace of descriptor
    ``peer_netns``, still down (the kernel can't open the peer before it has both: ENOTCONN)."""
    data, places = _veth_template(len(name), mtu, peer)
    message = bytearray(data)
    values = (name.encode(), struct.pack("=I", master), bytes.fromhex(peer_mac.replace(":", "")))
    for place, value in zip(places, (*values, struct.pack("=I", peer_netns)), strict=True):
        message[place : place + len(value)] = value
    return Request(bytes(message), f"making the link {name}")


@functools.lru_cache(maxsize=16)
def _veth_template(length: int, mtu: int, peer: str) -> tuple[bytes, tuple[int, ...]]:
    """The message with marks in it, and where they are: name, master, address, namespace.

    Encoding this deep a message takes 0.3 ms, filling the marks in a hundredth of that.
    """
    name, master, mac, netns = "\x01" * length, 0x7A7B7C71, "7a:7b:7c:7d:7e:7f", 0x7A7B7C72
    inner = [("IFLA_IFNAME", peer), ("IFLA_MTU", mtu), ("IFLA_ADDRESS", mac), ("IFLA_NET_NS_FD", netns)]
    info = {"attrs": [("VETH_INFO_PEER", {"attrs": inner})]}
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", master),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", info)]}),
    ]
    data = _encode(
        ifinfmsg(), _RTM_NEWLINK, _F_CREATE | _F_EXCL, "", flags=_IFF_UP, change=_IFF_UP, attrs=attributes
    ).data
    marks = (struct.pack("=I", master), bytes.fromhex(mac.replace(":", "")), struct.pack("=I", netns))
    first = _HEADER.size + 16 + 4  # struct ifinfomsg and the header of the first attribute
    assert data[first : first + length] == name.encode() and all(data.count(mark) == 1 for mark in marks)
    return data, (first, *(data.index(mark) for mark in marks))


def new_bridge(name: str, mac: str, mtu: int) -> Request:
    """A bridge that is up. Multicast snooping is off: without a querier it only loses neighbour discovery."""
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", mac),
        (
            "IFLA_LINKINFO",
            {
                "attrs": [
                    ("IFLA_INFO_KIND", "bridge"),
                    ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_MCAST_SNOOPING", 0), ("IFLA_BR_FORWARD_DELAY", 0)]}),
                ]
            },
        ),
    ]
    what = f"making the bridge {name}"
    return _encode(ifinfmsg(), _RTM_NEWLINK, _F_CREATE | _F_EXCL, what, flags=_IFF_UP, change=_IFF_UP, attrs=attributes)


def set_up(index: int, mtu: int = 0) -> Request:
    """Set a link up, and its MTU if one is given."""
    attributes = [("IFLA_MTU", mtu)] if mtu else []
    what = f"setting link {index} up"
    return _encode(ifinfmsg(), _RTM_NEWLINK, 0, what, index=index, flags=_IFF_UP, change=_IFF_UP, attrs=attributes)


def set_master(name: str, master: int) -> Request:
    """Make a link a port of the bridge with index ``master``, and set it up."""
    attributes = [("IFLA_IFNAME", name), ("IFLA_MASTER", master)]
    what = f"connecting the link {name} to its bridge"
    return _encode(ifinfmsg(), _RTM_NEWLINK, 0, what, flags=_IFF_UP, change=_IFF_UP, attrs=attributes)


def set_hairpin(name: str) -> Request:
    """Let a bridge send a packet back through the port it came from."""
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]})]
    attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})]
    return _encode(ifinfmsg(), _RTM_NEWLINK, 0, f"setting hairpin mode of the link {name}", attrs=attributes)


def del_link(name: str) -> Request:
    """Remove a link; ENODEV if there is none."""
    return _encode(ifinfmsg(), _RTM_DELLINK, 0, f"removing the link {name}", attrs=[("IFLA_IFNAME", name)])


def set_group(name: str, group: int) -> Request:
    """Make a link a member of a group; ENODEV if there is none."""
    attributes = [("IFLA_IFNAME", name), ("IFLA_GROUP", group)]
    return _encode(ifinfmsg(), _RTM_NEWLINK, 0, f"putting the link {name} in a group", attrs=attributes)


def del_group(group: int) -> Request:
    """Remove all links of a group at once; ENODEV if there is none."""
    return _encode(ifinfmsg(), _RTM_DELLINK, 0, f"removing the links of group {group}", attrs=[("IFLA_GROUP", group)])


def new_address(index: int, address: str, prefix: int) -> Request:
    """An address that is usable at once (no duplicate address detection); EEXIST if it is there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    return _encode(
        ifaddrmsg(),
        _RTM_NEWADDR,
        _F_CREATE | _F_EXCL,
        f"adding the address {address}/{prefix}",
        family=int(family),
        prefixlen=prefix,
        flags=flags,
        index=index,
        attrs=[("IFA_LOCAL", address), ("IFA_ADDRESS", address)],
    )


def new_default_route(index: int, gateway: str) -> Request:
    """The default route of the gateway's address family."""
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    return _encode(
        rtmsg(),
        _RTM_NEWROUTE,
        _F_CREATE | _F_EXCL,
        f"adding the default route through {gateway}",
        family=int(family),
        table=_RT_TABLE_MAIN,
        proto=_RTPROT_BOOT,
        scope=0,
        type=_RTN_UNICAST,
        attrs=[("RTA_GATEWAY", gateway), ("RTA_OIF", index)],
    )


def map_element(table: str, name: str, key: bytes, value: bytes, *, delete: bool = False) -> Request:
    """An element of a map in an ``inet`` table of nftables; ``key`` and ``value`` as the kernel keeps them."""
    attributes = [("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", key)]})]
    if not delete:
        attributes.append(("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VALUE", value)]}))
    kind = _NFNL_SUBSYS_NFTABLES << 8 | (_NFT_DELSETELEM if delete else _NFT_NEWSETELEM)
    return _encode(
        nft_set_elem_list_msg(),
        kind,
        0 if delete else _F_CREATE,
        f"{'removing' if delete else 'adding'} an element of the map {name} of table {table}",
        nfgen_family=_NFPROTO_INET,
        attrs=[
            ("NFTA_SET_ELEM_LIST_TABLE", table),
            ("NFTA_SET_ELEM_LIST_SET", name),
            ("NFTA_SET_ELEM_LIST_ELEMENTS", [{"attrs": attributes}]),
        ],
    )


# -- sending


@contextmanager
def _socket(protocol: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.bind((0, 0))
        sock.settimeout(_TIMEOUT)
        yield sock


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, payload) of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _number(data: bytes, sequence: int) -> bytes:
    return data[:8] + struct.pack("=I", sequence) + data[12:]


def send(requests: Sequence[Request], *, ignore: Sequence[int] = ()) -> None:
    """Send route messages in one go, in the calling thread's namespace, and wait for all answers.

    Raises the first error; the others have been carried out nevertheless. Errnos in ``ignore`` are none.
    """
    with _socket(socket.NETLINK_ROUTE) as sock:
        sock.send(b"".join(_number(request.data, number) for number, request in enumerate(requests, 1)))
        _collect(sock, requests, ignore)


def send_elements(requests: Sequence[Request], *, ignore: Sequence[int] = ()) -> None:
    """Send nftables elements as one transaction: all or none. Raises OSError."""
    batch = struct.pack("=BBH", 0, 0, socket.htons(_NFNL_SUBSYS_NFTABLES))
    begin = _HEADER.pack(20, _NFNL_BATCH_BEGIN, _F_REQUEST, 0, 0) + batch
    end = _HEADER.pack(20, _NFNL_BATCH_END, _F_REQUEST, len(requests) + 1, 0) + batch
    with _socket(12) as sock:  # NETLINK_NETFILTER
        sock.send(begin + b"".join(_number(request.data, n) for n, request in enumerate(requests, 1)) + end)
        _collect(sock, requests, ignore)


def _collect(sock: socket.socket, requests: Sequence[Request], ignore: Sequence[int]) -> None:
    waiting = len(requests)
    first: OSError | None = None
    while waiting:
        for kind, sequence, payload in _messages(sock.recv(_BUFFER)):
            if kind != _NLMSG_ERROR:
                continue
            code = -struct.unpack_from("=i", payload)[0]
            waiting -= 1
            if code and code not in ignore and first is None:
                what = requests[sequence - 1].what if 1 <= sequence <= len(requests) else "netlink"
                first = OSError(code, f"{what}: {os.strerror(code)}")
            if not 1 <= sequence <= len(requests):
                waiting = 0
    if first is not None:
        raise first


def links() -> list[Link]:
    """All links of the calling thread's namespace."""
    return [_link(payload) for payload in _dump(_encode(ifinfmsg(), _RTM_GETLINK, _F_DUMP, "listing links"))]


def addresses() -> list[tuple[int, str]]:
    """All addresses of the calling thread's namespace: (index of the link, ``address/prefix``)."""
    found = []
    for payload in _dump(_encode(ifaddrmsg(), _RTM_GETADDR, _F_DUMP, "listing addresses")):
        family, prefix, _, _, index = struct.unpack_from("=BBBBI", payload)
        values = dict(_attributes(payload, 8))
        value = values.get(2) or values.get(1)  # IFA_LOCAL, IFA_ADDRESS
        if value is not None:
            found.append((index, f"{socket.inet_ntop(family, value)}/{prefix}"))
    return found


def _dump(request: Request) -> Iterator[bytes]:
    """The payload of each message of a dump."""
    with _socket(socket.NETLINK_ROUTE) as sock:
        sock.send(_number(request.data, 1))
        while True:
            for kind, _, payload in _messages(sock.recv(_BUFFER)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, f"{request.what}: {os.strerror(code)}")
                yield payload


def _attributes(payload: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        yield kind, payload[at + 4 : at + length]
        at += max((length + 3) & ~3, 4)


def _link(payload: bytes) -> Link:
    """The few fields that are needed, of struct ifinfomsg and its attributes (decoding it all takes a millisecond)."""
    number, flags = struct.unpack_from("=iI", payload, 4)
    values = dict(_attributes(payload, 16))
    name = values.get(3, b"").rstrip(b"\0").decode()  # IFLA_IFNAME
    master = struct.unpack("=I", values.get(10, bytes(4)))[0]  # IFLA_MASTER
    return Link(number, name, master, bool(flags & _IFF_UP))


def index_of(name: str) -> int:
    """The index of a link, 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:  # It carries no errno.
        return 0
