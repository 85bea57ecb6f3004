"""Columns as kubectl prints them, by table: STATUS and RESTARTS words, ages, wide columns."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podrt.api.humantime import age, human_duration
from podrt.api.podstatus import summarize
from podrt.api.table import PRINTERS, table
from podrt.model.base import format_time
from podrt.model.event import Event
from podrt.model.kinds import RESOURCES
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod

NOW = 1_900_000_000.0
RUNNING = {"running": {"startedAt": format_time(NOW - 60)}}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 180, "5h3m"),
        (8 * 3600, "8h"),
        (2 * 86400 - 1, "47h"),
        (2 * 86400, "2d"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (770 * 86400, "2y40d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_age_of_what_is_no_time() -> None:
    assert age(None) == age("yesterday") == "<unknown>"
    assert age(format_time(NOW - 10), NOW) == "10s"


def state(name: str, kind: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "state": kind, "ready": "running" in kind} | more


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


def ended(code: int = 0, reason: str = "", signal: int = 0) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "signal": signal, "finishedAt": format_time(NOW - 10)}}


def pod(
    phase: str,
    *statuses: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    sidecars: tuple[str, ...] = (),
    conditions: tuple[dict[str, str], ...] = (),
    deleted: bool = False,
    **status: Any,
) -> Pod:
    document: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {
            "containers": [{"name": s["name"]} for s in statuses] or [{"name": "a"}],
            "initContainers": [
                {"name": s["name"]} | ({"restartPolicy": "Always"} if s["name"] in sidecars else {}) for s in init
            ],
        },
        "status": {
            "phase": phase,
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init),
            "conditions": list(conditions),
        }
        | status,
    }
    if deleted:
        document["metadata"]["deletionTimestamp"] = format_time(NOW)
    return msgspec.convert(document, Pod)


READY = ({"type": "Ready", "status": "True"},)
INITIALIZED = ({"type": "Initialized", "status": "True"},)


@pytest.mark.parametrize(
    ("given", "ready", "status", "restarts"),
    [
        (pod("Pending"), "0/1", "Pending", "0"),
        (pod("Running", state("a", RUNNING), state("b", RUNNING)), "2/2", "Running", "0"),
        (pod("Pending", state("a", waiting("ContainerCreating"))), "0/1", "ContainerCreating", "0"),
        (pod("Pending", state("a", waiting("ErrImageNeverPull"))), "0/1", "ErrImageNeverPull", "0"),
        (pod("Succeeded", state("a", ended(0, "Completed"))), "0/1", "Completed", "0"),
        (pod("Failed", state("a", ended(1, "Error"))), "0/1", "Error", "0"),
        (pod("Failed", state("a", ended(137, "OOMKilled"))), "0/1", "OOMKilled", "0"),
        (pod("Failed", state("a", ended(3))), "0/1", "ExitCode:3", "0"),
        (pod("Failed", state("a", ended(137, signal=9))), "0/1", "Signal:9", "0"),
        (pod("Failed", reason="Evicted"), "0/1", "Evicted", "0"),
        (
            pod("Running", state("a", waiting("CrashLoopBackOff"), restartCount=3, lastState=ended(1, "Error"))),
            "0/1",
            "CrashLoopBackOff",
            "3 (10s ago)",
        ),
        (
            pod(
                "Running", state("a", RUNNING, restartCount=2), state("b", RUNNING, restartCount=1, lastState=ended(1))
            ),
            "2/2",
            "Running",
            "3 (10s ago)",
        ),
        (
            pod("Running", state("a", ended(0, "Completed")), state("b", RUNNING), conditions=READY),
            "1/2",
            "Running",
            "0",
        ),
        (pod("Running", state("a", ended(0, "Completed")), state("b", RUNNING)), "1/2", "NotReady", "0"),
        (pod("Running", state("a", RUNNING), deleted=True), "1/1", "Terminating", "0"),
        (pod("Succeeded", state("a", ended(0, "Completed")), deleted=True), "0/1", "Completed", "0"),
        (pod("Unknown", reason="NodeLost", deleted=True), "0/1", "Unknown", "0"),
        (pod("Pending", init=(state("i", waiting("PodInitializing")),)), "0/1", "Init:0/1", "0"),
        (pod("Pending", init=(state("i", ended(0, "Completed")), state("j", RUNNING))), "0/1", "Init:1/2", "0"),
        (pod("Pending", init=(state("i", ended(2)),)), "0/1", "Init:ExitCode:2", "0"),
        (
            pod("Pending", init=(state("i", ended(2, "Error"), restartCount=1, lastState=ended(2)),)),
            "0/1",
            "Init:Error",
            "1 (10s ago)",
        ),
        (
            pod("Pending", init=(state("i", waiting("CrashLoopBackOff"), restartCount=4),)),
            "0/1",
            "Init:CrashLoopBackOff",
            "4",
        ),
        (
            pod(
                "Running",
                state("a", RUNNING),
                init=(state("i", ended(0, "Completed"), restartCount=5),),
                conditions=INITIALIZED,
            ),
            "1/1",
            "Running",
            "0",
        ),
        (
            pod(
                "Running",
                state("a", RUNNING),
                init=(state("s", RUNNING, started=True, restartCount=1),),
                sidecars=("s",),
                conditions=INITIALIZED,
            ),
            "2/2",
            "Running",
            "1",
        ),
        (
            pod("Pending", conditions=({"type": "PodScheduled", "reason": "SchedulingGated", "status": "False"},)),
            "0/1",
            "SchedulingGated",
            "0",
        ),
    ],
)
def test_pod_words(given: Pod, ready: str, status: str, restarts: str) -> None:
    summary = summarize(given, NOW)
    assert (f"{summary.ready}/{summary.total}", summary.status, summary.restarts) == (ready, status, restarts)


def test_every_kind_has_a_printer_whose_cells_fit_its_columns() -> None:
    for resource in RESOURCES:
        printer = PRINTERS[resource.name]
        assert len(printer.cells(resource.struct(), NOW)) == len(printer.columns), resource.name


def test_pod_table_has_kubectls_columns() -> None:
    given = msgspec.convert(
        {
            "metadata": {"name": "p", "creationTimestamp": format_time(NOW - 3600 * 4)},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "a"}],
                "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "x", "status": "True"}]},
        },
        Pod,
    )
    shown = table("pods", [given], revision="7", now=NOW)
    assert [(c["name"], c["priority"]) for c in shown["columnDefinitions"]] == [
        ("Name", 0),
        ("Ready", 0),
        ("Status", 0),
        ("Restarts", 0),
        ("Age", 0),
        ("IP", 1),
        ("Node", 1),
        ("Nominated Node", 1),
        ("Readiness Gates", 1),
    ]
    assert shown["rows"][0]["cells"] == ["p", "0/1", "Running", "0", "4h", "10.0.0.7", "n1", "<none>", "1/2"]
    assert shown["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert table("pods", [given], include="None")["rows"][0]["object"] is None
    assert table("pods", [given], include="Object")["rows"][0]["object"] is given


def test_other_kinds() -> None:
    namespace = msgspec.convert({"metadata": {"name": "x"}, "status": {"phase": "Terminating"}}, Namespace)
    assert PRINTERS["namespaces"].cells(namespace, NOW) == ["x", "Terminating", "<unknown>"]
    node = msgspec.convert(
        {
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "::1"}],
                "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"},
            },
        },
        Node,
    )
    assert PRINTERS["nodes"].cells(node, NOW)[1:8] == [
        "NotReady,SchedulingDisabled",
        "control-plane",
        "<unknown>",
        "v1",
        "192.0.2.1",
        "<none>",
        "Debian",
    ]
    event = msgspec.convert(
        {
            "metadata": {"name": "p.1"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "type": "Warning",
            "reason": "BackOff",
            "message": "no\n",
            "count": 4,
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": format_time(NOW - 30),
            "lastTimestamp": format_time(NOW - 3),
        },
        Event,
    )
    assert PRINTERS["events"].cells(event, NOW) == [
        "3s", "Warning", "BackOff", "pod/p", "spec.containers{a}", "kubelet, n", "no", "30s", 4, "p.1",
    ]  # fmt: skip
