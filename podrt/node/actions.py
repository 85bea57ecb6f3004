"""What a plan can ask of a Pod's worker: plain values, carried out in their order."""

from __future__ import annotations

from typing import NamedTuple


class SetUpSandbox(NamedTuple):
    attempt: int


class StopSandbox(NamedTuple):
    """Ends what runs in it and frees its network; records and logs stay."""

    sandbox_id: str


class RemoveSandbox(NamedTuple):
    """With all its containers."""

    sandbox_id: str


class StartContainer(NamedTuple):
    name: str
    attempt: int
    level: int
    """Back-off level that the new container carries."""


class RunPreStop(NamedTuple):
    """Run a container's preStop hook; its stop signal follows when the hook is over."""

    container_id: str
    name: str
    deadline: float
    """Unix time at which the grace period is over, hook included."""
    reason: str
    """The text of the Killing event."""
    again: bool = False


class StopContainer(NamedTuple):
    container_id: str
    name: str
    deadline: float
    """Unix time at which SIGKILL follows the stop signal."""
    reason: str
    """The text of the Killing event."""
    again: bool = False
    """It is stopped so as to be started anew, whatever its exit code will be."""


class RemoveContainer(NamedTuple):
    container_id: str


class Finish(NamedTuple):
    """Nothing is left of a Pod that is being deleted: volumes can go, and the object."""


Action = (
    SetUpSandbox | StopSandbox | RemoveSandbox | StartContainer | RunPreStop | StopContainer | RemoveContainer | Finish
)


class Plan(NamedTuple):
    actions: tuple[Action, ...]
    wake_at: float | None = None
    """Unix time at which something will be due though no fact has changed; None: never."""


def earliest(*times: float | None) -> float | None:
    """The first of these moments; None if there is none."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
