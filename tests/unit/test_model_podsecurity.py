"""The Pod Security Standards as a table: one field each that breaks a level, and Pods that keep to it."""

from __future__ import annotations

from typing import Any

import pytest

from podrt.model.container import Container, ContainerPort, HTTPGetAction, Probe
from podrt.model.pod import PodSpec
from podrt.model.podsecurity import Level, level, refusal, violations
from podrt.model.security import (
    AppArmorProfile,
    Capabilities,
    PodSecurityContext,
    SeccompProfile,
    SecurityContext,
    SELinuxOptions,
    Sysctl,
)
from podrt.model.volume import EmptyDirVolumeSource, HostPathVolumeSource, NFSVolumeSource, Volume

LOCKED = SecurityContext(
    allow_privilege_escalation=False,
    run_as_non_root=True,
    capabilities=Capabilities(drop=("ALL",)),
    seccomp_profile=SeccompProfile(type="RuntimeDefault"),
)


def spec(security: SecurityContext | None = None, pod: PodSecurityContext | None = None, **fields: Any) -> PodSpec:
    container = {key: fields.pop(key) for key in ("ports", "liveness_probe") if key in fields}
    return PodSpec(
        containers=(Container(name="a", image="i", security_context=security, **container),),
        security_context=pod,
        **fields,
    )


UNCONFINED = SeccompProfile(type="Unconfined")

BREAKS_BASELINE: dict[str, tuple[PodSpec, str]] = {
    "host network": (spec(host_network=True, host_pid=True), "host namespaces (hostNetwork=true, hostPID=true)"),
    "privileged": (spec(SecurityContext(privileged=True)), 'privileged (container "a" must not set'),
    "capability": (
        spec(SecurityContext(capabilities=Capabilities(add=("NET_ADMIN", "CHOWN")))),
        'non-default capabilities (container "a" must not include "NET_ADMIN" in',
    ),
    "host path": (
        spec(volumes=(Volume(name="v", host_path=HostPathVolumeSource(path="/")),)),
        'hostPath volumes (volume "v")',
    ),
    "host port": (spec(ports=(ContainerPort(container_port=1, host_port=2),)), "hostPort ("),
    "probe host": (spec(liveness_probe=Probe(http_get=HTTPGetAction(port=1, host="h"))), "probe or lifecycle host ("),
    "seccomp": (spec(SecurityContext(seccomp_profile=UNCONFINED)), "seccompProfile ("),
    "seccomp of the pod": (spec(pod=PodSecurityContext(seccomp_profile=UNCONFINED)), "seccompProfile (pod must"),
    "apparmor": (spec(SecurityContext(app_armor_profile=AppArmorProfile(type="Unconfined"))), "appArmorProfile ("),
    "selinux": (spec(SecurityContext(se_linux_options=SELinuxOptions(type="spc_t"))), "seLinuxOptions ("),
    "proc mount": (spec(SecurityContext(proc_mount="Unmasked")), "procMount ("),
    "sysctl": (
        spec(pod=PodSecurityContext(sysctls=(Sysctl(name="kernel.msgmax", value="1"),))),
        "forbidden sysctls (kernel.msgmax)",
    ),
}

KEEPS_BASELINE: dict[str, PodSpec] = {
    "plain": spec(),
    "default capability": spec(SecurityContext(capabilities=Capabilities(add=("CHOWN", "NET_BIND_SERVICE")))),
    "safe sysctl": spec(pod=PodSecurityContext(sysctls=(Sysctl(name="net.ipv4.tcp_syncookies", value="1"),))),
    "selinux type": spec(SecurityContext(se_linux_options=SELinuxOptions(type="container_t", level="s0"))),
    "proc mount in a user namespace": spec(SecurityContext(proc_mount="Unmasked"), host_users=False),
}


def changed(**fields: Any) -> SecurityContext:
    import msgspec

    return msgspec.structs.replace(LOCKED, **fields)


BREAKS_RESTRICTED: dict[str, tuple[PodSpec, str]] = {
    "escalation": (spec(changed(allow_privilege_escalation=None)), "allowPrivilegeEscalation != false"),
    "root": (spec(changed(run_as_non_root=None)), "runAsNonRoot != true"),
    "root though the pod says not": (
        spec(changed(run_as_non_root=False), PodSecurityContext(run_as_non_root=True)),
        "runAsNonRoot != true",
    ),
    "uid 0": (spec(changed(run_as_user=0)), 'runAsUser=0 (container "a" must not set runAsUser=0)'),
    "no seccomp": (spec(changed(seccomp_profile=None)), 'seccompProfile (pod or container "a" must set'),
    "keeps capabilities": (spec(changed(capabilities=None)), 'must set securityContext.capabilities.drop=["ALL"]'),
    "adds a default capability": (
        spec(changed(capabilities=Capabilities(drop=("ALL",), add=("CHOWN",)))),
        'must not include "CHOWN" in securityContext.capabilities.add',
    ),
    "volume": (
        spec(LOCKED, volumes=(Volume(name="v", nfs=NFSVolumeSource(server="s", path="/")),)),
        'restricted volume types (volume "v" use a forbidden volume type)',
    ),
}

KEEPS_RESTRICTED: dict[str, PodSpec] = {
    "locked": spec(LOCKED),
    "by the pod": spec(
        changed(run_as_non_root=None, seccomp_profile=None),
        PodSecurityContext(run_as_non_root=True, seccomp_profile=SeccompProfile(type="RuntimeDefault")),
    ),
    "ports": spec(changed(capabilities=Capabilities(drop=("ALL",), add=("NET_BIND_SERVICE",)))),
    "scratch space": spec(LOCKED, volumes=(Volume(name="v", empty_dir=EmptyDirVolumeSource()),)),
}


@pytest.mark.parametrize("name", BREAKS_BASELINE)
def test_breaks_baseline(name: str) -> None:
    pod, text = BREAKS_BASELINE[name]
    found = violations(pod, "baseline")
    assert len(found) == 1 and found[0].startswith(text), found
    assert any(one.startswith(text) for one in violations(pod, "restricted")) or name == "capability"
    assert violations(pod, "privileged") == []


@pytest.mark.parametrize("name", KEEPS_BASELINE)
def test_keeps_baseline(name: str) -> None:
    assert violations(KEEPS_BASELINE[name], "baseline") == []


@pytest.mark.parametrize("name", BREAKS_RESTRICTED)
def test_breaks_restricted(name: str) -> None:
    pod, text = BREAKS_RESTRICTED[name]
    found = violations(pod, "restricted")
    assert len(found) == 1 and text in found[0], found
    assert violations(pod, "baseline") == []


@pytest.mark.parametrize("name", KEEPS_RESTRICTED)
def test_keeps_restricted(name: str) -> None:
    assert violations(KEEPS_RESTRICTED[name], "restricted") == []


def test_levels_of_a_namespace() -> None:
    labels = {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "v1.30",
        "pod-security.kubernetes.io/audit": "basline",
    }
    assert level(labels, "enforce") == Level("baseline")
    assert str(level(labels, "warn")) == "restricted:v1.30"
    assert level(labels, "audit").name == "restricted"
    assert level({}, "enforce").name == "privileged"


def test_the_words_of_a_refusal() -> None:
    text = refusal(spec(), Level("restricted"))
    assert text.startswith('violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "a"')
    assert refusal(spec(), Level("baseline")) == ""
