"""Resources, environment and specs as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podrt.config import Config
from podrt.engine import idranges
from podrt.engine.specs import Mount, NamespaceMode, SeccompKind
from podrt.errors import InvalidError
from podrt.model.container import (
    Container,
    ContainerPort,
    EnvVar,
    EnvVarSource,
    ObjectFieldSelector,
    ResourceFieldSelector,
    ResourceRequirements,
)
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.resources import qos_class
from podrt.model.security import Capabilities, PodSecurityContext, SecurityContext
from podrt.node import convert, resources
from podrt.node.actions import StartContainer
from podrt.node.env import environment, expand
from podrt.node.termination import read_message

GIB = 1 << 30


def container(name: str = "a", **fields: Any) -> Container:
    return Container(name=name, image="i", **fields)


def needs(limits: dict[str, str] | None = None, requests: dict[str, str] | None = None) -> ResourceRequirements:
    return ResourceRequirements(limits=limits or {}, requests=requests or {})


def pod(*containers: Container, **spec: Any) -> Pod:
    meta = ObjectMeta(name="p", namespace="ns", uid="u-1", labels={"l": "v"}, annotations={"a/b": "w"})
    return Pod(metadata=meta, spec=PodSpec(containers=containers or (container(),), node_name="n", **spec))


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("parts", "qos"),
    [
        ([needs()], "BestEffort"),
        ([needs(FULL, FULL)], "Guaranteed"),
        ([needs(FULL)], "Guaranteed"),
        ([needs(FULL, {"cpu": "1000m", "memory": "1024Mi"})], "Guaranteed"),
        ([needs(FULL, {"cpu": "500m", "memory": "1Gi"})], "Burstable"),
        ([needs({"memory": "1Gi"})], "Burstable"),
        ([needs(FULL, FULL), needs()], "Burstable"),
        ([needs(requests={"cpu": "1"})], "Burstable"),
        ([needs({"ephemeral-storage": "1Gi"})], "BestEffort"),
    ],
)
def test_qos_class(parts: list[ResourceRequirements], qos: str) -> None:
    spec = pod(*(container(f"c{index}", resources=one) for index, one in enumerate(parts))).spec
    assert qos_class(spec) == qos


@pytest.mark.parametrize(
    ("need", "score"),
    [
        (needs(), 1000),
        (needs(FULL, FULL), -997),
        (needs(requests={"memory": "1Gi"}), 750),
        (needs(requests={"cpu": "1"}), 999),
        (needs(requests={"memory": "4Gi"}), 3),
    ],
)
def test_oom_score(need: ResourceRequirements, score: int) -> None:
    one = container(resources=need)
    assert resources.oom_score_adj(pod(one).spec, one, 4 * GIB) == score


@pytest.mark.parametrize(("pod_level", "score"), [(None, 750), ("2Gi", 625), ("512Mi", 750)])
def test_oom_score_with_memory_of_the_pod(pod_level: str | None, score: int) -> None:
    """Each of two containers has half of what the Pod requests beyond them."""
    both = (container("a", resources=needs(requests={"memory": "1Gi"})), container("b"))
    level = needs(requests={"memory": pod_level}) if pod_level else None
    assert resources.oom_score_adj(pod(*both, resources=level).spec, both[0], 4 * GIB) == score


@pytest.mark.parametrize(("milli", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (10**9, 262_144)])
def test_cpu_shares(milli: int, shares: int) -> None:
    assert resources.cpu_shares(milli) == shares


@pytest.mark.parametrize(("milli", "quota"), [(0, 0), (1, 1000), (100, 10_000), (1500, 150_000)])
def test_cpu_quota(milli: int, quota: int) -> None:
    assert resources.cpu_quota(milli) == quota


def test_container_and_pod_limits() -> None:
    one = container("a", resources=needs({"cpu": "500m", "memory": "64Mi"}, {"cpu": "500m"}))
    two = container("b", resources=needs({"cpu": "1", "memory": "1Gi"}, {"cpu": "250m"}))
    limits = resources.container_resources(two, 100)
    assert (limits.cpu_shares, limits.cpu_quota, limits.memory_limit, limits.pids_limit) == (256, 100_000, GIB, 100)
    whole = resources.pod_resources(pod(one, two).spec)
    assert (whole.cpu_shares, whole.cpu_quota, whole.memory_limit) == (768, 150_000, GIB + (64 << 20))
    open_ended = resources.pod_resources(pod(one, container("c")).spec)
    assert (open_ended.cpu_quota, open_ended.memory_limit) == (0, 0)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("$(NONE)", "$(NONE)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$()", "$()"),
        ("end$", "end$"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == result


@pytest.mark.fields(
    "spec.containers[].env",
    "spec.containers[].env[].valueFrom.fieldRef",
    "spec.containers[].env[].valueFrom.resourceFieldRef",
)
def test_environment_in_order_with_the_downward_api() -> None:
    def field(name: str, path: str) -> EnvVar:
        return EnvVar(name=name, value_from=EnvVarSource(field_ref=ObjectFieldSelector(field_path=path)))

    def amount(name: str, resource: str, divisor: str | None = None) -> EnvVar:
        selector = ResourceFieldSelector(resource=resource, divisor=divisor)
        return EnvVar(name=name, value_from=EnvVarSource(resource_field_ref=selector))

    one = container(
        env=(
            EnvVar(name="LATE", value="$(FIRST)"),
            EnvVar(name="FIRST", value="1"),
            EnvVar(name="SECOND", value="$(FIRST)2"),
            field("NAME", "metadata.name"),
            field("LABEL", "metadata.labels['l']"),
            field("NOTE", "metadata.annotations['a/b']"),
            field("NODE", "spec.nodeName"),
            field("IPS", "status.podIPs"),
            field("HOST", "status.hostIP"),
            amount("MEM", "limits.memory", "1Mi"),
            amount("CPU", "requests.cpu"),
            amount("CPUM", "requests.cpu", "1m"),
            amount("DISK", "limits.ephemeral-storage"),
        ),
        resources=needs({"memory": "65Mi"}, {"cpu": "250m"}),
    )
    values = environment(
        pod(one), one, host_ips=("h4",), pod_ips=("p4", "p6"), allocatable={"ephemeral-storage": "5Ki"}
    )
    assert values == {
        "LATE": "$(FIRST)",
        "FIRST": "1",
        "SECOND": "12",
        "NAME": "p",
        "LABEL": "v",
        "NOTE": "w",
        "NODE": "n",
        "IPS": "p4,p6",
        "HOST": "h4",
        "MEM": "65",
        "CPU": "1",
        "CPUM": "250",
        "DISK": "5120",
    }


def test_an_unknown_field_is_named() -> None:
    source = EnvVarSource(field_ref=ObjectFieldSelector(field_path="spec.nope"))
    one = container(env=(EnvVar(name="X", value_from=source),))
    with pytest.raises(
        InvalidError, match=r"env\[0\]\.valueFrom\.fieldRef\.fieldPath: unknown field path 'spec\.nope'"
    ):
        environment(pod(one), one, host_ips=(), pod_ips=(), allocatable={})


def test_sandbox_spec() -> None:
    ports = (ContainerPort(container_port=80, host_port=8080), ContainerPort(container_port=81))
    one = pod(container(ports=ports), hostname="h", share_process_namespace=True, host_users=False)
    spec = convert.sandbox_spec(one, Config(), 2, "node", 5)
    assert (spec.hostname, spec.attempt, spec.pid) == ("h", 2, NamespaceMode.POD)
    assert [(port.container_port, port.host_port) for port in spec.port_mappings] == [(80, 8080)]
    assert spec.log_directory == "/var/log/pods/ns_p_u-1"
    assert idranges.taken([spec]) == {5}
    assert spec.uid_maps == spec.gid_maps
    host = convert.sandbox_spec(pod(host_network=True, host_pid=True, host_ipc=True), Config(), 0, "node", 0)
    assert (host.network, host.pid, host.ipc) == (NamespaceMode.NODE,) * 3
    assert (host.hostname, host.uid_maps) == ("node", ())


@pytest.mark.fields("spec.containers[].securityContext.runAsNonRoot")
def test_security_of_the_container_goes_before_the_pods() -> None:
    shared = PodSecurityContext(
        run_as_user=1, run_as_group=2, run_as_non_root=True, supplemental_groups=(7,), fs_group=9
    )
    own = SecurityContext(
        run_as_user=0,
        run_as_non_root=False,
        allow_privilege_escalation=False,
        capabilities=Capabilities(add=("NET_ADMIN",), drop=("ALL",)),
    )
    one = container(security_context=own)
    found = convert.security(pod(one, security_context=shared), one)
    assert (found.user, found.group, found.run_as_non_root) == ("0", "2", False)
    assert (found.supplemental_groups, found.no_new_privs) == ((7, 9), True)
    assert (found.add_capabilities, found.drop_capabilities) == (("NET_ADMIN",), ("ALL",))
    assert found.seccomp is SeccompKind.RUNTIME_DEFAULT
    plain = convert.security(pod(container(), security_context=shared), container())
    assert (plain.user, plain.run_as_non_root) == ("1", True)
    raw = container(security_context=SecurityContext(privileged=True))
    assert convert.security(pod(raw), raw).seccomp is SeccompKind.UNCONFINED


def test_container_spec_expands() -> None:
    one = container(command=("sh", "$(A)"), args=("$(B)",))
    found = [Mount(source="/y", destination="/dev/termination-log")]
    spec = convert.container_spec(
        pod(one),
        one,
        StartContainer("a", 3, 2),
        image_id="sha256:1",
        environment={"A": "1"},
        mounts=found,
        config=Config(),
        node_memory=GIB,
    )
    assert (spec.command, spec.args, spec.log_path) == (("sh", "1"), ("$(B)",), "a/3.log")
    assert (spec.attempt, spec.annotations) == (3, {"podrt.dev/back-off-level": "2", "podrt.dev/image": "i"})


def test_termination_message(tmp_path: Path) -> None:
    one = container(termination_message_policy="FallbackToLogsOnError")
    file, log = tmp_path / "message", tmp_path / "0.log"
    log.write_text("".join(f"2026-01-01T00:00:00.000000000Z stdout F line {index}\n" for index in range(200)))
    assert read_message(one, file, log, 0) == ""
    text = read_message(one, file, log, 1)
    assert text.splitlines()[-1] == "line 199"
    assert len(text.splitlines()) == 80
    assert read_message(container(), file, log, 1) == ""
    file.write_text("x" * 5000)
    assert read_message(one, file, log, 1) == "x" * 4096
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert read_message(container(), file, log, 1) == ""


@pytest.mark.parametrize(
    ("image_user", "refused"),
    [
        ("", True),
        ("root", True),
        ("0", True),
        ("000:5", True),
        ("root:www-data", True),
        ("www-data", False),
        ("7", False),
    ],
)
def test_an_image_that_runs_as_root_is_refused_before_there_is_a_container(image_user: str, refused: bool) -> None:
    careful = pod(security_context=PodSecurityContext(run_as_non_root=True))
    chosen = convert.security(careful, careful.spec.containers[0])
    if refused:
        with pytest.raises(InvalidError, match="has runAsNonRoot and image will run as root"):
            convert.refuse_root(chosen, image_user)
    else:
        convert.refuse_root(chosen, image_user)
    for other in (pod(), pod(security_context=PodSecurityContext(run_as_non_root=True, run_as_user=7))):
        convert.refuse_root(convert.security(other, other.spec.containers[0]), image_user)
