"""Plan and status as tables: a Pod, what is there, the time -> what to do and what to say. No kernel, virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podrt.engine.specs import ContainerState, SandboxSpec, SandboxState, SandboxStatus
from podrt.model.base import format_time
from podrt.model.container import Container as ContainerField
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.status import (
    ContainerState as StoredState,
)
from podrt.model.status import (
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStatus,
    PodStatus,
)
from podrt.node import backoff
from podrt.node.actions import (
    Finish,
    RemoveContainer,
    RemoveSandbox,
    SetUpSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
)
from podrt.node.facts import Container, Facts, Failure, gather
from podrt.node.plan import plan
from podrt.node.status import NodeFacts, pod_status

NOW = 1_000_000.0
NODE = NodeFacts(("192.0.2.1",))


def pod(policy: str = "Always", names: tuple[str, ...] = ("a",), status: PodStatus | None = None, **spec: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default", uid="u", generation=1),
        spec=PodSpec(
            restart_policy=policy,
            containers=tuple(ContainerField(name=name, image="i") for name in names),
            termination_grace_period_seconds=30,
            **spec,
        ),
        status=status or PodStatus(),
    )


def deleted(one: Pod, at: float) -> Pod:
    meta = msgspec.structs.replace(one.metadata, deletion_timestamp=format_time(at), deletion_grace_period_seconds=30)
    return msgspec.structs.replace(one, metadata=meta)


def box(state: SandboxState = SandboxState.READY, attempt: int = 0, ident: str = "s0") -> SandboxStatus:
    spec = SandboxSpec(name="p", namespace="default", uid="u", attempt=attempt)
    return SandboxStatus(id=ident, spec=spec, state=state, created_at=NOW - 100, ips=("10.86.0.2", "fd86::2"))


def run(
    name: str = "a",
    state: ContainerState = ContainerState.RUNNING,
    *,
    attempt: int = 0,
    level: int = 0,
    code: int = 0,
    ended: float = 0.0,
    ran: float = 5.0,
    sandbox: str = "s0",
) -> Container:
    return Container(
        name=name,
        id=f"{name}-{attempt}",
        sandbox_id=sandbox,
        attempt=attempt,
        state=state,
        started_at=(ended or NOW) - ran,
        finished_at=ended,
        exit_code=code,
        level=level,
    )


def exited(name: str = "a", *, code: int = 0, ago: float = 0.0, **more: Any) -> Container:
    return run(name, ContainerState.EXITED, code=code, ended=NOW - ago, **more)


def facts(*runs: Container, sandbox: SandboxStatus | None = None, failures: dict[str, Failure] | None = None) -> Facts:
    names: dict[str, list[Container]] = {}
    for one in runs:
        names.setdefault(one.name, []).append(one)
    return Facts(sandbox or box(), (), names, failures or {})


EMPTY = Facts(None, (), {}, {})


@pytest.mark.parametrize(
    ("level", "delay"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (7, 300), (1000, 300)]
)
def test_restart_delays_are_the_kubelets(level: int, delay: float) -> None:
    assert backoff.restart_delay(level) == delay


def test_a_run_of_ten_minutes_resets_the_delay() -> None:
    assert backoff.level_after(5, NOW, NOW + 600) == 0
    assert backoff.level_after(5, NOW, NOW + 599) == 5


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_restart_decision(policy: str, code: int, restarts: bool) -> None:
    result = plan(pod(policy), facts(exited(code=code)), NOW)
    assert result.actions == ((StartContainer("a", 1, 1),) if restarts else ())


def test_a_new_pod_gets_its_sandbox_and_then_its_containers() -> None:
    assert plan(pod(names=("a", "b")), EMPTY, NOW).actions == (SetUpSandbox(0),)
    started = plan(pod(names=("a", "b")), facts(), NOW).actions
    assert started == (StartContainer("a", 0, 0), StartContainer("b", 0, 0))
    assert plan(pod(names=("a", "b")), facts(run("a"), run("b")), NOW) == ((), None)


def test_back_off_waits_from_the_end_of_the_last_run() -> None:
    waiting = plan(pod(), facts(exited(attempt=2, level=2, ago=15)), NOW)
    assert waiting.actions == ()
    assert waiting.wake_at == NOW + 5
    due = plan(pod(), facts(exited(attempt=2, level=2, ago=20)), NOW)
    assert due.actions == (StartContainer("a", 3, 3),)


def test_one_dead_run_is_kept() -> None:
    runs = facts(exited(attempt=3, level=0), exited(attempt=2), exited(attempt=1))
    assert plan(pod(), runs, NOW).actions == (
        RemoveContainer("a-2"),
        RemoveContainer("a-1"),
        StartContainer("a", 4, 1),
    )


def test_a_container_that_was_created_but_not_started_is_made_anew() -> None:
    found = facts(run(state=ContainerState.CREATED, attempt=1, level=1), exited(attempt=0))
    assert plan(pod(), found, NOW).actions == (RemoveContainer("a-1"), StartContainer("a", 1, 1))


def test_a_lost_sandbox_is_stopped_and_made_anew() -> None:
    lost = box(SandboxState.NOT_READY)
    assert plan(pod(), facts(run(), sandbox=lost), NOW).actions == (StopSandbox("s0"),)
    assert plan(pod(), facts(exited(code=137), sandbox=lost), NOW).actions == (SetUpSandbox(1),)
    assert plan(pod("Never"), facts(exited(code=137), sandbox=lost), NOW).actions == ()


def test_an_old_sandbox_goes_when_its_runs_are_superseded() -> None:
    found = Facts(box(attempt=1, ident="s1"), ("s0",), {"a": [exited(code=1, ago=5, level=3, attempt=1)]}, {})
    assert plan(pod(), found, NOW).actions == ()
    found = found._replace(containers={"a": [run(attempt=2, sandbox="s1"), exited(attempt=1)]})
    assert plan(pod(), found, NOW).actions == (RemoveSandbox("s0"),)


def test_failures_wait_for_their_time() -> None:
    failure = Failure("ErrImagePull", "no", NOW, 1, NOW + 10)
    found = plan(pod(), facts(failures={"a": failure}), NOW)
    assert found == ((), NOW + 10)
    assert plan(pod(), facts(failures={"a": failure}), NOW + 10).actions == (StartContainer("a", 0, 0),)
    broken = Facts(None, (), {}, {"": failure})
    assert plan(pod(), broken, NOW) == ((), NOW + 10)


def test_deletion_stops_then_removes_then_finishes() -> None:
    going = deleted(pod(names=("a", "b")), NOW + 30)
    first = plan(going, facts(run("a"), exited("b")), NOW)
    assert [(type(action), action.deadline) for action in first.actions if isinstance(action, StopContainer)] == [
        (StopContainer, NOW + 31)
    ]
    assert len(first.actions) == 1
    assert plan(going, facts(exited("a"), exited("b")), NOW).actions == (RemoveSandbox("s0"),)
    assert plan(going, EMPTY, NOW).actions == (Finish(),)


def test_nothing_is_started_while_a_pod_is_deleted() -> None:
    going = deleted(pod(names=("a", "b")), NOW + 30)
    for found in (EMPTY, facts(), facts(exited("a", code=1)), facts(run("a"), exited("b", code=1))):
        assert not any(isinstance(action, StartContainer | SetUpSandbox) for action in plan(going, found, NOW).actions)


def test_a_finished_pod_gives_its_network_back_and_rests() -> None:
    done = pod("Never", status=PodStatus(phase="Succeeded"))
    assert plan(done, facts(exited()), NOW).actions == (StopSandbox("s0"),)
    assert plan(done, facts(exited(), sandbox=box(SandboxState.NOT_READY)), NOW).actions == ()


def test_active_deadline() -> None:
    status = PodStatus(phase="Running", start_time=format_time(NOW - 50))
    limited = pod(status=status, active_deadline_seconds=60)
    assert plan(limited, facts(run()), NOW) == ((), NOW + 10)
    over = plan(limited, facts(run()), NOW + 10)
    assert [type(action) for action in over.actions] == [StopContainer]
    ended = pod_status(limited, facts(exited(code=143)), NODE, NOW + 11)
    assert (ended.phase, ended.reason) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("policy", "runs", "phase"),
    [
        ("Always", (), "Pending"),
        ("Always", (run("a"),), "Pending"),
        ("Always", (run("a"), run("b")), "Running"),
        ("Always", (run("a"), exited("b")), "Running"),
        ("Always", (exited("a"), exited("b")), "Running"),
        ("Never", (exited("a"), exited("b")), "Succeeded"),
        ("Never", (exited("a"), exited("b", code=3)), "Failed"),
        ("Never", (run("a"), exited("b", code=3)), "Running"),
        ("OnFailure", (exited("a"), exited("b", code=3)), "Running"),
        ("OnFailure", (exited("a"), exited("b")), "Succeeded"),
    ],
)
def test_phase(policy: str, runs: tuple[Container, ...], phase: str) -> None:
    assert pod_status(pod(policy, ("a", "b")), facts(*runs), NODE, NOW).phase == phase


def test_final_phases_stay() -> None:
    done = pod("Never", status=PodStatus(phase="Failed", reason="X", message="m"))
    status = pod_status(done, facts(exited()), NODE, NOW)
    assert (status.phase, status.reason, status.message) == ("Failed", "X", "m")


def test_crash_loop_shows_reason_delay_and_last_state() -> None:
    status = pod_status(pod(), facts(exited(code=2, attempt=3, level=3, ago=1), exited(attempt=2)), NODE, NOW)
    one = status.container_statuses[0]
    assert one.state.waiting is not None
    assert one.state.waiting.reason == "CrashLoopBackOff"
    assert "back-off 40s restarting failed container=a pod=p_default(u)" in one.state.waiting.message
    assert one.last_state.terminated is not None
    assert one.last_state.terminated.exit_code == 2
    assert (one.restart_count, one.ready, status.phase) == (3, False, "Running")


def test_failed_image_shows_its_reason() -> None:
    failure = Failure("ErrImagePull", "no such image", NOW, 1, NOW + 10)
    one = pod_status(pod(), facts(failures={"a": failure}), NODE, NOW).container_statuses[0]
    assert one.state.waiting is not None
    assert (one.state.waiting.reason, one.state.waiting.message) == ("ErrImagePull", "no such image")


@pytest.mark.parametrize(
    ("code", "reason", "shown", "signal"),
    [
        (0, "", "Completed", 0),
        (1, "", "Error", 0),
        (143, "", "Error", 15),
        (137, "OOMKilled", "OOMKilled", 0),
        (255, "", "Error", 0),
    ],
)
def test_how_an_end_is_told(code: int, reason: str, shown: str, signal: int) -> None:
    ended = exited(code=code)._replace(reason=reason)
    state = pod_status(pod("Never"), facts(ended), NODE, NOW).container_statuses[0].state
    assert state.terminated is not None
    assert (state.terminated.reason, state.terminated.signal, state.terminated.exit_code) == (shown, signal, code)


def conditions(status: PodStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in status.conditions}


def test_conditions_of_a_pod_on_its_way() -> None:
    start = conditions(pod_status(pod(names=("a", "b")), EMPTY, NODE, NOW))
    assert start["PodReadyToStartContainers"] == ("False", "")
    assert start["PodScheduled"] == ("True", "")
    assert start["Ready"] == ("False", "ContainersNotReady")
    half = pod_status(pod(names=("a", "b")), facts(run("a")), NODE, NOW)
    assert "containers with unready status: [b]" in {one.message for one in half.conditions}
    full = conditions(pod_status(pod(names=("a", "b")), facts(run("a"), run("b")), NODE, NOW))
    assert {name: value for name, (value, _) in full.items()} == dict.fromkeys(full, "True")
    done = conditions(pod_status(pod("Never"), facts(exited()), NODE, NOW))
    assert done["Ready"] == ("False", "PodCompleted")
    assert conditions(pod_status(pod("Never"), facts(exited(code=1)), NODE, NOW))["Ready"] == ("False", "PodFailed")


def test_a_readiness_gate_holds_ready_back() -> None:
    from podrt.model.pod import PodReadinessGate

    gated = pod(readiness_gates=(PodReadinessGate(condition_type="x/y"),))
    found = conditions(pod_status(gated, facts(run()), NODE, NOW))
    assert found["ContainersReady"] == ("True", "")
    assert found["Ready"] == ("False", "ReadinessGatesNotReady")


def test_an_unchanged_pod_has_an_equal_status_later() -> None:
    first = pod_status(pod(), facts(run()), NODE, NOW)
    again = pod_status(pod(status=first), facts(run()), NODE, NOW + 50)
    assert again == first


def test_addresses() -> None:
    status = pod_status(pod(), facts(run()), NODE, NOW)
    assert (status.pod_ip, [ip.ip for ip in status.pod_ips]) == ("10.86.0.2", ["10.86.0.2", "fd86::2"])
    assert (status.host_ip, status.qos_class) == ("192.0.2.1", "BestEffort")


# After a reboot the engine knows nothing


def stored(state: StoredState, restarts: int = 2, last: StoredState | None = None) -> PodStatus:
    one = ContainerStatus(name="a", state=state, last_state=last or StoredState(), restart_count=restarts)
    return PodStatus(phase="Running", container_statuses=(one,))


RUNNING = StoredState(running=ContainerStateRunning(started_at=format_time(NOW - 100)))
DONE = StoredState(terminated=ContainerStateTerminated(exit_code=0, finished_at=format_time(NOW - 50)))


@pytest.mark.parametrize(
    ("policy", "state", "actions", "phase"),
    [
        ("Always", RUNNING, (SetUpSandbox(0),), "Running"),
        ("OnFailure", RUNNING, (SetUpSandbox(0),), "Running"),
        ("Never", RUNNING, (), "Failed"),
        ("Always", DONE, (SetUpSandbox(0),), "Running"),
        ("OnFailure", DONE, (), "Succeeded"),
        ("Never", DONE, (), "Succeeded"),
    ],
)
def test_after_a_reboot_the_restart_policy_decides(
    policy: str, state: StoredState, actions: tuple[Any, ...], phase: str
) -> None:
    rebooted = pod(policy, status=stored(state))
    found = gather(rebooted, (), ())
    assert plan(rebooted, found, NOW).actions == actions
    assert pod_status(rebooted, found, NODE, NOW).phase == phase
    in_box = found._replace(sandbox=box())
    starts = [action for action in plan(rebooted, in_box, NOW).actions if isinstance(action, StartContainer)]
    assert [start.attempt for start in starts] == ([3] if actions else [])
