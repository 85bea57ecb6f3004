"""Which sysctls a Pod may set."""

from __future__ import annotations

import pytest

from podrt.model.pod import Pod, PodSpec
from podrt.model.security import PodSecurityContext, Sysctl
from podrt.node.sysctls import refusal


@pytest.mark.parametrize(
    ("name", "allowed", "fine"),
    [
        ("kernel.shm_rmid_forced", (), True),
        ("kernel/shm_rmid_forced", (), True),
        ("net.ipv4.ip_local_port_range", (), True),
        ("net/ipv4/tcp_rmem", (), True),
        ("kernel.msgmax", (), False),
        ("kernel.msgmax", ("kernel.msg*",), True),
        ("kernel/msgmax", ("kernel.msg*",), True),
        ("kernel.msgmax", ("kernel.msgma", "kernel.msgmax2", ""), False),
        ("net.core.somaxconn", ("kernel.*", "net.core.somaxconn"), True),
        ("net.core.somaxconn", ("*",), True),
        ("net.ipv4.conf.eth0/1.forwarding", ("net.ipv4.conf.eth0/1.*",), True),
    ],
)
def test_safe_and_allowed(name: str, allowed: tuple[str, ...], fine: bool) -> None:
    pod = Pod(spec=PodSpec(security_context=PodSecurityContext(sysctls=(Sysctl(name=name, value="1"),))))
    assert (refusal(pod, allowed) == "") is fine


def test_words() -> None:
    pod = Pod(spec=PodSpec(security_context=PodSecurityContext(sysctls=(Sysctl(name="kernel.sem", value="1"),))))
    assert refusal(pod, ()) == 'forbidden sysctl: "kernel.sem" not allowlisted'
    assert refusal(Pod(), ()) == ""
