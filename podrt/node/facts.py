"""What is known of one Pod: the engine's records, and the stored status where the engine has none.

The engine's records live in /run and are gone after a reboot. Then the stored status tells what ran: a container that
was running is taken as ended with an unknown status (``ContainerStatusUnknown``, 137), which its restart policy judges.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from podrt.engine.specs import ContainerState, ContainerStatus, Resources, SandboxState, SandboxStatus
from podrt.model.base import parse_time
from podrt.model.pod import Pod
from podrt.model.status import ContainerStateTerminated
from podrt.model.status import ContainerStatus as StoredStatus

LEVEL_ANNOTATION = "podrt.dev/back-off-level"
IMAGE_ANNOTATION = "podrt.dev/image"
"""``image`` of the container's spec as it was when the container was made."""
POD_UID_LABEL = "io.kubernetes.pod.uid"
POD_NAME_LABEL = "io.kubernetes.pod.name"
POD_NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
CONTAINER_NAME_LABEL = "io.kubernetes.container.name"
UNKNOWN_CODE = 137


class Container(NamedTuple):
    """One run of a container. ``id`` is "" where only the stored status remembers it. Times are Unix, 0 if unknown."""

    name: str
    id: str
    sandbox_id: str
    attempt: int
    state: ContainerState
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image_ref: str = ""
    image_id: str = ""
    level: int = 0
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    made_from: str = ""
    """``image`` of the spec that it was made from; "" if unknown."""
    resources: Resources | None = None
    """The limits of its cgroup; None if unknown."""

    @property
    def ended(self) -> bool:
        return self.state in (ContainerState.EXITED, ContainerState.UNKNOWN)


class Hook(enum.Enum):
    """How far a lifecycle hook of one run of a container is."""

    NONE = "none"
    """Not begun, or begun by a daemon that is no more: a postStart hook is then taken as done."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Live(NamedTuple):
    """What the daemon itself knows of one run of a container: its hooks, its probes, and that it is being stopped.

    It is not in the engine's records. After a restart of the daemon probes begin anew (from the stored status), and a
    preStop hook that was under way is run again, as under a kubelet.
    """

    post_start: Hook = Hook.NONE
    pre_stop: Hook = Hook.NONE
    started: bool | None = None
    """Whether the startup probe has passed; None: no result yet."""
    ready: bool | None = None
    """What the readiness probe says; None: no result yet."""
    unhealthy: str = ""
    """"liveness" or "startup" once that probe has failed for good."""
    deadline: float | None = None
    """Unix time at which its grace period is over; None: it is not being stopped."""
    kill_at: float | None = None
    """Unix time of SIGKILL; None: the stop signal has not been sent."""
    again: bool = False
    """It was stopped so as to be started anew."""


NOTHING = Live()


class Failure(NamedTuple):
    """A step that failed before there was a container or sandbox; the worker remembers it between tries."""

    reason: str
    message: str
    at: float
    failures: int
    retry_at: float
    image: str = ""
    """The image that was tried: another one does not wait."""


class Facts(NamedTuple):
    sandbox: SandboxStatus | None
    """The newest one, whatever its state."""
    old_sandboxes: tuple[str, ...]
    containers: Mapping[str, Sequence[Container]]
    """By name, the newest first."""
    failures: Mapping[str, Failure] = {}
    """By container name; "" is the sandbox."""
    live: Mapping[str, Live] = {}
    """By container id."""

    def of(self, run: Container) -> Live:
        return self.live.get(run.id, NOTHING)

    def newest(self, name: str) -> Container | None:
        runs = self.containers.get(name)
        return runs[0] if runs else None


def gather(
    pod: Pod,
    sandboxes: Sequence[SandboxStatus],
    containers: Sequence[ContainerStatus],
    failures: Mapping[str, Failure] | None = None,
    live: Mapping[str, Live] | None = None,
) -> Facts:
    """Facts of ``pod`` from the engine's records of its sandboxes and containers."""
    newest_first = sorted(sandboxes, key=lambda box: (box.spec.attempt, box.created_at), reverse=True)
    runs: dict[str, list[Container]] = {}
    for run in sorted(containers, key=lambda one: (one.spec.attempt, one.created_at), reverse=True):
        runs.setdefault(run.spec.name, []).append(_from_engine(run))
    status = pod.status
    for stored in (
        *status.init_container_statuses,
        *status.container_statuses,
        *status.ephemeral_container_statuses,
    ):
        if stored.name not in runs and (remembered := _from_store(stored)) is not None:
            runs[stored.name] = [remembered]
    return Facts(
        sandbox=newest_first[0] if newest_first else None,
        old_sandboxes=tuple(box.id for box in newest_first[1:]),
        containers=runs,
        failures=dict(failures or {}),
        live=dict(live or {}),
    )


def ready(facts: Facts) -> bool:
    """Is there a sandbox to run containers in?"""
    return facts.sandbox is not None and facts.sandbox.state is SandboxState.READY


def _from_engine(status: ContainerStatus) -> Container:
    level = status.spec.annotations.get(LEVEL_ANNOTATION, "0")
    return Container(
        name=status.spec.name,
        id=status.id,
        sandbox_id=status.sandbox_id,
        attempt=status.spec.attempt,
        state=status.state,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        image_ref=status.image_ref,
        image_id=status.image_id,
        level=int(level) if level.isdecimal() else 0,
        uid=status.uid,
        gid=status.gid,
        groups=status.groups,
        made_from=status.spec.annotations.get(IMAGE_ANNOTATION, ""),
        resources=status.spec.resources,
    )


def _from_store(stored: StoredStatus) -> Container | None:
    ended = stored.state.terminated or (stored.last_state.terminated if stored.state.running is None else None)
    if ended is None and stored.state.running is None:
        return None
    if ended is None:
        running = stored.state.running
        assert running is not None
        ended = ContainerStateTerminated(
            exit_code=UNKNOWN_CODE,
            reason="ContainerStatusUnknown",
            message="The container could not be located when the node started again",
            started_at=running.started_at,
            container_id=stored.container_id,
        )
    return Container(
        name=stored.name,
        id="",
        sandbox_id="",
        attempt=stored.restart_count,
        state=ContainerState.EXITED,
        started_at=_unix(ended.started_at),
        finished_at=_unix(ended.finished_at),
        exit_code=ended.exit_code,
        reason=ended.reason,
        message=ended.message,
        image_ref=stored.image,
        image_id=stored.image_id,
    )


def _unix(text: str | None) -> float:
    return parse_time(text).timestamp() if text else 0.0
