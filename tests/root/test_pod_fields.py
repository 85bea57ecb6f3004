"""Fields of the Pod that have no file of their own: names, profiles, groups, /proc, as processes see them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.framework import probes
from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, status, terminated

NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
}


def profile(name: str) -> dict[str, Any]:
    return {"seccompProfile": {"type": "Localhost", "localhostProfile": name}}


def waiting(daemon: Daemon, name: str) -> dict[str, Any]:
    """The waiting state of the container ``main``, once it has a message."""
    found = daemon.wait_for(name, lambda one: "message" in status(one)["state"].get("waiting", {}))
    state: dict[str, Any] = status(found)["state"]["waiting"]
    return state


@pytest.mark.fields(
    "spec.securityContext.seccompProfile",
    "spec.containers[].securityContext.seccompProfile",
    "spec.securityContext.seccompProfile.type",
    "spec.securityContext.seccompProfile.localhostProfile",
    "spec.containers[].securityContext.seccompProfile.type",
)
def test_a_seccomp_profile_of_the_machine(shared_daemon: Daemon) -> None:
    root = shared_daemon.config.seccomp_root
    (root / "team").mkdir(parents=True, exist_ok=True)
    (root / "team" / "no-mkdir.json").write_text(json.dumps(NO_MKDIR))
    both = (container(), container("free", securityContext={"seccompProfile": {"type": "RuntimeDefault"}}))
    shared_daemon.apply(pod("profiled", *both, securityContext=profile("team/no-mkdir.json")))
    shared_daemon.wait_for("profiled", "Running")
    script = "mkdir /tmp/d 2>&1; touch /tmp/f && ls /tmp"
    refused = shared_daemon.exec("profiled", "sh", "-c", script, container="main")
    assert "Permission denied" in refused and refused.split()[-1] == "f"
    assert shared_daemon.exec("profiled", "sh", "-c", script, container="free").split() == ["d", "f"]


@pytest.mark.fields("spec.containers[].securityContext.seccompProfile.localhostProfile")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.json", "No such file"),
        ("broken.json", "not valid JSON"),
        ("wrong.json", "'SCMP_ACT_MAYBE' is not one of"),
        ("link.json", "No such file"),
    ],
)
def test_a_seccomp_profile_that_can_not_be_used(shared_daemon: Daemon, tmp_path: Path, name: str, words: str) -> None:
    root = shared_daemon.config.seccomp_root
    root.mkdir(exist_ok=True)
    (root / "broken.json").write_text("{")
    (root / "wrong.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_MAYBE"}))
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(NO_MKDIR))
    link = root / "link.json"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    shared_daemon.apply(pod("unprofiled", container(securityContext=profile(name))))
    state = waiting(shared_daemon, "unprofiled")
    assert state["reason"] == "CreateContainerError"
    assert name in state["message"] and words in state["message"]


@pytest.mark.fields("spec.hostname", "spec.subdomain", "spec.setHostnameAsFQDN", "spec.hostnameOverride")
def test_host_names(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("full", hostname="box", subdomain="sub", setHostnameAsFQDN=True))
    shared_daemon.apply(pod("other", hostname="box", subdomain="sub", hostnameOverride="my.own.name"))
    shared_daemon.wait_for("full", "Running")
    shared_daemon.wait_for("other", "Running")
    full = "box.sub.default.svc.cluster.local"
    assert shared_daemon.exec("full", "cat", "/proc/sys/kernel/hostname", "/etc/hostname").split() == [full, full]
    assert f"{full}\tbox\n" in shared_daemon.exec("full", "cat", "/etc/hosts")
    names = shared_daemon.exec("other", "cat", "/proc/sys/kernel/hostname", "/etc/hostname").split()
    assert names == ["my.own.name", "my.own.name"]
    hosts = shared_daemon.exec("other", "cat", "/etc/hosts")
    assert "\tmy.own.name\n" in hosts and "sub.default" not in hosts


def test_a_full_host_name_that_is_too_long(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("long", hostname="b" * 40, subdomain="sub", setHostnameAsFQDN=True))

    def told() -> bool:
        items = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return any(one["reason"] == "FailedCreatePodSandBox" and "64 is the most" in one["message"] for one in items)

    shared_daemon.wait_for("long", lambda _: told())
    assert shared_daemon.pod("long")["status"]["phase"] == "Pending"


@pytest.mark.fields(
    "spec.securityContext.supplementalGroups",
    "spec.securityContext.supplementalGroupsPolicy",
    "spec.securityContext.fsGroup",
    "status.containerStatuses[].user",
)
def test_supplemental_groups_policy(shared_daemon: Daemon) -> None:
    groups = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "groups"}}
    users = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n"
    data = {"group": "root:x:0:\nann:x:1000:\nextra:x:4321:ann\n", "passwd": users}
    shared_daemon.apply(groups | {"data": data})
    mounts = [{"name": "v", "mountPath": f"/etc/{name}", "subPath": name} for name in data]
    volumes = [{"name": "v", "configMap": {"name": "groups"}}]
    seen = {}
    for policy in ("Merge", "Strict"):
        context = {"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [77], "fsGroup": 88}
        name = policy.lower()
        spec = pod(name, container(volumeMounts=mounts), volumes=volumes)
        spec["spec"]["securityContext"] = context | {"supplementalGroupsPolicy": policy}
        shared_daemon.apply(spec)
        found = shared_daemon.wait_for(name, "Running")
        seen[policy] = set(shared_daemon.exec(name, "id", "-G").split())
        told = status(found)["user"]["linux"]
        assert (told["uid"], told["gid"]) == (1000, 1000)
        assert {str(group) for group in told["supplementalGroups"]} | {"1000"} == seen[policy]
    assert seen == {"Merge": {"1000", "77", "88", "4321"}, "Strict": {"1000", "77", "88"}}


@pytest.mark.fields("spec.containers[].securityContext.procMount", "spec.hostUsers")
def test_proc_mount(shared_daemon: Daemon) -> None:
    both = (container(), container("open", securityContext={"procMount": "Unmasked"}))
    shared_daemon.apply(pod("proc", *both, hostUsers=False))
    shared_daemon.wait_for("proc", "Running")
    script = "grep -c ' /proc/' /proc/self/mounts; true"
    assert int(shared_daemon.exec("proc", "sh", "-c", script, container="main")) > 3
    assert int(shared_daemon.exec("proc", "sh", "-c", script, container="open")) == 0


@pytest.mark.fields(
    "spec.securityContext",
    "spec.containers[].securityContext",
    "spec.securityContext.runAsUser",
    "spec.securityContext.runAsGroup",
    "spec.securityContext.runAsNonRoot",
    "spec.containers[].securityContext.runAsUser",
    "spec.containers[].securityContext.runAsGroup",
)
def test_ids_of_the_first_process(shared_daemon: Daemon) -> None:
    own = container("own", securityContext={"runAsUser": 7, "runAsGroup": 8})
    shared = {"runAsUser": 5, "runAsGroup": 6, "runAsNonRoot": True}
    shared_daemon.apply(pod("ids", container(), own, securityContext=shared))
    shared_daemon.wait_for("ids", "Running")
    script = "id -u; id -g"
    assert shared_daemon.exec("ids", "sh", "-c", script, container="main").split() == ["5", "6"]
    assert shared_daemon.exec("ids", "sh", "-c", script, container="own").split() == ["7", "8"]


@pytest.mark.fields(
    "spec.containers[].securityContext.readOnlyRootFilesystem",
    "spec.containers[].securityContext.allowPrivilegeEscalation",
    "spec.containers[].securityContext.capabilities",
    "spec.containers[].securityContext.privileged",
)
def test_what_a_container_may_not_do(shared_daemon: Daemon) -> None:
    context = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }
    raw = container("raw", securityContext={"privileged": True})
    shared_daemon.apply(pod("tight", container(securityContext=context), raw))
    shared_daemon.wait_for("tight", "Running")

    def facts(name: str) -> dict[str, str]:
        text = shared_daemon.exec("tight", "cat", "/proc/self/status", container=name)
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    main, free = facts("main"), facts("raw")
    assert (int(main["CapBnd"], 16), main["NoNewPrivs"], main["Seccomp"]) == (1 << 10, "1", "2")
    assert int(free["CapEff"], 16) & 1 << 21 and (free["NoNewPrivs"], free["Seccomp"]) == ("0", "0")
    assert shared_daemon.exec("tight", "sh", "-c", "touch /x 2>&1; true", container="main").endswith(
        "Read-only file system\n"
    )


@pytest.mark.fields("spec.securityContext.sysctls")
def test_sysctls(shared_daemon: Daemon) -> None:
    values = [
        {"name": "net.ipv4.ip_local_port_range", "value": "40000 41000"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]
    shared_daemon.apply(pod("set", securityContext={"sysctls": values}))
    shared_daemon.wait_for("set", "Running")
    text = shared_daemon.exec(
        "set", "cat", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/kernel/shm_rmid_forced"
    )
    assert text.split() == ["40000", "41000", "1"]
    here = Path("/proc/sys")
    assert (here / "net/ipv4/ip_local_port_range").read_text().split() != ["40000", "41000"]
    assert (here / "kernel/shm_rmid_forced").read_text() == "0\n"


@pytest.mark.fields(
    "spec.containers[].command", "spec.containers[].args", "spec.containers[].workingDir", "spec.runtimeClassName"
)
def test_where_it_starts_and_what_it_is_given(shared_daemon: Daemon) -> None:
    main = container(
        command=["sh", "-c", 'pwd; echo "$0 $*"; sleep 1000'], args=["zero", "$(NOT) $$(X)"], workingDir="/etc"
    )
    shared_daemon.apply(pod("started", main, runtimeClassName="podrt"))
    shared_daemon.wait_for("started", "Running")
    assert shared_daemon.logs("started").splitlines() == ["/etc", "zero $(NOT) $(X)"]


@pytest.mark.fields("spec.containers[].stdin", "spec.containers[].stdinOnce")
def test_stdin_is_closed_after_the_first_session(shared_daemon: Daemon) -> None:
    once = container("once", "cat; echo over", stdin=True, stdinOnce=True)
    none = container("none", "cat; echo none; sleep 1000")
    shared_daemon.apply(pod("fed", once, none, restartPolicy="Never"))
    shared_daemon.wait_for("fed", "Running")
    found = shared_daemon.cli("attach", "fed", "-c", "once", "-i", input="hello\n", check=False, timeout=20)
    assert "hello" in found.stdout and "over" in found.stdout
    assert shared_daemon.logs("fed", "none") == "none\n"


@pytest.mark.fields(
    "spec.securityContext.seLinuxOptions",
    "spec.containers[].securityContext.seLinuxOptions",
)
@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this kernel has SELinux")
def test_what_the_kernel_does_not_have(shared_daemon: Daemon) -> None:
    context, words = {"seLinuxOptions": {"level": "s0:c1,c2"}}, "kernel has no SELinux"
    for spec in (pod("odd", securityContext=context), pod("odd", container(securityContext=context))):
        with pytest.raises(ApiError) as caught:
            shared_daemon.api("POST", "/api/v1/namespaces/default/pods", spec)
        assert caught.value.code == 422
        (field,) = context
        text = json.dumps(caught.value.status)
        assert f"securityContext.{field}" in text and words in text


@pytest.mark.fields("spec.securityContext.windowsOptions", "spec.containers[].securityContext.windowsOptions")
def test_windows_options_change_nothing(shared_daemon: Daemon) -> None:
    context = {"windowsOptions": {"runAsUserName": "ContainerAdministrator"}}
    shared_daemon.apply(pod("ported", container(securityContext={**context, "runAsUser": 7}), securityContext=context))
    shared_daemon.wait_for("ported", "Running")
    assert shared_daemon.exec("ported", "id", "-u") == "7\n"


@pytest.mark.fields("spec.runtimeClassName")
def test_the_runtime_class_of_user_namespaces(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("mapped", runtimeClassName="podrt-userns"))
    found = shared_daemon.wait_for("mapped", "Running")
    assert found["spec"]["hostUsers"] is False
    inside, outside, _ = shared_daemon.exec("mapped", "cat", "/proc/self/uid_map").split()
    assert inside == "0" and int(outside) >= 1 << 30


def test_a_handler_that_this_node_has_not(shared_daemon: Daemon) -> None:
    api = "/apis/node.k8s.io/v1/runtimeclasses"
    shared_daemon.api("POST", api, {"metadata": {"name": "kata"}, "handler": "kata-fc"})
    shared_daemon.apply(pod("elsewhere", runtimeClassName="kata"))

    def told(daemon: Daemon) -> list[str]:
        items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return [event["message"] for event in items if event["reason"] == "FailedCreatePodSandBox"]

    eventually(lambda: any('no runtime for "kata-fc" is configured' in text for text in told(shared_daemon)))
    assert shared_daemon.pod("elsewhere")["status"]["phase"] == "Pending"


@pytest.mark.fields("spec.hostPID", "spec.hostIPC")
def test_namespaces_of_the_host(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("host", hostPID=True, hostIPC=True))
    shared_daemon.apply(pod("own"))
    kinds = ("pid", "ipc")
    seen = {}
    for name in ("host", "own"):
        shared_daemon.wait_for(name, "Running")
        seen[name] = [shared_daemon.exec(name, "readlink", f"/proc/self/ns/{kind}").strip() for kind in kinds]
    here = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert seen["host"] == here
    assert not set(seen["own"]) & set(here)


@pytest.mark.fields("spec.nodeName")
def test_a_pod_that_names_its_node(shared_daemon: Daemon) -> None:
    node = shared_daemon.config.node_name
    shared_daemon.apply(pod("elsewhere", nodeName="another"))
    shared_daemon.apply(pod("placed", nodeName=node, nodeSelector={"nowhere": "x"}))
    shared_daemon.apply(pod("searching", nodeSelector={"nowhere": "x"}))
    shared_daemon.apply(pod("here", nodeName=node))
    shared_daemon.wait_for("here", "Running")
    assert shared_daemon.pod("elsewhere")["status"]["phase"] == "Pending"
    assert "nodeName" not in shared_daemon.pod("searching")["spec"]
    shared_daemon.delete("elsewhere", grace=0)


@pytest.mark.fields(
    "status.observedGeneration",
    "status.phase",
    "status.conditions",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "status.startTime",
    "status.containerStatuses",
    "status.qosClass",
    "status.containerStatuses[].name",
    "status.containerStatuses[].state",
    "status.containerStatuses[].lastState",
    "status.containerStatuses[].ready",
    "status.containerStatuses[].restartCount",
    "status.containerStatuses[].image",
    "status.containerStatuses[].imageID",
    "status.containerStatuses[].containerID",
    "status.containerStatuses[].started",
    "status.containerStatuses[].resources",
    "status.containerStatuses[].volumeMounts",
    "status.containerStatuses[].user",
)
def test_what_the_status_says(shared_daemon: Daemon) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/ro", "readOnly": True}]
    resources = {"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}
    main = container(volumeMounts=mounts, resources=resources, securityContext={"runAsUser": 1, "runAsGroup": 2})
    shared_daemon.apply(pod("told", main, volumes=volumes))
    told = shared_daemon.wait_for("told", "Ready")["status"]
    assert (told["phase"], told["observedGeneration"], told["qosClass"]) == ("Running", 1, "Burstable")
    conditions = {one["type"]: one["status"] for one in told["conditions"]}
    expected = {"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"}
    assert conditions == dict.fromkeys(expected, "True")
    assert told["podIP"] == told["podIPs"][0]["ip"] and told["hostIP"] == told["hostIPs"][0]["ip"]
    assert told["podIP"] != told["hostIP"]
    (one,) = told["containerStatuses"]
    running = one["state"]["running"]["startedAt"]
    assert told["startTime"] <= running
    assert (one["name"], one["ready"], one["started"], one["restartCount"], one["lastState"]) == (
        "main",
        True,
        True,
        0,
        {},
    )
    assert one["image"].startswith("localhost/podrt/busybox") and one["imageID"]
    assert one["containerID"].startswith("podrt://")
    assert one["resources"] == resources
    assert (one["user"]["linux"]["uid"], one["user"]["linux"]["gid"]) == (1, 2)
    assert one["volumeMounts"] == [
        {"name": "v", "mountPath": "/v"},
        {"name": "v", "mountPath": "/ro", "readOnly": True, "recursiveReadOnly": "Disabled"},
    ]


@pytest.mark.fields("spec.resources", "status.resources", "status.allocatedResources")
def test_resources_of_the_pod_itself(shared_daemon: Daemon) -> None:
    """Its containers have no limits; together they have the Pod's."""
    both = (container("hog", "x=a; while :; do x=$x$x; done"), container("other"))
    level = {"limits": {"cpu": "200m", "memory": "48Mi"}, "requests": {"cpu": "200m", "memory": "48Mi"}}
    shared_daemon.apply(pod("level", *both, resources=level, restartPolicy="Never"))
    found = shared_daemon.wait_for("level", lambda one: terminated(one, "hog"))
    assert terminated(found, "hog")["reason"] == "OOMKilled"
    assert "running" in status(found, "other")["state"]
    told = found["status"]
    assert (told["qosClass"], told["resources"], told["allocatedResources"]) == ("Guaranteed", level, level["requests"])
    controller = "cpu" if "cpu" in probes.cgroup_mounts() else ""
    (group,) = (one for one in shared_daemon.cgroups(controller) if one.endswith(f"pod{found['metadata']['uid']}"))
    if controller:
        assert Path(group, "cpu.cfs_quota_us").read_text() == "20000\n"
    else:
        assert Path(group, "cpu.max").read_text() == "20000 100000\n"
