"""Start order, restarts and ends as tables: init containers, sidecars, hooks, rules, grace periods. Virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podrt.engine.specs import ContainerState, SandboxSpec, SandboxState, SandboxStatus
from podrt.model.base import format_time
from podrt.model.container import Container as Spec
from podrt.model.container import (
    ContainerRestartRule,
    ContainerRestartRuleOnExitCodes,
    EphemeralContainer,
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
)
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.status import PodStatus
from podrt.node.actions import RunPreStop, StartContainer, StopContainer
from podrt.node.facts import Container, Facts, Failure, Hook, Live
from podrt.node.order import should_restart
from podrt.node.plan import plan
from podrt.node.status import NodeFacts, pod_status

NOW = 1_000_000.0
NODE = NodeFacts(("192.0.2.1",))
HOOK = LifecycleHandler(exec=ExecAction(command=("x",)))
PROBE = Probe(exec=ExecAction(command=("x",)), period_seconds=10, success_threshold=1, failure_threshold=3)
SIDE: dict[str, Any] = {"restart_policy": "Always"}


def spec(name: str, *, pre_stop: bool = False, post_start: bool = False, **fields: Any) -> Spec:
    hooks = Lifecycle(post_start=HOOK if post_start else None, pre_stop=HOOK if pre_stop else None)
    return Spec(name=name, image="i", lifecycle=hooks if pre_stop or post_start else None, **fields)


def pod(*mains: Spec, inits: tuple[Spec, ...] = (), policy: str = "Always", **fields: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default", uid="u", generation=1),
        spec=PodSpec(
            init_containers=inits,
            containers=mains or (spec("m"),),
            restart_policy=policy,
            termination_grace_period_seconds=30,
            **fields,
        ),
    )


def deleted(one: Pod, grace: int = 30) -> Pod:
    stamp = format_time(NOW + grace)
    meta = msgspec.structs.replace(one.metadata, deletion_timestamp=stamp, deletion_grace_period_seconds=grace)
    return msgspec.structs.replace(one, metadata=meta)


def running(name: str, **fields: Any) -> Container:
    return Container(name, f"{name}-0", "s0", 0, ContainerState.RUNNING, started_at=NOW - 5, **fields)


def ended(name: str, code: int = 0, **fields: Any) -> Container:
    fields = {"started_at": NOW - 5, "finished_at": NOW} | fields
    return Container(name, f"{name}-0", "s0", 0, ContainerState.EXITED, exit_code=code, **fields)


def facts(*runs: Container, failures: dict[str, Failure] | None = None, **live: Live) -> Facts:
    box = SandboxStatus(
        id="s0", spec=SandboxSpec(name="p", namespace="default", uid="u"), state=SandboxState.READY, created_at=NOW
    )
    names: dict[str, list[Container]] = {}
    for run in runs:
        names.setdefault(run.name, []).append(run)
    return Facts(box, (), names, failures or {}, {f"{name}-0": one for name, one in live.items()})


def started(one: Pod, found: Facts) -> list[str]:
    return [action.name for action in plan(one, found, NOW).actions if isinstance(action, StartContainer)]


I1, I2, S1, S2 = spec("i1"), spec("i2"), spec("s1", **SIDE), spec("s2", **SIDE)
UP = Live(started=True)


@pytest.mark.parametrize(
    ("inits", "found", "starts"),
    [
        ((I1, I2), facts(), ["i1"]),
        ((I1, I2), facts(running("i1")), []),
        ((I1, I2), facts(ended("i1")), ["i2"]),
        ((I1, I2), facts(ended("i1"), running("i2")), []),
        ((I1, I2), facts(ended("i1"), ended("i2")), ["m"]),
        ((I1, I2), facts(ended("i1", 1)), ["i1"]),
        ((S1, I1), facts(), ["s1"]),
        ((S1, I1), facts(running("s1")), ["i1"]),
        ((S1, S2), facts(running("s1"), running("s2")), ["m"]),
        ((S1, I1), facts(ended("s1"), running("i1")), ["s1"]),
        ((S1, I1), facts(ended("s1"), ended("i1")), ["s1", "m"]),
        ((S1,), facts(ended("s1", 3), running("m")), ["s1"]),
        ((spec("s", startup_probe=PROBE, **SIDE), I1), facts(running("s")), []),
        ((spec("s", startup_probe=PROBE, **SIDE), I1), facts(running("s"), s=UP), ["i1"]),
        ((spec("s", startup_probe=PROBE, **SIDE), I1), facts(running("s"), s=Live(started=False)), []),
        ((spec("s", post_start=True, **SIDE), I1), facts(running("s"), s=Live(post_start=Hook.RUNNING)), []),
        ((spec("s", post_start=True, **SIDE), I1), facts(running("s"), s=Live(post_start=Hook.DONE)), ["i1"]),
        # Init containers of another sandbox don't count; those of this one do once a main container was made.
        ((I1,), facts(ended("i1")._replace(sandbox_id="old")), ["i1"]),
        ((I1,), facts(ended("i1")._replace(sandbox_id="old"), ended("m")), ["m"]),
    ],
)
def test_start_order(inits: tuple[Spec, ...], found: Facts, starts: list[str]) -> None:
    assert started(pod(inits=inits), found) == starts


def test_main_containers_wait_for_the_post_start_hook_before_them() -> None:
    one = pod(spec("a", post_start=True), spec("b"), spec("c"))
    assert started(one, facts()) == ["a"]
    assert started(one, facts(running("a"), a=Live(post_start=Hook.RUNNING))) == []
    assert started(one, facts(running("a"), a=Live(post_start=Hook.DONE))) == ["b", "c"]


def test_an_ephemeral_container_starts_once_whatever_the_others_do() -> None:
    one = pod(inits=(I1,), ephemeral_containers=(EphemeralContainer(name="e", image="i"),))
    assert started(one, facts(running("i1"))) == ["e"]
    assert started(one, facts(running("i1"), ended("e", 1))) == []
    assert started(one, Facts(None, (), {}, {})) == []


def rule(operator: str, *values: int) -> ContainerRestartRule:
    codes = ContainerRestartRuleOnExitCodes(operator=operator, values=values)
    return ContainerRestartRule(action="Restart", exit_codes=codes)


@pytest.mark.parametrize(
    ("own", "rules", "policy", "code", "again"),
    [
        (None, (), "Never", 1, False),
        ("Always", (), "Never", 0, True),
        ("OnFailure", (), "Always", 0, False),
        ("OnFailure", (), "Never", 1, True),
        ("Never", (rule("In", 42),), "Always", 42, True),
        ("Never", (rule("In", 42),), "Always", 41, False),
        ("Never", (rule("NotIn", 0, 1),), "Never", 2, True),
        ("Never", (rule("NotIn", 0, 1),), "Never", 1, False),
        ("Never", (rule("In", 1), rule("In", 2)), "Never", 2, True),
    ],
)
def test_rule_then_container_then_pod_decides(
    own: str | None, rules: tuple[ContainerRestartRule, ...], policy: str, code: int, again: bool
) -> None:
    one = spec("m", restart_policy=own, restart_policy_rules=rules)
    assert should_restart(pod(one, policy=policy), one, code) is again
    assert should_restart(deleted(pod(one, policy=policy)), one, code) is False


@pytest.mark.parametrize(
    ("policy", "inits", "found", "phase"),
    [
        ("Always", (I1,), facts(), "Pending"),
        ("Always", (I1,), facts(running("i1")), "Pending"),
        ("Always", (I1,), facts(ended("i1", 1)), "Pending"),
        ("Never", (I1,), facts(ended("i1", 1)), "Failed"),
        ("Never", (S1, I1), facts(running("s1"), ended("i1", 1)), "Pending"),
        ("Never", (S1, I1), facts(ended("s1"), ended("i1", 1)), "Failed"),
        ("Always", (I1,), facts(ended("i1"), running("m")), "Running"),
        ("Never", (S1,), facts(running("s1"), ended("m")), "Running"),
        ("Never", (S1,), facts(ended("s1", 9), ended("m")), "Succeeded"),
        ("Never", (S1,), facts(ended("s1", 0), ended("m", 1)), "Failed"),
        ("Always", (S1,), facts(ended("s1", 0, level=3), running("m")), "Running"),
    ],
)
def test_phase_with_init_containers(policy: str, inits: tuple[Spec, ...], found: Facts, phase: str) -> None:
    assert pod_status(pod(inits=inits, policy=policy), found, NODE, NOW).phase == phase


def waiting(found: Facts, one: Pod, name: str) -> str:
    status = pod_status(one, found, NODE, NOW)
    everything = (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
    state = next(entry for entry in everything if entry.name == name).state
    return state.waiting.reason if state.waiting else ""


@pytest.mark.parametrize(
    ("one", "found", "name", "reason"),
    [
        (pod(), facts(), "m", "ContainerCreating"),
        (pod(inits=(I1,)), facts(), "m", "PodInitializing"),
        (pod(inits=(I1,)), facts(), "i1", "PodInitializing"),
        (pod(inits=(I1,)), facts(ended("i1")), "m", "ContainerCreating"),
        (pod(inits=(I1,)), facts(ended("i1", 1, level=1)), "i1", "CrashLoopBackOff"),
        (
            pod(spec("m", post_start=True)),
            facts(running("m"), m=Live(post_start=Hook.RUNNING)),
            "m",
            "ContainerCreating",
        ),
        (
            pod(spec("m", post_start=True)),
            facts(running("m"), m=Live(post_start=Hook.FAILED)),
            "m",
            "PostStartHookError",
        ),
        (
            pod(inits=(I1,)),
            facts(failures={"i1": Failure("ErrImagePull", "no", NOW, 1, NOW + 10)}),
            "i1",
            "ErrImagePull",
        ),
    ],
)
def test_waiting_reasons(one: Pod, found: Facts, name: str, reason: str) -> None:
    assert waiting(found, one, name) == reason


@pytest.mark.parametrize(
    ("probes", "live", "values"),
    [
        ({}, Live(), (True, True)),
        ({"startup_probe": PROBE}, Live(), (False, False)),
        ({"startup_probe": PROBE}, Live(started=True), (True, True)),
        ({"readiness_probe": PROBE}, Live(), (True, False)),
        ({"readiness_probe": PROBE}, Live(ready=True), (True, True)),
        ({"readiness_probe": PROBE}, Live(ready=False), (True, False)),
        ({"startup_probe": PROBE, "readiness_probe": PROBE}, Live(started=False, ready=True), (False, False)),
        ({"liveness_probe": PROBE}, Live(), (True, True)),
    ],
)
def test_started_and_ready(probes: dict[str, Any], live: Live, values: tuple[bool, bool]) -> None:
    status = pod_status(pod(spec("m", **probes)), facts(running("m"), m=live), NODE, NOW)
    assert (status.container_statuses[0].started, status.container_statuses[0].ready) == values
    assert {one.type: one.status for one in status.conditions}["Ready"] == str(values[1])


def test_conditions_with_init_containers() -> None:
    one = pod(inits=(S1, I1))

    def told(found: Facts) -> dict[str, tuple[str, str, str]]:
        return {c.type: (c.status, c.reason, c.message) for c in pod_status(one, found, NODE, NOW).conditions}

    early = told(facts(running("s1"), running("i1")))
    assert early["Initialized"] == ("False", "ContainersNotInitialized", "containers with incomplete status: [i1]")
    assert early["ContainersReady"][2] == "containers with unready status: [m]"
    assert told(facts(running("s1"), ended("i1"), running("m")))["Ready"][0] == "True"
    # A sidecar counts for readiness.
    assert told(facts(ended("s1"), ended("i1"), running("m")))["ContainersReady"][2].endswith("[s1]")


# Ends


def stops(one: Pod, found: Facts, now: float = NOW) -> list[tuple[str, str, float]]:
    actions = plan(one, found, now).actions
    return [
        ("hook" if isinstance(action, RunPreStop) else "stop", action.name, action.deadline - NOW)
        for action in actions
        if isinstance(action, RunPreStop | StopContainer)
    ]


FULL = pod(spec("m1", pre_stop=True), spec("m2"), inits=(spec("s1", pre_stop=True, **SIDE), spec("s2", **SIDE)))
ALL = (running("s1"), running("s2"), running("m1"), running("m2"))
SENT = Live(deadline=NOW + 31, kill_at=NOW + 31)
HOOKING = Live(deadline=NOW + 31, pre_stop=Hook.RUNNING)
HOOKED = Live(deadline=NOW + 31, pre_stop=Hook.DONE)


@pytest.mark.parametrize(
    ("found", "now", "expected"),
    [
        (facts(*ALL), NOW, [("hook", "s1", 31), ("hook", "m1", 31), ("stop", "m2", 31)]),
        (facts(*ALL, s1=HOOKING, m1=HOOKING, m2=SENT), NOW + 1, []),
        (facts(*ALL, s1=HOOKED, m1=HOOKED, m2=SENT), NOW + 1, [("stop", "m1", 31)]),
        (facts(*ALL, s1=HOOKED, m1=SENT, m2=SENT), NOW + 1, []),
        (facts(*ALL[:2], ended("m1"), ended("m2"), s1=HOOKED), NOW + 2, [("stop", "s2", 31)]),
        (facts(*ALL[:2], ended("m1"), ended("m2"), s1=HOOKED, s2=SENT), NOW + 2, []),
        (facts(ALL[0], ended("s2"), ended("m1"), ended("m2"), s1=HOOKED), NOW + 3, [("stop", "s1", 31)]),
        # The grace period is over: who has not had the signal gets it, with a second to live.
        (
            facts(*ALL, s1=HOOKING, m1=HOOKING, m2=SENT),
            NOW + 31,
            [("stop", "s1", 32), ("stop", "s2", 32), ("stop", "m1", 32)],
        ),
    ],
)
def test_deletion_step_by_step(found: Facts, now: float, expected: list[tuple[str, str, float]]) -> None:
    assert stops(deleted(FULL), found, now) == expected


def test_grace_can_be_shortened_only() -> None:
    found = facts(*ALL, s1=HOOKING, m1=HOOKING, m2=SENT)
    shorter = stops(deleted(FULL, 5), found)
    assert shorter == [("hook", "s1", 6), ("hook", "m1", 6), ("stop", "m2", 6)]
    assert stops(deleted(FULL, 100), found) == []


def test_force_stops_at_once_without_hooks_or_order() -> None:
    assert stops(deleted(FULL, 0), facts(*ALL)) == [("stop", name, 0) for name in ("s1", "s2", "m1", "m2")]


def unhealthy(one: Spec, live: Live, **fields: Any) -> list[StopContainer | RunPreStop]:
    actions = plan(pod(one, spec("other"), **fields), facts(running("m"), running("other"), m=live), NOW).actions
    return [action for action in actions if isinstance(action, StopContainer | RunPreStop)]


@pytest.mark.parametrize(
    ("one", "live", "policy", "deadline", "reason", "again"),
    [
        (
            spec("m", liveness_probe=PROBE),
            Live(unhealthy="liveness"),
            "Always",
            30,
            "Container m failed liveness probe, will be restarted",
            True,
        ),
        (
            spec("m", liveness_probe=msgspec.structs.replace(PROBE, termination_grace_period_seconds=3)),
            Live(unhealthy="liveness"),
            "OnFailure",
            3,
            "Container m failed liveness probe, will be restarted",
            True,
        ),
        (
            spec("m", startup_probe=msgspec.structs.replace(PROBE, termination_grace_period_seconds=4)),
            Live(unhealthy="startup"),
            "Never",
            4,
            "Container m failed startup probe",
            False,
        ),
        (spec("m", post_start=True), Live(post_start=Hook.FAILED), "Always", 30, "FailedPostStartHook", False),
    ],
)
def test_what_fails_is_stopped_alone(
    one: Spec, live: Live, policy: str, deadline: float, reason: str, again: bool
) -> None:
    (action,) = unhealthy(one, live, policy=policy)
    assert (action.name, action.deadline - NOW, action.reason, action.again) == ("m", deadline, reason, again)


def test_a_container_stopped_by_its_probe_starts_again_though_it_exits_with_0() -> None:
    one = pod(policy="OnFailure")
    assert started(one, facts(ended("m"))) == []
    assert started(one, facts(ended("m"), m=Live(again=True))) == ["m"]


def test_a_changed_image_stops_and_starts_that_container_without_back_off() -> None:
    one = pod(spec("a"), spec("b"), policy="Never")
    found = facts(running("a", made_from="old"), running("b", made_from="i"))
    (action,) = plan(one, found, NOW).actions
    assert isinstance(action, StopContainer)
    assert (action.name, action.reason) == ("a", "Container a definition changed, will be restarted")
    after = facts(ended("a", 143, made_from="old", level=5), running("b"), a=Live(again=True))
    assert plan(one, after, NOW).actions == (StartContainer("a", 1, 1),)


def test_sidecars_end_when_the_main_containers_are_done() -> None:
    one = pod(inits=(S1, S2), policy="Never")
    found = facts(running("s1"), running("s2"), ended("m"))
    assert stops(one, found) == [("stop", "s2", 30)]
    assert stops(one, facts(running("s1"), ended("s2"), ended("m"))) == [("stop", "s1", 30)]
    assert started(one, facts(ended("s1"), ended("s2"), ended("m"))) == []


def test_a_pod_past_its_deadline_is_stopped_in_order() -> None:
    status = PodStatus(phase="Running", start_time=format_time(NOW - 60))
    one = msgspec.structs.replace(pod(inits=(S1,), active_deadline_seconds=60), status=status)
    assert stops(one, facts(running("s1"), running("m"))) == [("stop", "m", 30)]


@pytest.mark.parametrize(("count", "length"), [(1, 4096), (3, 4096), (4, 3072), (12, 1024)])
def test_termination_messages_share_12_kib(count: int, length: int) -> None:
    names = [f"m{index}" for index in range(count)]
    one = pod(*(spec(name) for name in names), policy="Never")
    status = pod_status(one, facts(*(ended(name, message="m" * 4096) for name in names)), NODE, NOW)
    ends = [entry.state.terminated for entry in status.container_statuses]
    assert [len(end.message) for end in ends if end] == [length] * count
