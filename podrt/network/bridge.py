"""The built-in network: one bridge, a veth pair for each Pod, addresses of its own, one nftables table.

::

    Pod's namespace            host
    eth0 10.86.0.2/16  ----  pr<sandbox id>  --+
    eth0 10.86.0.3/16  ----  pr<sandbox id>  --+-- podrt0 10.86.0.1/16 -- forwarding, nftables -- the world

Adding a Pod is one netlink message on the host (the pair, made with its far end inside the Pod's namespace, up and on
the bridge), one send of addresses and routes inside, and one transaction of map elements if it has host ports.

What a Pod has is written down before it is made and forgotten after it is gone (leases and ports below
``run_dir/leases``), so :meth:`BridgeNetwork.recover` finds everything after a crash. Methods block for milliseconds and
may be called from several threads.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import logging
import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from podrt.config import Config
from podrt.errors import ConflictError
from podrt.linux import namespace, netlink
from podrt.network import links, nft
from podrt.network import ports as host_ports
from podrt.network.ipam import Pool
from podrt.network.links import Together
from podrt.network.ports import HostPorts
from podrt.network.types import INTERFACE, Attachment, Port

log = logging.getLogger(__name__)

_ID_CHARACTERS = 12


class BridgeNetwork:
    """The network of one daemon: bridge, subnets, table and directories come from ``config``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._leases = config.run_dir / "leases"
        self._pools = [Pool(ipaddress.ip_network(config.subnet_v4), self._leases)]
        if config.subnet_v6 and Path("/proc/sys/net/ipv6").exists():
            self._pools.append(Pool(ipaddress.ip_network(config.subnet_v6), self._leases))
        self._ports = HostPorts(self._leases / "ports")
        self._lock = threading.Lock()
        self._bridge = 0
        self._loaded = False
        self._remove_links = Together(links.remove)
        self._remove_elements = Together(functools.partial(nft.remove, config.nft_table))

    # -- the host's side

    def setup(self) -> None:
        """Make what all Pods share: directories, bridge, forwarding, table. Can be repeated.

        Raises UnsupportedError (no nft), ConflictError (a subnet that the host has already), OSError.
        """
        with self._lock:
            self._setup()

    def _load(self) -> None:
        self._ports.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for pool in self._pools:
            pool.load()
        for broken in self._ports.load():
            log.warning("host ports of sandbox %s can't be read and are dropped", broken)
            self._ports.release(broken)
        self._loaded = True

    def _setup(self, live: Collection[str] | None = None) -> None:
        self._load()
        bridge = self._make_bridge()
        _set_forwarding(self._config.bridge)
        kept = None
        if live is not None:
            kept = [element for owner in self._ports.owners() & set(live) for element in self._ports.of(owner)]
        config = self._config
        subnet_v6 = config.subnet_v6 if len(self._pools) > 1 else ""
        nft.run(nft.ruleset(config.nft_table, config.bridge, config.subnet_v4, subnet_v6, kept))
        self._bridge = bridge

    def _check_subnets(self, index: int) -> None:
        """Two links with one subnet: answers to Pods would go to the other one, and nothing would say why."""
        names = {link.number: link.name for link in netlink.links()}
        for number, text in netlink.addresses():
            network = ipaddress.ip_interface(text).network
            for pool in self._pools:
                if number != index and network.version == pool.network.version and network.overlaps(pool.network):
                    raise ConflictError(
                        f"subnet {pool.network} overlaps {network} of the link {names.get(number, number)}; "
                        "configure another subnet, or remove the link"
                    )

    def _make_bridge(self) -> int:
        name = self._config.bridge
        index = netlink.index_of(name)
        self._check_subnets(index)
        if not index:
            mac = _mac(self._pools[0].gateway)
            netlink.send([netlink.new_bridge(name, mac, self._config.mtu)], ignore=(errno.EEXIST,))
            index = netlink.index_of(name)
        requests = [netlink.set_up(index, self._config.mtu)]
        # A Pod with CAP_NET_RAW could else be the host's router (CVE-2020-13401).
        _write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
        if len(self._pools) > 1:
            _write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
            # Else the first Pod can't be reached from outside for two seconds: forwarding looks neighbours up from the
            # bridge's link-local address, which would be tentative from the moment that the bridge has a carrier.
            _write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")
        for pool in self._pools:
            requests.append(netlink.new_address(index, pool.gateway, pool.network.prefixlen))
        netlink.send(requests, ignore=(errno.EEXIST,))
        return index

    def teardown(self) -> None:
        """Remove bridge, table and leases, with whatever is still connected. Forwarding stays on. Can be repeated."""
        with self._lock:
            self._load()
            for owner in self._owners():
                self._detach(owner)
            netlink.send([netlink.del_link(self._config.bridge)], ignore=(errno.ENODEV,))
            nft.delete_table(self._config.nft_table)
            self._bridge = 0
            for directory in (self._ports.directory, self._leases):
                with contextlib.suppress(OSError):
                    directory.rmdir()

    # -- Pods

    def attach(self, sandbox_id: str, netns: Path | str, ports: Sequence[Port] = ()) -> Attachment:
        """Connect the network namespace pinned at ``netns``. What the sandbox had before is taken down first.

        Raises ExhaustedError (addresses), ConflictError (host ports), InvalidError (host ports), FileNotFoundError (no
        such namespace), OSError. After an error nothing of it is left.
        """
        with self._lock:
            if not self._bridge:
                self._setup()
            if sandbox_id in self._owners():
                self._detach(sandbox_id)
            try:
                ips = [pool.acquire(sandbox_id) for pool in self._pools]
                elements = host_ports.elements(ports, ips)
                if elements:
                    self._ports.reserve(sandbox_id, elements)
            except BaseException:
                self._forget(sandbox_id)
                raise
            bridge = self._bridge
        try:
            mac = self._connect(sandbox_id, netns, ips, bridge, hairpin=bool(elements))
            nft.add(self._config.nft_table, elements)
        except BaseException:
            with contextlib.suppress(OSError):
                self.detach(sandbox_id)
            raise
        gateways = tuple(pool.gateway for pool in self._pools)
        return Attachment(tuple(ips), mac, host_ifname(sandbox_id), gateways)

    def _connect(self, sandbox_id: str, netns: Path | str, ips: Sequence[str], bridge: int, *, hairpin: bool) -> str:
        name, mac = host_ifname(sandbox_id), _mac(ips[0])
        fd = namespace.open_pinned(netns)
        try:
            for retry in (True, False):
                try:
                    requests = [netlink.new_veth(name, bridge, self._config.mtu, INTERFACE, mac, fd)]
                    if hairpin:
                        # Where bridge-nf-call-iptables is set, a Pod's connection to its own host port is sent back by
                        # the bridge itself and not by the IP layer.
                        requests.append(netlink.set_hairpin(name))
                    netlink.send(requests)
                    break
                except OSError as error:
                    if not retry or error.errno not in (errno.EEXIST, errno.ENODEV, errno.EINVAL):
                        raise
                    # A link that a crash left, or the bridge was removed under us.
                    netlink.send([netlink.del_link(name)], ignore=(errno.ENODEV,))
                    with self._lock:
                        bridge = self._bridge = self._make_bridge()
            namespace.in_netns(fd, lambda: self._configure(ips))
        finally:
            os.close(fd)
        return mac

    def _configure(self, ips: Sequence[str]) -> None:
        """Inside the Pod's namespace: addresses and default routes."""
        index = netlink.index_of(INTERFACE)
        # The routes are given here; what a neighbour advertises would take its traffic (CVE-2020-10749).
        _write_sysctl(f"ipv6/conf/{INTERFACE}/accept_ra", "0")
        if len(ips) > 1:
            _write_sysctl(f"ipv6/conf/{INTERFACE}/disable_ipv6", "0")
        addresses = [
            netlink.new_address(index, ip, pool.network.prefixlen) for ip, pool in zip(ips, self._pools, strict=True)
        ]
        routes = [netlink.new_default_route(index, pool.gateway) for pool in self._pools]
        netlink.send([netlink.set_up(1), netlink.set_up(index), *addresses, *routes])

    def detach(self, *sandbox_ids: str) -> None:
        """Disconnect sandboxes and give up their addresses and host ports. Nothing of one that has none.

        After an error with several it is open which of them are disconnected.
        """
        with self._lock:
            if not self._loaded:
                self._load()  # Not all of set-up: what is there must be removable where nothing new could be made.
            elements = [element for sandbox_id in sandbox_ids for element in self._ports.of(sandbox_id)]
        self._remove_elements(elements)
        self._remove_links([host_ifname(sandbox_id) for sandbox_id in sandbox_ids])
        with self._lock:
            for sandbox_id in sandbox_ids:
                self._forget(sandbox_id)

    def _detach(self, sandbox_id: str) -> None:
        nft.remove(self._config.nft_table, self._ports.of(sandbox_id))
        netlink.send([netlink.del_link(host_ifname(sandbox_id))], ignore=(errno.ENODEV,))
        self._forget(sandbox_id)

    def _forget(self, sandbox_id: str) -> None:
        if sandbox_id:  # A lease without an owner is what a crash left between making and writing its file.
            self._ports.release(sandbox_id)
        for pool in self._pools:
            pool.release(sandbox_id)

    def _owners(self) -> set[str]:
        return set().union(self._ports.owners(), *(pool.owners() for pool in self._pools))

    def recover(self, live: Collection[str]) -> None:
        """After a start of the daemon: set up, and drop whatever belongs to no sandbox of ``live``.

        The maps are filled anew from what the live sandboxes have, their links are put back on the bridge.
        """
        with self._lock:
            self._setup(live)
            for owner in (self._owners() | {""}) - set(live):
                self._forget(owner)
            names = {host_ifname(sandbox_id) for sandbox_id in live}
            for link in netlink.links():
                if link.name in names and link.master != self._bridge:
                    netlink.send([netlink.set_master(link.name, self._bridge)])
                elif link.master == self._bridge and link.name not in names and _is_ours(link.name):
                    netlink.send([netlink.del_link(link.name)], ignore=(errno.ENODEV,))


def host_ifname(sandbox_id: str) -> str:
    """The host's end of a Pod's veth pair: at most 15 characters, from the id's start as the namespace's name is."""
    return f"pr{sandbox_id[:_ID_CHARACTERS]}"


def _is_ours(name: str) -> bool:
    return name.startswith("pr") and len(name) == 2 + _ID_CHARACTERS


def _mac(ip: str) -> str:
    """A local address that follows from the IPv4 address: the neighbours' caches stay true when it is given again."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(ip).packed[-4:])


def _read_sysctl(name: str) -> str:
    try:
        return Path("/proc/sys/net", name).read_text().strip()
    except FileNotFoundError:
        return ""


def _write_sysctl(name: str, value: str) -> None:
    """Below /proc/sys/net of the calling thread's namespace; nothing if it is so, or there is no such file."""
    if _read_sysctl(name) not in ("", value):
        Path("/proc/sys/net", name).write_text(value)


def _set_forwarding(bridge: str) -> None:
    _write_sysctl("ipv4/ip_forward", "1")
    _write_sysctl(f"ipv4/conf/{bridge}/route_localnet", "1")
    if _read_sysctl("ipv6/conf/all/forwarding") == "0":
        # A router ignores router advertisements: without this the host would lose its own IPv6 route.
        for directory in Path("/proc/sys/net/ipv6/conf").iterdir():
            if (
                directory.name not in ("all", "lo", bridge)
                and _read_sysctl(f"ipv6/conf/{directory.name}/accept_ra") == "1"
            ):
                _write_sysctl(f"ipv6/conf/{directory.name}/accept_ra", "2")
        _write_sysctl("ipv6/conf/all/forwarding", "1")
