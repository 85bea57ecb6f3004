"""The built-in network between namespaces of the test's own: a "host", a "world" beyond it, and Pods.

Nothing of the machine's own network is touched: the host is a namespace too, and every call is made inside it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from podrt.config import Config
from podrt.errors import ConflictError, ExhaustedError, InvalidError
from podrt.linux import abi, libc, mount_table, namespace, netlink
from podrt.network import forward
from podrt.network.bridge import BridgeNetwork, host_ifname
from podrt.network.types import Attachment, Port
from tests.framework.patience import scaled

Result = TypeVar("Result")

HOST_V4, WORLD_V4 = "203.0.113.1", "203.0.113.2"
HOST_V6, WORLD_V6 = "2001:db8::1", "2001:db8::2"


def new_netns() -> int:
    """A descriptor of a new network namespace whose loopback is up."""
    made: list[int] = []

    def make() -> None:
        libc.unshare(abi.CLONE_NEWNET)
        made.append(namespace.open_current("net"))
        netlink.send([netlink.set_up(1)])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Server:
    """Answers each TCP connection with the client's address."""

    def __init__(self, netns: int, port: int, address: str = "::") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = namespace.in_netns(netns, lambda: socket.socket(family))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(peer[0].removeprefix("::ffff:").encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Lab:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = new_netns()
        self.world = new_netns()
        self.closers: list[Callable[[], None]] = [lambda: os.close(self.host), lambda: os.close(self.world)]
        self.config = Config.under(directory, "nt", subnet_v4="10.77.0.0/24", subnet_v6="fd77::/64")
        self.config.run_dir.mkdir()
        self.network = self.make_network()
        self._link_the_world()
        self.pins: list[Path] = []

    def make_network(self, **settings: str) -> BridgeNetwork:
        config = Config.under(
            self.directory, "nt", **({"subnet_v4": "10.77.0.0/24", "subnet_v6": "fd77::/64"} | settings)
        )
        return BridgeNetwork(config)

    def _link_the_world(self) -> None:
        def here() -> None:
            netlink.send([netlink.new_bridge("uplink", "0a:00:00:00:00:01", 1500)])
            index = netlink.index_of("uplink")
            netlink.send([netlink.new_veth("world", index, 1500, "eth0", "0a:00:00:00:00:02", self.world)])
            netlink.send([netlink.new_address(index, HOST_V4, 24), netlink.new_address(index, HOST_V6, 64)])

        def there() -> None:
            index = netlink.index_of("eth0")
            netlink.send([netlink.set_up(index)])
            netlink.send([netlink.new_address(index, WORLD_V4, 24), netlink.new_address(index, WORLD_V6, 64)])

        self.on_host(here)
        namespace.in_netns(self.world, there)

    def on_host(self, function: Callable[[], Result]) -> Result:
        return namespace.in_netns(self.host, function)

    def pod(self, name: str, ports: Sequence[Port] = ()) -> Pod:
        pod = Pod(self, name)
        self.closers.append(pod.close)
        pod.attachment = self.on_host(lambda: self.network.attach(pod.id, pod.path, ports))
        return pod

    def serve(self, netns: int, port: int, address: str = "::") -> None:
        server = Server(netns, port, address)
        self.closers.append(server.close)

    def nft(self) -> str:
        return self.on_host(lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout)

    def links(self) -> set[str]:
        return {link.name for link in self.on_host(netlink.links)} - {"lo", "uplink", "world"}

    def close(self) -> None:
        self.on_host(self.network.teardown)
        left = (self.links(), self.nft(), list(self.config.run_dir.iterdir()))
        for closer in reversed(self.closers):
            closer()
        assert left == (set(), "", [])


class Pod:
    attachment: Attachment

    def __init__(self, lab: Lab, name: str) -> None:
        self.id = hashlib.sha256(name.encode()).hexdigest()
        self.netns = new_netns()
        self.path = lab.directory / f"netns-{name}"
        mount_table.pin_namespace(self.netns, self.path)

    @property
    def v4(self) -> str:
        return self.attachment.ips[0]

    @property
    def v6(self) -> str:
        return self.attachment.ips[1]

    def close(self) -> None:
        mount_table.unpin(self.path)
        os.close(self.netns)


def fetch(netns: int, address: str, port: int, timeout: float = 3) -> str:
    """What a server answers, that is who it believes to talk to; the errno's name if it can't be reached."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.in_netns(netns, lambda: socket.socket(family)) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            return client.recv(100).decode()
        except TimeoutError:
            return "ETIMEDOUT"
        except OSError as error:
            return errno.errorcode[error.errno or 0]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def test_pods_hosts_and_the_world(lab: Lab) -> None:
    one, two = lab.pod("one"), lab.pod("two")
    for netns in (one.netns, two.netns, lab.host, lab.world):
        lab.serve(netns, 80)
    assert one.attachment.gateways == ("10.77.0.1", "fd77::1")
    assert (one.v4, one.v6, two.v4, two.v6) == ("10.77.0.2", "fd77::2", "10.77.0.3", "fd77::3")
    # Pod to Pod, and to itself, with its own address
    assert fetch(one.netns, two.v4, 80) == one.v4
    assert fetch(one.netns, two.v6, 80) == one.v6
    assert fetch(one.netns, one.v4, 80) == one.v4
    assert fetch(one.netns, "127.0.0.1", 80) == "127.0.0.1"
    # host to Pod, Pod to host
    assert fetch(lab.host, one.v4, 80) == "10.77.0.1"
    assert fetch(lab.host, one.v6, 80) == "fd77::1"
    assert fetch(one.netns, "10.77.0.1", 80) == one.v4
    assert fetch(one.netns, HOST_V6, 80) == one.v6
    # Pod to the world: masqueraded, for the world knows no way back
    assert fetch(one.netns, WORLD_V4, 80) == HOST_V4
    assert fetch(one.netns, WORLD_V6, 80) == HOST_V6


def test_ipv6_is_usable_at_once(lab: Lab) -> None:
    """No duplicate address detection: binding to the Pod's address works the moment it is attached."""
    pod = lab.pod("one")
    with namespace.in_netns(pod.netns, lambda: socket.socket(socket.AF_INET6)) as server:
        server.bind((pod.v6, 80))


def test_host_ports(lab: Lab) -> None:
    web = lab.pod("web", [Port(80, 8080), Port(80, 8081, host_ip="127.0.0.1"), Port(81, 8080, "UDP")])
    other = lab.pod("other")
    lab.serve(web.netns, 80)
    # from outside: with the true address of the client
    assert fetch(lab.world, HOST_V4, 8080) == WORLD_V4
    assert fetch(lab.world, HOST_V6, 8080) == WORLD_V6
    # from the host itself, by any of its addresses
    assert fetch(lab.host, HOST_V4, 8080) == HOST_V4
    assert fetch(lab.host, "127.0.0.1", 8080) == "10.77.0.1"
    assert fetch(lab.host, "10.77.0.1", 8080) == "10.77.0.1"
    assert fetch(lab.host, HOST_V6, 8080) == HOST_V6
    assert fetch(lab.host, "::1", 8080) == "ECONNREFUSED"
    # from another Pod, and from the Pod itself through the host
    assert fetch(other.netns, HOST_V4, 8080) == "10.77.0.1"
    assert fetch(other.netns, "10.77.0.1", 8080) == "10.77.0.1"
    assert fetch(web.netns, HOST_V4, 8080) == "10.77.0.1"
    assert fetch(web.netns, HOST_V6, 8080) == "fd77::1"
    # an address of the host that was asked for
    assert fetch(lab.host, "127.0.0.1", 8081) == "10.77.0.1"
    assert fetch(lab.world, HOST_V4, 8081) == "ECONNREFUSED"
    lab.on_host(lambda: lab.network.detach(web.id))
    assert fetch(lab.world, HOST_V4, 8080) == "ECONNREFUSED"
    assert "8080" not in lab.nft()


def test_udp_host_port(lab: Lab) -> None:
    pod = lab.pod("dns", [Port(53, 5353, "UDP")])
    with namespace.in_netns(pod.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("0.0.0.0", 53))
        server.settimeout(5)
        with namespace.in_netns(lab.world, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(5)
            client.connect((HOST_V4, 5353))
            client.send(b"question")
            question, peer = server.recvfrom(100)
            server.sendto(question + b"?", peer)
            assert client.recv(100) == b"question?"


def test_cve_2020_8558_the_hosts_localhost_is_not_the_pods(lab: Lab) -> None:
    """With route_localnet a neighbour could send packets for 127.0.0.1 to the host."""
    pod = lab.pod("one", [Port(80, 8080)])
    lab.serve(lab.host, 6443, "127.0.0.1")

    def route() -> None:
        """Inside the Pod: send 127.0.0.0/8 out through eth0 instead of lo."""
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        for command in (
            "ip addr del 127.0.0.1/8 dev lo",
            "ip route del table local local 127.0.0.0/8 dev lo",
            "ip route del table local local 127.0.0.1 dev lo",
            f"ip route add 127.0.0.0/8 via 10.77.0.1 dev eth0 src {pod.v4}",
        ):
            subprocess.run(command.split(), capture_output=True)

    namespace.in_netns(pod.netns, route)
    assert fetch(lab.host, "127.0.0.1", 6443) == "127.0.0.1"
    assert fetch(pod.netns, "127.0.0.1", 6443, timeout=1) == "ETIMEDOUT"


def advertise(netns: int) -> None:
    """Be a router for everyone on the link, with a prefix of its own (RFC 4861, router advertisement)."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 9000, 9000, 0) + socket.inet_pton(socket.AF_INET6, "fd66::")
    packet = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    with namespace.in_netns(netns, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = namespace.in_netns(netns, lambda: netlink.index_of("eth0"))
        # It counts only from a link-local address; one that is usable at once.
        namespace.in_netns(netns, lambda: netlink.send([netlink.new_address(index, "fe80::66", 64)]))
        sender.bind(("fe80::66", 0, 0, index))
        for _ in range(5):
            sender.sendto(packet, ("ff02::1", 0, 0, index))
            time.sleep(0.05)


def read(name: str) -> str:
    """/proc/net/<name> of the calling thread's namespace."""
    return Path("/proc/thread-self/net", name).read_text()


@pytest.mark.parametrize("accept", ["1", "2"])
def test_cve_2020_10749_and_13401_router_advertisements(lab: Lab, accept: str) -> None:
    """A Pod with CAP_NET_RAW, which is the default, becomes nobody's IPv6 router, neither the host's nor a Pod's."""
    lab.on_host(lambda: Path("/proc/sys/net/ipv6/conf/default/accept_ra").write_text(accept))
    evil, victim = lab.pod("evil"), lab.pod("victim")
    before = [namespace.in_netns(netns, lambda: read("ipv6_route")) for netns in (lab.host, victim.netns)]
    advertise(evil.netns)
    after = [namespace.in_netns(netns, lambda: read("ipv6_route")) for netns in (lab.host, victim.netns)]
    assert all(before) and not any("fd66" in text for text in after)
    addresses = namespace.in_netns(victim.netns, lambda: read("if_inet6")) + lab.on_host(lambda: read("if_inet6"))
    assert "fd77" in addresses and "fd66" not in addresses


def test_the_first_pod_is_reached_from_outside_at_once(lab: Lab) -> None:
    lab.serve(lab.host, 80)
    deadline = time.monotonic() + scaled(10)
    while fetch(lab.world, HOST_V6, 80) != WORLD_V6:  # the test's own link
        assert time.monotonic() < deadline
    pod = lab.pod("one", [Port(80, 8080)])
    lab.serve(pod.netns, 80)
    start = time.monotonic()
    assert fetch(lab.world, HOST_V6, 8080) == WORLD_V6
    assert time.monotonic() - start < scaled(0.8)


def test_host_port_conflicts(lab: Lab) -> None:
    first = lab.pod("first", [Port(80, 8080)])
    for wanted, taken in (
        (Port(80, 8080), True),
        (Port(81, 8080, host_ip=HOST_V4), True),
        (Port(80, 8080, "UDP"), False),
    ):
        if taken:
            with pytest.raises(ConflictError, match=f"host port 8080/TCP is taken by sandbox {first.id[:12]}"):
                lab.pod("second", [wanted])
            lab.pod_path_gone = mount_table.unpin(lab.directory / "netns-second")
        else:
            lab.pod("third", [wanted])
    lab.serve(lab.host, 9090)
    with pytest.raises(ConflictError, match="9090/TCP is in use by a process of the host"):
        lab.pod("fourth", [Port(80, 9090)])
    with pytest.raises(InvalidError, match=r"hostIP 192.0.2.99"):
        lab.pod("fifth", [Port(80, 9091, host_ip="192.0.2.99")])
    with pytest.raises(InvalidError, match="is not an address"):
        lab.pod("sixth", [Port(80, 9091, host_ip="localhost")])
    # what failed holds nothing
    assert (
        sorted(path.name for path in (lab.config.run_dir / "leases").iterdir())
        == sorted(["ports", *first.attachment.ips, "10.77.0.5", "fd77::5"])
        or len(list((lab.config.run_dir / "leases").iterdir())) == 5
    )
    assert len(list((lab.config.run_dir / "leases/ports").iterdir())) == 2


def test_addresses_run_out_and_come_back(lab: Lab) -> None:
    lab.network = lab.make_network(subnet_v4="10.77.0.0/29")
    pods = [lab.pod(f"p{number}") for number in range(5)]
    with pytest.raises(ExhaustedError):
        lab.pod("p5")
    lab.on_host(lambda: lab.network.detach(pods[2].id))
    lab.on_host(lambda: lab.network.detach(pods[2].id))
    assert lab.pod("p6").v4 == pods[2].v4
    lab.serve(pods[0].netns, 80)
    assert fetch(pods[4].netns, pods[0].v4, 80) == pods[4].v4


def test_a_new_daemon_finds_everything(lab: Lab) -> None:
    keep = lab.pod("keep", [Port(80, 8080)])
    drop = lab.pod("drop", [Port(80, 8081)])
    lab.serve(keep.netns, 80)
    # What a daemon leaves that is killed between making a lease and writing its owner into it.
    (lab.config.run_dir / "leases/10.77.0.200").touch()
    lab.network = lab.make_network()
    lab.on_host(lambda: lab.network.recover({keep.id}))
    assert lab.links() == {"pr-nt", host_ifname(keep.id)}
    assert "8081" not in lab.nft()
    assert sorted(path.name for path in (lab.config.run_dir / "leases").iterdir()) == sorted(
        ["ports", keep.v4, keep.v6]
    )
    assert fetch(lab.world, HOST_V4, 8080) == WORLD_V4
    later = lab.pod("later", [Port(80, 8081)])
    assert set(later.attachment.ips).isdisjoint((*keep.attachment.ips, *drop.attachment.ips))
    lab.on_host(lambda: lab.network.recover({keep.id, later.id}))
    assert fetch(later.netns, keep.v4, 80) == later.v4


def test_detaching_where_set_up_is_impossible(lab: Lab) -> None:
    """After a restart, with the bridge gone, its table too, and its subnet taken by someone else."""
    pod = lab.pod("one", [Port(80, 8080)])
    lab.on_host(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    lab.on_host(lambda: netlink.send([netlink.del_link("pr-nt")]))
    lab.on_host(lambda: netlink.send([netlink.new_bridge("thief", "0a:00:00:00:00:03", 1500)]))
    lab.on_host(lambda: netlink.send([netlink.new_address(netlink.index_of("thief"), "10.77.0.1", 24)]))
    lab.network = lab.make_network()
    with pytest.raises(ConflictError, match="thief"):
        lab.on_host(lambda: lab.network.recover({pod.id}))
    lab.on_host(lambda: lab.network.detach(pod.id))
    assert [path.name for path in (lab.config.run_dir / "leases").iterdir()] == ["ports"]
    assert lab.links() == {"thief"}
    lab.on_host(lambda: netlink.send([netlink.del_link("thief")]))


def test_what_others_removed_is_made_again(lab: Lab) -> None:
    one = lab.pod("one", [Port(80, 8080)])
    lab.on_host(lambda: netlink.send([netlink.del_link("pr-nt")]))
    two = lab.pod("two")
    lab.on_host(lambda: lab.network.recover({one.id, two.id}))
    lab.serve(one.netns, 80)
    assert fetch(two.netns, one.v4, 80) == two.v4
    lab.on_host(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    lab.on_host(lambda: lab.network.recover({one.id, two.id}))
    assert fetch(lab.world, HOST_V4, 8080) == WORLD_V4
    lab.on_host(lambda: lab.network.detach(one.id))


@pytest.mark.parametrize("settings", [{"subnet_v4": "203.0.112.0/20"}, {"subnet_v6": "2001:db8::/80"}])
def test_a_subnet_that_the_host_has_already(lab: Lab, settings: dict[str, str]) -> None:
    network = lab.make_network(**settings)
    with pytest.raises(ConflictError, match=r"overlaps .* of the link uplink; configure another subnet"):
        lab.on_host(network.setup)
    assert lab.links() == set()
    assert lab.nft() == ""


def test_foreign_tables_are_left_alone(lab: Lab) -> None:
    foreign = "table inet other {\n\tchain c {\n\t\tip saddr 10.77.0.9 counter packets 0 bytes 0 drop\n\t}\n}\n"
    lab.on_host(lambda: subprocess.run(["nft", "-f", "-"], input=foreign, text=True, check=True))
    pod = lab.pod("one", [Port(80, 8080)])
    lab.on_host(lambda: lab.network.recover({pod.id}))
    assert foreign in lab.nft()
    lab.on_host(lab.network.teardown)
    assert lab.nft() == foreign
    lab.on_host(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))


def test_attaching_again_replaces(lab: Lab) -> None:
    pod = lab.pod("one", [Port(80, 8080)])
    before = pod.attachment
    pod.attachment = lab.on_host(lambda: lab.network.attach(pod.id, pod.path, [Port(80, 8080)]))
    assert pod.attachment.ips != before.ips
    lab.serve(pod.netns, 80)
    assert fetch(lab.world, HOST_V4, 8080) == WORLD_V4
    assert len(lab.links()) == 2


def test_no_namespace_no_lease(lab: Lab) -> None:
    with pytest.raises(FileNotFoundError):
        lab.on_host(lambda: lab.network.attach("a" * 64, lab.directory / "none", [Port(80, 8080)]))
    assert [path.name for path in (lab.config.run_dir / "leases").iterdir()] == ["ports"]
    assert list((lab.config.run_dir / "leases/ports").iterdir()) == []


def test_many_at_once(lab: Lab) -> None:
    lab.on_host(lab.network.setup)
    pods = [Pod(lab, f"p{number}") for number in range(20)]
    lab.closers += [pod.close for pod in pods]
    errors: list[BaseException] = []

    def attach(pod: Pod, number: int) -> None:
        try:
            ports = [Port(80, 9000 + number)]
            pod.attachment = lab.on_host(lambda: lab.network.attach(pod.id, pod.path, ports))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=attach, args=(pod, number)) for number, pod in enumerate(pods)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({ip for pod in pods for ip in pod.attachment.ips}) == 40
    for number, pod in enumerate(pods):
        lab.serve(pod.netns, 80)
        assert fetch(lab.host, HOST_V4, 9000 + number) == HOST_V4
        assert fetch(pods[0].netns, pod.v6, 80) == pods[0].v6
    # and away again, all but the first, together with one that isn't there
    gone = [*(pod.id for pod in pods[1:]), "0" * 64]
    threads = [threading.Thread(target=lab.on_host, args=(lambda one=one: lab.network.detach(one),)) for one in gone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lab.links() == {"pr-nt", host_ifname(pods[0].id)}
    assert fetch(lab.host, pods[0].v4, 80) == "10.77.0.1"
    assert len(list((lab.config.run_dir / "leases").iterdir())) == 3


async def test_port_forwarding(lab: Lab) -> None:
    pod = lab.pod("one")
    lab.serve(pod.netns, 80, "127.0.0.1")
    lab.serve(pod.netns, 81, "::1")
    for port, expected in ((80, b"127.0.0.1"), (81, b"::1")):
        reader, writer = await forward.connect_port(pod.path, port)
        assert await asyncio.wait_for(reader.read(), scaled(5)) == expected
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError, match="localhost:82 in the Pod"):
        await forward.connect_port(pod.path, 82)
    with pytest.raises(FileNotFoundError):
        await forward.connect_port(lab.directory / "none", 80)


def test_attaching_is_quick(lab: Lab) -> None:
    """The budget is 4 ms; the bound here is loose because the machine may be busy."""
    lab.on_host(lab.network.setup)
    times = []
    for number in range(20):
        pod = Pod(lab, f"p{number}")
        lab.closers.append(pod.close)
        start = time.perf_counter()
        lab.on_host(lambda pod=pod: lab.network.attach(pod.id, pod.path))  # type: ignore[misc]
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.02
