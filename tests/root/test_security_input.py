"""Strings that no system call takes, in each field that reaches one: the Pod fails or is refused, nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod

STRINGS = {"nul": "\0", "nul inside": "a\0b", "surrogate": "\ud800", "newline": "a\nb", "long": "x" * 70000}


def bodies(text: str) -> dict[str, dict[str, Any]]:
    data = {"name": "data", "mountPath": "/data"}
    empty = {"name": "data", "emptyDir": {}}

    def one(main: dict[str, Any], **spec: Any) -> dict[str, Any]:
        return pod("odd", container("main", **main), restartPolicy="Never", **spec)

    return {
        "command": one({"command": ["/bin/true", text]}),
        "executable": one({"command": [f"/bin/{text}"]}),
        "args": one({"args": [text]}),
        "env": one({"env": [{"name": "A", "value": text}]}),
        "env name": one({"env": [{"name": f"A{text}", "value": "1"}]}),
        "workingDir": one({"workingDir": f"/tmp/{text}"}),
        "hostPath": one(
            {"volumeMounts": [data]},
            volumes=[{"name": "data", "hostPath": {"path": f"/var/tmp/no/{text}", "type": "Directory"}}],
        ),
        "untyped hostPath": one(
            {"volumeMounts": [data]}, volumes=[{"name": "data", "hostPath": {"path": f"/proc/no/{text}"}}]
        ),
        "mountPath": one({"volumeMounts": [data | {"mountPath": f"/data/{text}"}]}, volumes=[empty]),
        "terminationMessagePath": one({"terminationMessagePath": f"/dev/{text}"}),
        "image": one({"image": f"localhost/{text}"}),
        "hostname": one({}, hostname=f"h{text}"),
        "sysctl": one({}, securityContext={"sysctls": [{"name": "net.ipv4.ip_forward", "value": text}]}),
        "seccomp": one({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": f"p/{text}"}}}),
        "dns": one({}, dnsConfig={"searches": [f"a{text}"], "options": [{"name": text}]}),
        "hostAliases": one({}, hostAliases=[{"ip": "10.0.0.1", "hostnames": [f"h{text}"]}]),
        "label": pod("odd", container("main", "true")) | {"metadata": {"name": "odd", "annotations": {"a": text}}},
    }


@pytest.mark.parametrize("kind", list(STRINGS))
def test_odd_strings(shared_daemon: Daemon, kind: str) -> None:
    pid = shared_daemon.pid
    accepted = []
    for field, body in bodies(STRINGS[kind]).items():
        try:
            shared_daemon.api("POST", "/api/v1/namespaces/default/pods", body)
        except ApiError as error:
            assert 400 <= error.code < 500, f"{field}: {error}"
            continue
        accepted.append(field)
        # Either it ends, or what is wrong is told; nobody waits for it in silence.
        eventually(lambda: told(shared_daemon), 20, what=f"an outcome of {field}")
        assert shared_daemon.pid == pid and shared_daemon.ready(), field
        shared_daemon.delete("odd", grace=0)
        json.dumps(shared_daemon.api("GET", "/api/v1/events"))
    shared_daemon.apply(pod("sane"))
    shared_daemon.wait_for("sane", "Running")
    assert shared_daemon.pid == pid, accepted


def told(daemon: Daemon) -> bool:
    status = daemon.pod("odd")["status"]
    states = [one["state"] for one in status.get("containerStatuses", ())]
    waiting = [state["waiting"].get("reason") for state in states if "waiting" in state]
    if status["phase"] in ("Succeeded", "Failed") or (states and not waiting):
        return True
    if any(reason not in (None, "ContainerCreating", "PodInitializing") for reason in waiting):
        return True
    events = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return any(one["type"] == "Warning" and one["involvedObject"]["name"] == "odd" for one in events)
