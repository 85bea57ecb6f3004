"""The words of kubectl's STATUS, READY and RESTARTS columns, computed from a Pod: pure.

kubectl asks the server for them (``as=Table``), so their exact form is the server's to know: CrashLoopBackOff,
Init:0/1, Terminating, Completed, ``3 (10s ago)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from podrt.api.humantime import age
from podrt.model.pod import Pod
from podrt.model.status import ContainerStateTerminated, ContainerStatus


class PodSummary(NamedTuple):
    ready: int
    total: int
    status: str
    restarts: str


def summarize(pod: Pod, now: float) -> PodSummary:
    sidecars = {c.name for c in pod.spec.init_containers if c.restart_policy == "Always"}
    total = len(pod.spec.containers) + len(sidecars)
    word = pod.status.reason or pod.status.phase or "Pending"
    if any(c.type == "PodScheduled" and c.reason == "SchedulingGated" for c in pod.status.conditions):
        word = "SchedulingGated"
    init = pod.status.init_container_statuses
    init_word, ready = _init_phase(pod, sidecars)
    counted: Sequence[ContainerStatus] = init
    if not init_word or _condition(pod, "Initialized"):
        main, main_ready = _main_phase(pod)
        word, ready = main or word, ready + main_ready
        counted = [status for status in init if status.name in sidecars] + list(pod.status.container_statuses)
    else:
        word = init_word
    if pod.metadata.deletion_timestamp is not None:
        if pod.status.reason == "NodeLost":
            word = "Unknown"
        elif pod.status.phase not in ("Succeeded", "Failed"):
            word = "Terminating"
    return PodSummary(ready, total, word, _restarts(counted, now))


def _init_phase(pod: Pod, sidecars: set[str]) -> tuple[str, int]:
    """``Init:...`` for the first init container that is not through ("" if all are), and how many sidecars are
    ready.
    """
    ready = 0
    for index, status in enumerate(pod.status.init_container_statuses):
        terminated, waiting = status.state.terminated, status.state.waiting
        if terminated and terminated.exit_code == 0:
            continue
        if status.name in sidecars and status.started:
            ready += status.ready
            continue
        if terminated:
            return f"Init:{terminated.reason or _exit(terminated)}", ready
        if waiting and waiting.reason not in ("", "PodInitializing"):
            return f"Init:{waiting.reason}", ready
        return f"Init:{index}/{len(pod.spec.init_containers)}", ready
    return "", ready


def _main_phase(pod: Pod) -> tuple[str, int]:
    """The word that the containers give ("" for none; the first container's wins), and how many are ready."""
    word, ready, running = "", 0, False
    for status in reversed(pod.status.container_statuses):
        terminated, waiting = status.state.terminated, status.state.waiting
        if waiting and waiting.reason:
            word = waiting.reason
        elif terminated:
            word = terminated.reason or _exit(terminated)
        elif status.ready and status.state.running:
            running = True
            ready += 1
    if word == "Completed" and running:
        word = "Running" if _condition(pod, "Ready") else "NotReady"
    return word, ready


def _exit(terminated: ContainerStateTerminated) -> str:
    return f"Signal:{terminated.signal}" if terminated.signal else f"ExitCode:{terminated.exit_code}"


def _condition(pod: Pod, name: str) -> bool:
    return any(condition.type == name and condition.status == "True" for condition in pod.status.conditions)


def _restarts(statuses: Sequence[ContainerStatus], now: float) -> str:
    count = sum(status.restart_count for status in statuses)
    ended = [status.last_state.terminated.finished_at for status in statuses if status.last_state.terminated]
    latest = max(filter(None, ended), default=None)
    return f"{count} ({age(latest, now)} ago)" if count and latest else str(count)
