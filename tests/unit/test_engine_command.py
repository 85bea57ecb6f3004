"""Command lines, environments, users, limits, sysctls and signals: tables."""

from __future__ import annotations

import signal

import pytest

from podrt.engine import command, signals
from podrt.engine.specs import ContainerSpec, Security
from podrt.errors import InvalidError
from podrt.image.types import ImageConfig


def spec(**fields: object) -> ContainerSpec:
    return ContainerSpec(**({"name": "c", "image": "i"} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given", "args", "wanted"),
    [
        (("e",), ("c",), (), (), ("e", "c")),
        (("e",), ("c",), (), ("a",), ("e", "a")),
        (("e",), ("c",), ("x",), (), ("x",)),
        (("e",), ("c",), ("x",), ("a", "b"), ("x", "a", "b")),
        ((), ("c", "d"), (), (), ("c", "d")),
        ((), (), (), ("a",), ("a",)),
    ],
)
def test_argv(
    entrypoint: tuple[str, ...],
    cmd: tuple[str, ...],
    given: tuple[str, ...],
    args: tuple[str, ...],
    wanted: tuple[str, ...],
) -> None:
    image = ImageConfig(entrypoint=entrypoint, cmd=cmd)
    assert command.resolve(spec(command=given, args=args), image, "h").argv == wanted


def test_no_command_names_the_container() -> None:
    with pytest.raises(InvalidError, match="container c: neither the spec nor the image i") as caught:
        command.resolve(spec(), ImageConfig(), "h")
    assert caught.value.causes[0].field == "command"


def test_environment_precedence() -> None:
    image = ("PATH=/image", "A=image", "B=image=2", "=bad")
    env = command.environment((("B", "spec"), ("C", "1"), ("C", "2"), ("E", "")), image, hostname="h", tty=True)
    assert env == ("PATH=/image", "HOSTNAME=h", "TERM=xterm", "A=image", "B=spec", "C=2", "E=")


def test_environment_defaults() -> None:
    assert command.environment((), ()) == (f"PATH={command.DEFAULT_PATH}",)
    assert command.environment((("PATH", ""),), ()) == (f"PATH={command.DEFAULT_PATH}",)
    assert "HOSTNAME=mine" in command.environment((), ("HOSTNAME=mine",), hostname="h")


@pytest.mark.parametrize(
    ("user", "group", "image", "wanted"),
    [
        ("", "", "", "0"),
        ("", "", "www:www", "www:www"),
        ("1000", "", "www:www", "1000"),
        ("1000", "2000", "www", "1000:2000"),
        ("", "2000", "www:www", "www:2000"),
        ("", "2000", ":5", "0:2000"),
    ],
)
def test_user(user: str, group: str, image: str, wanted: str) -> None:
    assert command.user(user, group, image) == wanted


def test_resolved_rest() -> None:
    image = ImageConfig(cmd=("x",), working_dir="srv", stop_signal="SIGQUIT", user="7")
    resolved = command.resolve(spec(security=Security(group="9")), image, "h")
    assert (resolved.cwd, resolved.stop_signal, resolved.user) == ("/srv", "SIGQUIT", "7:9")
    assert command.resolve(spec(stop_signal="INT", working_dir="/w"), image, "h").stop_signal == "INT"
    with pytest.raises(InvalidError, match="absolute"):
        command.resolve(spec(working_dir="w"), image, "h")
    with pytest.raises(InvalidError, match="SIGNOPE"):
        command.resolve(spec(stop_signal="SIGNOPE"), image, "h")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        (" SIGUSR1 ", 10),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
        ("rtmax", signal.SIGRTMAX),
        ("64", 64),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIG", "0", "65", "-1", "SIGNAL", "SIG_IGN", "RTMIN-1", "RTMAX+1", "RTMIN+99", "TERM;", "1.5", "²"]
)
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a signal"):
        signals.parse(text)


def test_rlimits() -> None:
    limits = {"RLIMIT_NOFILE": (1, 2), "core": (0, -1), "nproc": (-1, -1)}
    assert command.rlimits(limits) == (("NOFILE", 1, 2), ("CORE", 0, -1), ("NPROC", -1, -1))
    for bad in ({"FILES": (1, 1)}, {"core": (3, 2)}, {"core": (-1, 2)}):
        with pytest.raises(InvalidError):
            command.rlimits(bad)


def test_sysctls() -> None:
    values = {"net.ipv4.tcp_syncookies": "0", "kernel/msgmax": "8192", "net.ipv4.conf.eth0/1.forwarding": "1"}
    assert command.sysctls(values, own_net=True, own_ipc=True, user_namespace=True) == (
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/tcp_syncookies", "0"),
        ("kernel/msgmax", "8192"),
        ("net/ipv4/conf/eth0.1/forwarding", "1"),
    )
    assert command.sysctls({}, own_net=False, own_ipc=True, user_namespace=False) == ()


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "kernel.hostname",
        "vm.swappiness",
        "net",
        "net/../kernel/core_pattern",
        "net.ipv4.conf...x",
        "kernel.shm_rmid_forced+kernel.core_pattern=|/evil",
        "",
        "net.ipv4.ip_forward\n",
    ],
)
def test_sysctls_that_would_reach_the_host(name: str) -> None:
    """CVE-2022-0811: no value or name leads to another key."""
    with pytest.raises(InvalidError):
        command.sysctls({name: "1"}, own_net=True, own_ipc=True, user_namespace=False)


def test_sysctls_of_the_hosts_namespaces() -> None:
    with pytest.raises(InvalidError, match="host's network"):
        command.sysctls({"net.core.somaxconn": "1"}, own_net=False, own_ipc=True, user_namespace=False)
    with pytest.raises(InvalidError, match="host's IPC"):
        command.sysctls({"kernel.msgmax": "1"}, own_net=True, own_ipc=False, user_namespace=False)
    with pytest.raises(InvalidError, match="control"):
        command.sysctls({"kernel.msgmax": "1\n2"}, own_net=True, own_ipc=True, user_namespace=False)
