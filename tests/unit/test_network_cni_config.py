"""CNI configurations: which file counts, what is refused, what plugins get, how results and errors are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podrt.errors import InvalidError, UnavailableError
from podrt.network import cni_config, cni_request, cni_result
from podrt.network.types import Attachment, AttachRequest, Dns, Port
from tests.framework.cni import write

LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "a"}]}


def broken(path: Path) -> str:
    with pytest.raises(InvalidError) as caught:
        cni_config.load_file(path)
    return str(caught.value)


def test_first_valid_file_in_the_order_of_names_wins(tmp_path: Path) -> None:
    write(tmp_path, "00-note.txt", "not a configuration")
    write(tmp_path, "05-half.conflist", '{"cniVersion": "1.0.0", "name"')
    write(tmp_path, "06-nameless.conf", {"cniVersion": "0.3.1", "type": "a"})
    write(tmp_path, "10-single.conf", {"cniVersion": "0.3.1", "name": "single", "type": "a", "mtu": 9000})
    write(tmp_path, "20-list.conflist", LIST)
    (tmp_path / "07-directory.conf").mkdir()
    found = cni_config.load(tmp_path)
    assert found.network is not None
    assert (found.network.name, found.network.version) == ("single", "0.3.1")
    assert found.network.source == str(tmp_path / "10-single.conf")
    assert [problem.split(": ")[:2] for problem in found.problems] == [
        [str(tmp_path / "05-half.conflist"), "not JSON"],
        [str(tmp_path / "06-nameless.conf"), "name"],
    ]
    (tmp_path / "10-single.conf").unlink()
    assert cni_config.load(tmp_path).network == cni_config.load_file(tmp_path / "20-list.conflist")


def test_directory_that_is_missing_is_empty(tmp_path: Path) -> None:
    assert cni_config.load(tmp_path / "no") == cni_config.Found(None)


def test_a_json_file_may_hold_either_form(tmp_path: Path) -> None:
    single = write(tmp_path, "a.json", {"cniVersion": "0.4.0", "name": "n", "type": "a"})
    several = write(tmp_path, "b.json", LIST)
    assert [plugin["type"] for plugin in cni_config.load_file(single).plugins] == ["a"]
    assert cni_config.load_file(several).name == "net"


@pytest.mark.parametrize(
    ("one", "several", "expected"),
    [
        ("0.3.0", None, "0.3.0"),
        ("1.1.0", None, "1.1.0"),
        ("0.4.0", ["0.3.1", "1.0.0"], "1.0.0"),
        ("1.0.0", ["1.1.0", "9.9.9"], "1.1.0"),
        (None, ["0.3.1"], "0.3.1"),
        ("2.0.0", ["1.0.0"], "1.0.0"),
    ],
)
def test_highest_version_that_is_spoken(
    tmp_path: Path, one: str | None, several: list[str] | None, expected: str
) -> None:
    versions = {"cniVersion": one, "cniVersions": several}
    body = {"name": "n", "plugins": [{"type": "a"}]} | {key: value for key, value in versions.items() if value}
    assert cni_config.load_file(write(tmp_path, "n.conflist", body)).version == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cniVersion": "0.2.0"}, "cniVersion: must be one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0, not 0.2.0"),
        ({"cniVersion": None}, "cniVersion"),
        ({"cniVersion": 1}, "cniVersion"),
        ({"cniVersions": "1.0.0"}, "cniVersions: must be a list of strings"),
        ({"name": "../up"}, "name: must begin with a letter or digit"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"plugins": {}}, "plugins: must be a list"),
        ({"plugins": []}, "plugins: must be a list with at least one plugin"),
        ({"plugins": ["a"]}, "plugins[0]: must be an object"),
        ({"plugins": [{}]}, "plugins[0]: type: must be the name of a plugin's program"),
        ({"plugins": [{"type": "a"}, {"type": "../../bin/sh"}]}, "plugins[1]: type"),
        ({"plugins": [{"type": "/bin/sh"}]}, "plugins[0]: type"),
        ({"plugins": [{"type": ".."}]}, "plugins[0]: type"),
        ({"plugins": [{"type": "a", "ipam": {"type": "../x"}}]}, "plugins[0]: ipam.type"),
        ({"plugins": [{"type": "a", "ipam": []}]}, "plugins[0]: ipam"),
        ({"plugins": [{"type": "a", "capabilities": {"mac": "yes"}}]}, "plugins[0]: capabilities"),
        ({"disableGC": "perhaps"}, "disableGC: must be true or false"),
        ({"disableCheck": 1}, "disableCheck: must be true or false"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = write(tmp_path, "n.conflist", LIST | change)
    message = broken(path)
    assert message.startswith(str(path)) and says in message


def test_hostile_files_are_refused_and_not_fatal(tmp_path: Path) -> None:
    write(tmp_path, "1.conf", "[" * 100_000)
    write(tmp_path, "2.conf", "[]")
    write(tmp_path, "3.conf", "\x00\xff")
    write(tmp_path, "4.conf", '{"name": "' + "a" * cni_config.MAX_BYTES + '"}')
    (tmp_path / "5.conf").symlink_to("5.conf")
    (tmp_path / "6.conf").symlink_to("nothing")
    found = cni_config.load(tmp_path)
    assert found.network is None
    assert len(found.problems) == 6


def test_plugins_beside_the_list_are_appended(tmp_path: Path) -> None:
    path = write(tmp_path, "n.conflist", LIST)
    write(tmp_path / "net", "20-c.conf", {"type": "c", "key": 1})
    write(tmp_path / "net", "10-b.conf", {"type": "b"})
    write(tmp_path / "net", "30-not.conflist", {"type": "d"})
    write(tmp_path / "other", "10-e.conf", {"type": "e"})
    assert [plugin["type"] for plugin in cni_config.load_file(path).plugins] == ["a", "b", "c"]
    only = write(tmp_path, "o.conflist", LIST | {"loadOnlyInlinedPlugins": True})
    assert [plugin["type"] for plugin in cni_config.load_file(only).plugins] == ["a"]


def test_a_list_may_have_all_its_plugins_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, "n.conflist", {"cniVersion": "1.1.0", "name": "net"})
    assert f"{tmp_path / 'net'} has no *.conf" in broken(path)
    write(tmp_path / "net", "a.conf", {"type": "a"})
    assert [plugin["type"] for plugin in cni_config.load_file(path).plugins] == ["a"]
    write(tmp_path / "net", "b.conf", {"type": "b/c"})
    assert str(tmp_path / "net" / "b.conf") in broken(path)
    write(tmp_path, "n.conflist", {"cniVersion": "1.1.0", "name": "net", "loadOnlyInlinedPlugins": True})
    assert "loadOnlyInlinedPlugins is true" in broken(path)


def test_request_has_the_protocols_keys_and_passes_the_rest(tmp_path: Path) -> None:
    plugin = {
        "type": "a",
        "cniVersion": "0.3.0",
        "name": "mine",
        "capabilities": {"portMappings": True, "mac": False, "dns": True},
        "cni.dev/strange": 1,
        "prevResult": {"old": 1},
        "runtimeConfig": {"forged": True},
        "args": {"cni": {"labels": []}},
        "custom": {"deep": [1, 2.5, None]},
    }
    network = cni_config.load_file(write(tmp_path, "n.conflist", LIST | {"plugins": [plugin]}))
    capabilities = {"portMappings": [{"hostPort": 1}], "mac": "0a:00:00:00:00:01", "bandwidth": {"ingressRate": 1}}
    body = json.loads(cni_config.request(network, plugin, capabilities=capabilities, previous={"ips": []}))
    assert body == {
        "type": "a",
        "cniVersion": "1.0.0",
        "name": "net",
        "args": {"cni": {"labels": []}},
        "custom": {"deep": [1, 2.5, None]},
        "runtimeConfig": {"portMappings": [{"hostPort": 1}]},
        "prevResult": {"ips": []},
    }
    collected = json.loads(cni_config.request(network, plugin, valid=[("id", "eth0")]))
    assert collected["cni.dev/valid-attachments"] == [{"containerID": "id", "ifname": "eth0"}]
    assert "prevResult" not in collected and "runtimeConfig" not in collected


def test_arguments_and_capabilities_of_a_sandbox() -> None:
    request = AttachRequest(
        "abc",
        "/run/netns/x",
        (Port(80, 8080, "TCP", "127.0.0.1"), Port(53, 5353, "UDP"), Port(9, 0)),
        "web",
        "shop",
        "uid-1",
        {
            cni_request.INGRESS: "10M",
            cni_request.EGRESS: "1.5Mi",
            cni_request.IPS: "10.0.0.9/24, fd00::9",
            cni_request.MAC: "0A:58:00:00:00:01",
        },
        Dns(("10.0.0.10",), ("svc",), ("ndots:5",)),
        "/kubepods/pod1",
    )
    assert cni_request.arguments(request) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=uid-1"
    )
    burst = 2**31 - 1
    assert cni_request.capabilities(request) == {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
        ],
        "bandwidth": {
            "ingressRate": 10_000_000,
            "ingressBurst": burst,
            "egressRate": 1_572_864,
            "egressBurst": burst,
        },
        "dns": {"servers": ["10.0.0.10"], "searches": ["svc"], "options": ["ndots:5"]},
        "ips": ["10.0.0.9/24", "fd00::9"],
        "mac": "0a:58:00:00:00:01",
        "cgroupPath": "/kubepods/pod1",
        "io.kubernetes.cri.pod-annotations": dict(request.annotations),
    }
    assert cni_request.capabilities(AttachRequest("abc", "/run/netns/x")) == {}


@pytest.mark.parametrize(
    "request_",
    [
        AttachRequest("i", "n", annotations={cni_request.INGRESS: "fast"}),
        AttachRequest("i", "n", annotations={cni_request.EGRESS: "10"}),
        AttachRequest("i", "n", annotations={cni_request.EGRESS: "2P"}),
        AttachRequest("i", "n", annotations={cni_request.EGRESS: "-1M"}),
        AttachRequest("i", "n", annotations={cni_request.IPS: "10.0.0.300"}),
        AttachRequest("i", "n", annotations={cni_request.MAC: "0a:58"}),
    ],
)
def test_annotations_that_mean_nothing_are_refused(request_: AttachRequest) -> None:
    with pytest.raises(InvalidError, match=f"annotation {next(iter(request_.annotations))}"):
        cni_request.capabilities(request_)


def test_a_name_can_not_smuggle_arguments() -> None:
    with pytest.raises(InvalidError, match="K8S_POD_NAME"):
        cni_request.arguments(AttachRequest("i", "n", name="x;K8S_POD_UID=other"))


def result(**fields: Any) -> dict[str, Any]:
    return cni_result.parse(json.dumps({"cniVersion": "1.0.0"} | fields).encode(), "1.0.0", "plugin a")


def test_several_interfaces_and_families() -> None:
    body = result(
        interfaces=[
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "veth1", "mac": "02:00:00:00:00:02", "sandbox": ""},
            {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/x"},
            {"name": "net1", "mac": "02:00:00:00:00:04", "sandbox": "/run/netns/x"},
        ],
        ips=[
            {"address": "192.168.0.5/24", "interface": 3},
            {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 2},
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 2},
            {"address": "172.16.0.1/16", "interface": 0},
        ],
        dns={"nameservers": ["10.1.0.10"], "domain": "local", "search": ["a.local"], "options": ["ndots:2"]},
    )
    assert cni_result.attachment(body, "net") == Attachment(
        ("10.1.0.5", "fd00::5", "192.168.0.5"),
        "02:00:00:00:00:03",
        "veth1",
        ("10.1.0.1", "fd00::1"),
        Dns(("10.1.0.10",), ("a.local",), ("ndots:2",)),
    )


def test_addresses_without_an_interface_are_eth0s() -> None:
    body = result(ips=[{"address": "10.1.0.5/24"}], dns={"domain": "local", "nameservers": ["a\nb", 3]})
    connected = cni_result.attachment(body, "net")
    assert (connected.ips, connected.dns) == (("10.1.0.5",), Dns((), ("local",), ()))


def test_no_address_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="CNI network net: its plugins gave eth0 no address"):
        cni_result.attachment(result(ips=[]), "net")


def test_the_family_is_said_up_to_0_4_0_only() -> None:
    old = {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.5/24"}]}
    assert cni_result.parse(json.dumps(old).encode(), "1.0.0", "p")["ips"] == [{"address": "10.1.0.5/24"}]
    new = {"cniVersion": "1.0.0", "ips": [{"address": "fd00::5/64"}]}
    back = cni_result.parse(json.dumps(new).encode(), "0.3.1", "p")
    assert back == {"cniVersion": "0.3.1", "ips": [{"version": "6", "address": "fd00::5/64"}]}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"cniVersion": "7.0.0"}',
        b'{"ips": {}}',
        b'{"ips": [{"address": "x"}]}',
        b"[" * 9999,
    ],
)
def test_answers_that_are_no_result(answer: bytes) -> None:
    with pytest.raises(UnavailableError, match=r"^plugin a: "):
        cni_result.parse(answer, "1.0.0", "plugin a")


def test_errors_become_messages() -> None:
    error = {"code": 7, "msg": "Invalid Configuration", "details": "too small"}
    assert cni_result.failure("p", 1, json.dumps(error).encode(), b"noise") == (
        "p: Invalid Configuration: too small (code 7)"
    )
    later = cni_result.failure("p", 1, b'{"code": 11, "msg": "busy"}', b"")
    assert later == "p: busy (code 11, it asks to be tried again later)"
    assert cni_result.failure("p", 3, b"", b"trouble\n") == "p: exit code 3: trouble"
    assert cni_result.failure("p", -9, b"", b"") == "p: ended by signal 9: it said nothing"
    assert len(cni_result.failure("p", 1, b"", b"x" * 100_000)) < 3000
