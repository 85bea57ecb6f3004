"""Workloads on a real daemon: rollouts within their bounds, Jobs, StatefulSets, and kill -9 in the middle of each."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.framework.client import Object, path_of
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import BUSYBOX, HELLO_JOB, container, restarts, status


def active_pods(pods: Iterable[Object]) -> list[Object]:
    """Those that neither ended nor are about to."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def host_pid(daemon: Daemon, name: str, container_name: str) -> int:
    """The container's main process as the host sees it, from the engine's record."""
    ident = status(daemon.pod(name), container_name)["containerID"].removeprefix("podrt://")
    record = json.loads((daemon.config.run_dir / "containers" / ident / "state.json").read_bytes())
    return int(record["record"]["process"]["pid"])


def workload(kind: str, name: str, *, script: str = "", **spec: Any) -> Object:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(script=script)]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def get(daemon: Daemon, kind: str, name: str) -> Object:
    found: Object = daemon.api("GET", path_of(kind, name))
    return found


def merge(daemon: Daemon, kind: str, name: str, change: Any) -> None:
    daemon.api("PATCH", path_of(kind, name), change, content_type="application/strategic-merge-patch+json")


def retouch(daemon: Daemon, kind: str, name: str, text: str, image: str = BUSYBOX) -> None:
    """Another template: an environment variable that names it, and perhaps another image."""
    main = {"name": "main", "image": image, "env": [{"name": "VERSION", "value": text}]}
    merge(daemon, kind, name, {"spec": {"template": {"spec": {"containers": [main]}}}})


def version(pod: Object) -> str:
    return next((e["value"] for e in pod["spec"]["containers"][0].get("env", ()) if e["name"] == "VERSION"), "")


def done(daemon: Daemon, kind: str, name: str, replicas: int) -> bool:
    found = get(daemon, kind, name)
    seen = found["status"]
    return bool(
        seen.get("observedGeneration") == found["metadata"]["generation"]
        and seen.get("replicas", 0) == seen.get("updatedReplicas", 0) == replicas
        and seen.get("availableReplicas", 0) == replicas
    )


class Watcher:
    """Follows all Pods by a watch, and keeps the extremes of what it saw at any moment."""

    def __init__(self, daemon: Daemon) -> None:
        self.most = 0
        self.least = 1 << 30
        self._pods: dict[str, Object] = {}
        self._daemon = daemon
        self._stop = False
        listing = daemon.api("GET", "/api/v1/pods")
        for pod in listing["items"]:
            self._pods[pod["metadata"]["uid"]] = pod
        self._revision = listing["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        path = f"/api/v1/pods?resourceVersion={self._revision}&timeoutSeconds=120"
        for event in self._daemon.client.watch(path, timeout=120):
            pod = event["object"]
            if event["type"] == "DELETED":
                self._pods.pop(pod["metadata"]["uid"], None)
            else:
                self._pods[pod["metadata"]["uid"]] = pod
            active = active_pods(self._pods.values())
            self.most = max(self.most, len(active))
            self.least = min(self.least, sum(map(is_ready, active)))
            if self._stop:
                return


def test_hello_runs_restarts_and_is_made_anew(shared_daemon: Daemon) -> None:
    shared_daemon.cli("image", "tag", BUSYBOX, "busybox:1.28")
    shared_daemon.cli("apply", "-f", "-", input=HELLO_JOB)

    def one() -> Object | None:
        found = active_pods(shared_daemon.pods())
        return found[0] if len(found) == 1 and is_ready(found[0]) else None

    first = eventually(one, 30, "the Pod of hello runs")
    name = first["metadata"]["name"]
    assert eventually(lambda: shared_daemon.logs(name)) == "Hello, Kubernetes!\n"
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Job"
    os.kill(host_pid(shared_daemon, name, "hello"), signal.SIGKILL)
    eventually(lambda: restarts(shared_daemon.pod(name), "hello") == 1 or None, 30, "OnFailure restarts it")
    shared_daemon.delete(name, grace=1)
    second = eventually(one, 30, "the Job makes another")
    assert second["metadata"]["name"] != name
    output = shared_daemon.cli("get", "jobs").stdout.split()
    assert output[:6] == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "hello"] and output[7] == "0/1"


def test_a_rollout_of_ten_keeps_its_bounds(shared_daemon: Daemon) -> None:
    shared_daemon.apply(workload("Deployment", "ten", replicas=10))
    eventually(lambda: done(shared_daemon, "Deployment", "ten", 10), 60, "ten replicas are available")
    first = {pod["metadata"]["uid"] for pod in shared_daemon.pods()}
    watcher = Watcher(shared_daemon)
    retouch(shared_daemon, "Deployment", "ten", "two")
    eventually(lambda: done(shared_daemon, "Deployment", "ten", 10), 90, "the rollout ends")
    assert watcher.most <= 13 and watcher.least >= 8
    active = active_pods(shared_daemon.pods())
    assert {version(pod) for pod in active} == {"two"}
    assert not first & {pod["metadata"]["uid"] for pod in active}
    # A broken image stops the rollout; the old Pods serve.
    retouch(shared_daemon, "Deployment", "ten", "three", "localhost/podrt/missing:1")
    eventually(lambda: len(active_pods(shared_daemon.pods())) == 13, 60, "the rollout stands at its bounds")
    time.sleep(1)
    serving = [pod for pod in active_pods(shared_daemon.pods()) if is_ready(pod)]
    assert len(serving) == 8 and {version(pod) for pod in serving} == {"two"}
    sets = shared_daemon.api("GET", path_of("ReplicaSet", ""))["items"]
    old = next(one for one in sets if version({"spec": one["spec"]["template"]["spec"]}) == "two")
    template = old["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    undo = [{"op": "replace", "path": "/spec/template", "value": template}]
    shared_daemon.api("PATCH", path_of("Deployment", "ten"), undo, content_type="application/json-patch+json")
    eventually(lambda: done(shared_daemon, "Deployment", "ten", 10), 60, "the undo ends")
    assert watcher.most <= 13 and watcher.least >= 8


def test_lost_pods_are_replaced(shared_daemon: Daemon) -> None:
    shared_daemon.apply(workload("ReplicaSet", "rs", replicas=2))
    shared_daemon.apply(workload("DaemonSet", "ds"))
    shared_daemon.apply(workload("StatefulSet", "st", serviceName="st", replicas=2))

    def whole() -> dict[str, str] | None:
        found = [pod for pod in active_pods(shared_daemon.pods()) if is_ready(pod)]
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found} if len(found) == 5 else None

    before = eventually(whole, 60, "five Pods are ready")
    assert {"st-0", "st-1"} <= before.keys() and sum(name.startswith("ds-") for name in before) == 1
    for name in before:
        shared_daemon.delete(name, grace=0, wait=False)

    def anew() -> dict[str, str] | None:
        found = whole()
        return found if found and not set(found.values()) & set(before.values()) else None

    after = eventually(anew, 60, "each is replaced")
    assert {"st-0", "st-1"} <= after.keys() and sum(name.startswith("ds-") for name in after) == 1
    listed = shared_daemon.cli("get", "daemonset", "ds").stdout.split("\n")[1].split()
    assert listed[:6] == ["ds", "1", "1", "1", "1", "1"]


def crash(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()


def test_killed_in_the_middle_of_a_rollout_and_a_scale_down(daemon: Daemon) -> None:
    daemon.apply(workload("Deployment", "web", replicas=6))
    eventually(lambda: done(daemon, "Deployment", "web", 6), 60)
    for turn in range(3):
        retouch(daemon, "Deployment", "web", f"v{turn}")
        time.sleep(0.05 + 0.25 * turn)
        crash(daemon)
        eventually(lambda: done(daemon, "Deployment", "web", 6), 60, f"rollout {turn} ends after the crash")
        active = active_pods(daemon.pods())
        assert [version(pod) for pod in active] == [f"v{turn}"] * 6
    kept = {pod["metadata"]["uid"] for pod in active_pods(daemon.pods())}
    daemon.api("PATCH", path_of("Deployment", "web") + "/scale", {"spec": {"replicas": 2}}, **MERGE)
    time.sleep(0.02)
    crash(daemon)
    eventually(lambda: done(daemon, "Deployment", "web", 2), 60, "the scale-down ends after the crash")
    active = active_pods(daemon.pods())
    assert len(active) == 2 and {pod["metadata"]["uid"] for pod in active} <= kept


MERGE = {"content_type": "application/merge-patch+json"}


def test_killed_in_the_middle_of_a_job(daemon: Daemon) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [container(script="usleep 300000")]}}
    spec = {"completions": 6, "parallelism": 2, "completionMode": "Indexed", "template": template}
    daemon.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": spec})
    for pause in (0.3, 0.5, 0.7):
        time.sleep(pause)
        crash(daemon)

    def over() -> Object | None:
        seen: Object = get(daemon, "Job", "work")["status"]
        return seen if any(c["type"] == "Complete" for c in seen.get("conditions", ())) else None

    ended = eventually(over, 60, "the Job completes")
    assert ended["succeeded"] == 6 and ended["completedIndexes"] == "0-5" and not ended.get("failed")
    indexes = [pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in daemon.pods()]
    assert sorted(indexes) == list("012345"), "no Pod was made twice"


def test_killed_in_the_middle_of_a_statefulset_update(daemon: Daemon) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Mi"}}  # type: ignore[index]
    document = workload("StatefulSet", "st", serviceName="st", replicas=3, volumeClaimTemplates=[claim])
    main = document["spec"]["template"]["spec"]["containers"][0]
    main["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    daemon.apply(document)
    eventually(lambda: done(daemon, "StatefulSet", "st", 3), 60, "three Pods in order")
    for number in range(3):
        daemon.exec(f"st-{number}", "sh", "-c", f"echo mine-{number} > /data/name")
    retouch(daemon, "StatefulSet", "st", "two")
    for pause in (0.1, 0.4, 1.2):
        time.sleep(pause)
        crash(daemon)
    eventually(lambda: done(daemon, "StatefulSet", "st", 3), 90, "the update ends")
    pods = daemon.pods()
    assert sorted(pod["metadata"]["name"] for pod in pods) == ["st-0", "st-1", "st-2"]
    assert {version(pod) for pod in pods} == {"two"}
    for number in range(3):
        assert daemon.exec(f"st-{number}", "cat", "/data/name") == f"mine-{number}\n"
        assert daemon.exec(f"st-{number}", "hostname") == f"st-{number}\n"
    daemon.cli("delete", "statefulset", "st")
    claims = [one["metadata"]["name"] for one in daemon.api("GET", path_of("PersistentVolumeClaim"))["items"]]
    assert claims == ["data-st-0", "data-st-1", "data-st-2"]
    daemon.cli("delete", "pvc", "--all")
    eventually(lambda: not daemon.api("GET", "/api/v1/persistentvolumes")["items"], what="the volumes go")
