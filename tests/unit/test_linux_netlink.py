"""Messages, decoded again."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pyroute2")
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from podrt.linux import netlink


@pytest.mark.parametrize("name", ["pr0123456789ab", "x", "fifteen-letters"])
def test_a_veth_pair(name: str) -> None:
    request = netlink.new_veth(name, 513, 9000, "eth0", "0a:58:0a:56:01:02", 260)
    again = netlink.new_veth("y" * len(name), 1, 9000, "eth0", "0a:58:0a:56:ff:ff", 3)
    assert request.data != again.data
    message: Any = ifinfmsg(request.data)
    message.decode()
    assert message["header"]["length"] == len(request.data)
    assert message.get_attr("IFLA_IFNAME") == name
    assert message.get_attr("IFLA_MASTER") == 513
    assert message.get_attr("IFLA_MTU") == 9000
    assert message["flags"] == 1
    peer = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "0a:58:0a:56:01:02"
    assert peer.get_attr("IFLA_NET_NS_FD") == 260
    assert peer.get_attr("IFLA_MTU") == 9000


def test_links_of_this_machine() -> None:
    found = {link.name: link for link in netlink.links()}
    assert found["lo"].number == netlink.index_of("lo")
    assert netlink.index_of("no-such-link") == 0


def test_errors_say_what_was_asked_for() -> None:
    with pytest.raises(OSError, match="removing the link no-such-link"):
        netlink.send([netlink.del_link("no-such-link")])
