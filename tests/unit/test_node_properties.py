"""Plan and status against a simulated machine with virtual time: from any state they converge, and keep their promises.

The machine carries out what the plan asks for; hypothesis chooses the Pod, what its containers do, what is there at the
start, and when the Pod is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from podrt.node.actions import (
    Finish,
    RemoveContainer,
    RemoveSandbox,
    RunPreStop,
    SetUpSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
)
from podrt.node.facts import NOTHING, Container, Facts, Hook, Live
from podrt.node.order import Role, containers, initialized, restart_due_at, role_of
from podrt.node.plan import plan
from podrt.node.status import NodeFacts, pod_status

START = 1_000_000.0
GRACE = 20
NODE = NodeFacts(("192.0.2.1",))
HOOK = LifecycleHandler(exec=ExecAction(command=("x",)))
NEVER = 1e12


@dataclass
class Behaviour:
    """What a container does each time it runs. Times are seconds after its start."""

    lives: float = NEVER
    code: int = 0
    obeys: float = 0.0
    """Seconds from the stop signal to its end; NEVER: it has to be killed."""
    hook: float = 0.0
    hook_fails: bool = False
    starts_up: float = 0.0
    """When the startup probe passes; NEVER: it fails after three seconds."""
    unhealthy_after: float = NEVER


@dataclass
class Machine:
    """Sandboxes, containers and hooks in virtual time."""

    pod: Pod
    behaviours: dict[str, Behaviour]
    now: float = START
    boxes: list[SandboxStatus] = field(default_factory=list)
    runs: list[Container] = field(default_factory=list)
    live: dict[str, Live] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    hooks: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    starts: list[tuple[float, str]] = field(default_factory=list)

    def facts(self) -> Facts:
        names: dict[str, list[Container]] = {}
        for run in sorted(self.runs, key=lambda one: one.attempt, reverse=True):
            names.setdefault(run.name, []).append(run)
        boxes = sorted(self.boxes, key=lambda box: box.spec.attempt, reverse=True)
        return Facts(boxes[0] if boxes else None, tuple(box.id for box in boxes[1:]), names, {}, dict(self.live))

    def spec(self, name: str) -> Spec:
        return next(spec for _, spec in containers(self.pod) if spec.name == name)

    # One round, as the worker's

    def step(self) -> bool:
        """Whether anything was to do."""
        facts = self.facts()
        old = self.pod.status
        status = pod_status(self.pod, facts, NODE, self.now)
        if old.phase in ("Succeeded", "Failed"):
            assert status.phase == old.phase
        self.pod = msgspec.structs.replace(self.pod, status=status)
        again = pod_status(self.pod, facts, NODE, self.now)
        assert again.phase == status.phase or status.phase in ("Succeeded", "Failed")
        todo = plan(self.pod, facts, self.now)
        for action in todo.actions:
            self.act(action, facts)
        self.wake_at = todo.wake_at
        return bool(todo.actions)

    def act(self, action: Any, facts: Facts) -> None:
        match action:
            case SetUpSandbox():
                assert self.pod.metadata.deletion_timestamp is None
                assert not any(box.state is SandboxState.READY for box in self.boxes)
                spec = SandboxSpec(name="p", namespace="default", uid="u", attempt=action.attempt)
                ident = f"s{action.attempt}"
                assert all(box.id != ident for box in self.boxes)
                self.boxes.append(SandboxStatus(id=ident, spec=spec, state=SandboxState.READY, created_at=self.now))
            case StopSandbox():
                for run in [run for run in self.runs if run.sandbox_id == action.sandbox_id]:
                    if run.state is ContainerState.RUNNING:
                        self.end(run, 137)
                self.boxes = [
                    msgspec.structs.replace(box, state=SandboxState.NOT_READY) if box.id == action.sandbox_id else box
                    for box in self.boxes
                ]
            case RemoveSandbox():
                inside = [run for run in self.runs if run.sandbox_id == action.sandbox_id]
                assert not any(run.state is ContainerState.RUNNING for run in inside)
                self.runs = [run for run in self.runs if run not in inside]
                self.boxes = [box for box in self.boxes if box.id != action.sandbox_id]
            case RemoveContainer():
                self.runs = [run for run in self.runs if run.id != action.container_id]
                self.live.pop(action.container_id, None)
            case StartContainer():
                self.start(action, facts)
            case RunPreStop():
                self.pre_stop(action)
            case StopContainer():
                self.stop(action)
            case Finish():
                assert not self.runs and not self.boxes
                self.finished = True

    def start(self, action: StartContainer, facts: Facts) -> None:
        role, spec = role_of(self.pod, action.name), self.spec(action.name)
        newest = facts.newest(action.name)
        assert self.pod.metadata.deletion_timestamp is None
        assert self.pod.status.phase not in ("Succeeded", "Failed")
        assert not any(run.name == action.name and run.state is ContainerState.RUNNING for run in self.runs), "twice"
        assert newest is None or action.attempt > newest.attempt or newest.state is ContainerState.CREATED
        box = facts.sandbox
        assert box is not None and box.state is SandboxState.READY
        here = newest is not None and newest.sandbox_id == box.id
        if newest is not None and newest.ended and (here or role is Role.MAIN):
            due = restart_due_at(self.pod, spec, newest, facts)
            assert due is not None and due <= self.now, "restarted, and should not be"
        if role is Role.MAIN and not initialized(self.pod, facts):
            # A sidecar that started once and ended holds nothing back.
            for init in self.pod.spec.init_containers:
                last = facts.newest(init.name)
                assert last is not None and last.sandbox_id == box.id
                assert role_of(self.pod, init.name) is Role.SIDECAR or (last.ended and last.exit_code == 0)
        self.starts.append((self.now, action.name))
        ident = f"{action.name}-{action.attempt}-{len(self.starts)}"
        does = self.behaviours[action.name]
        self.runs.append(
            Container(
                action.name,
                ident,
                box.id,
                action.attempt,
                ContainerState.RUNNING,
                started_at=self.now,
                level=action.level,
                made_from=spec.image,
            )
        )
        self.ends[ident] = self.now + does.lives
        if spec.lifecycle is not None and spec.lifecycle.post_start is not None:
            self.live[ident] = Live(post_start=Hook.RUNNING)
            self.hooks[ident] = self.now + does.hook

    def pre_stop(self, action: RunPreStop) -> None:
        live = self.live.get(action.container_id, NOTHING)
        assert live.pre_stop in (Hook.NONE, Hook.RUNNING)
        self.live[action.container_id] = live._replace(
            pre_stop=Hook.RUNNING, deadline=action.deadline, again=action.again
        )
        name = next(run.name for run in self.runs if run.id == action.container_id)
        self.hooks[action.container_id] = min(self.now + self.behaviours[name].hook, action.deadline)

    def stop(self, action: StopContainer) -> None:
        run = next(run for run in self.runs if run.id == action.container_id)
        live = self.live.get(run.id, NOTHING)
        assert live.kill_at is None or action.deadline < live.kill_at, "a stop may only be hurried"
        self.hooks.pop(run.id, None)
        obeys = self.now + self.behaviours[run.name].obeys
        self.live[run.id] = live._replace(
            kill_at=action.deadline,
            deadline=min(live.deadline or NEVER, action.deadline),
            again=live.again or action.again,
        )
        self.ends[run.id] = min(self.ends.get(run.id, NEVER), obeys, max(action.deadline, self.now))

    def end(self, run: Container, code: int) -> None:
        self.hooks.pop(run.id, None)
        self.ends.pop(run.id, None)
        ended = run._replace(state=ContainerState.EXITED, exit_code=code, finished_at=self.now)
        self.runs = [ended if one.id == run.id else one for one in self.runs]

    # Time

    def advance(self) -> bool:
        """To the next moment at which something happens by itself; False if nothing ever will."""
        moments = [*self.ends.values(), *self.hooks.values(), *self.probe_moments()]
        if self.wake_at is not None:
            moments.append(self.wake_at)
        future = [moment for moment in moments if moment < NEVER / 2]
        if not future:
            return False
        self.now = max(min(future), self.now)
        for ident, at in list(self.hooks.items()):
            if at <= self.now:
                self.hook_ends(ident)
        for run in list(self.runs):
            if run.state is ContainerState.RUNNING and self.ends.get(run.id, NEVER) <= self.now:
                killed = self.live.get(run.id, NOTHING).kill_at is not None
                self.end(run, 143 if killed else self.behaviours[run.name].code)
        self.probe()
        return True

    def hook_ends(self, ident: str) -> None:
        del self.hooks[ident]
        live = self.live[ident]
        name = next(run.name for run in self.runs if run.id == ident)
        state = Hook.FAILED if self.behaviours[name].hook_fails else Hook.DONE
        if live.pre_stop is Hook.RUNNING:
            self.live[ident] = live._replace(pre_stop=state)
        else:
            self.live[ident] = live._replace(post_start=state)

    def probe_moments(self) -> list[float]:
        found = []
        for run in self.runs:
            if run.state is ContainerState.RUNNING:
                does, spec = self.behaviours[run.name], self.spec(run.name)
                for at in (does.starts_up if does.starts_up < NEVER else 3.0, does.unhealthy_after):
                    moment = run.started_at + at
                    if moment > self.now and (spec.startup_probe or spec.liveness_probe):
                        found.append(moment)
        return found

    def probe(self) -> None:
        for run in self.runs:
            if run.state is not ContainerState.RUNNING:
                continue
            does, spec, live = self.behaviours[run.name], self.spec(run.name), self.live.get(run.id, NOTHING)
            age = self.now - run.started_at
            if spec.startup_probe is not None:
                if does.starts_up >= NEVER:
                    live = live._replace(started=False, unhealthy="startup" if age >= 3 else "")
                else:
                    live = live._replace(started=age >= does.starts_up)
            if spec.liveness_probe is not None and age >= does.unhealthy_after and live.started is not False:
                live = live._replace(unhealthy="liveness")
            if spec.readiness_probe is not None:
                live = live._replace(ready=True)
            self.live[run.id] = live

    def settle(self) -> None:
        """Rounds at one moment, until there is nothing to do."""
        for _ in range(60):
            self.probe()
            if not self.step() or self.finished:
                return
        raise AssertionError(f"the plan does not converge: {plan(self.pod, self.facts(), self.now)}")

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(400):
            self.settle()
            if self.finished or self.now >= until or not self.advance():
                return


PROBE = Probe(exec=ExecAction(command=("x",)), period_seconds=1, failure_threshold=3, success_threshold=1)
behaviours = st.builds(
    Behaviour,
    lives=st.sampled_from([0.0, 1.0, 5.0, 700.0, NEVER]),
    code=st.sampled_from([0, 1, 42]),
    obeys=st.sampled_from([0.0, 3.0, NEVER]),
    hook=st.sampled_from([0.0, 2.0, 100.0]),
    hook_fails=st.booleans(),
    starts_up=st.sampled_from([0.0, 2.0, NEVER]),
    unhealthy_after=st.sampled_from([4.0, NEVER, NEVER]),
)
RULE = ContainerRestartRule(action="Restart", exit_codes=ContainerRestartRuleOnExitCodes(operator="In", values=(42,)))


@st.composite
def specs(draw: st.DrawFn, name: str, role: Role) -> Spec:
    fields: dict[str, Any] = {"name": name, "image": "i"}
    if role is Role.EPHEMERAL:
        return EphemeralContainer(**fields)
    if role is Role.SIDECAR:
        fields["restart_policy"] = "Always"
    elif draw(st.booleans()):
        fields["restart_policy"] = draw(st.sampled_from(["Never", "OnFailure"]))
        fields["restart_policy_rules"] = draw(st.sampled_from([(), (RULE,)]))
    if role is not Role.INIT:
        hooks = draw(st.tuples(st.booleans(), st.booleans()))
        fields["lifecycle"] = Lifecycle(post_start=HOOK if hooks[0] else None, pre_stop=HOOK if hooks[1] else None)
        for kind in ("startup_probe", "liveness_probe", "readiness_probe"):
            if draw(st.booleans()):
                fields[kind] = PROBE
    return Spec(**fields)


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    inits = [
        draw(specs(f"i{index}", role))
        for index, role in enumerate(draw(st.lists(st.sampled_from([Role.INIT, Role.SIDECAR]), max_size=3)))
    ]
    mains = [draw(specs(f"m{index}", Role.MAIN)) for index in range(draw(st.integers(1, 3)))]
    debuggers = [draw(specs("e0", Role.EPHEMERAL))] if draw(st.booleans()) else []
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default", uid="u", generation=1),
        spec=PodSpec(
            init_containers=tuple(inits),
            containers=tuple(mains),
            ephemeral_containers=tuple(debuggers),  # type: ignore[arg-type]
            restart_policy=draw(st.sampled_from(["Always", "OnFailure", "Never"])),
            termination_grace_period_seconds=GRACE,
            active_deadline_seconds=draw(st.sampled_from([None, None, None, 30])),
        ),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A Pod and any state of the machine that could be found."""
    pod = draw(pods())
    does = {spec.name: draw(behaviours) for _, spec in containers(pod)}
    machine = Machine(pod, does)
    for attempt in range(draw(st.integers(0, 2))):
        state = draw(st.sampled_from([SandboxState.READY, SandboxState.NOT_READY]))
        spec = SandboxSpec(name="p", namespace="default", uid="u", attempt=attempt)
        machine.boxes = [msgspec.structs.replace(box, state=SandboxState.NOT_READY) for box in machine.boxes]
        machine.boxes.append(SandboxStatus(id=f"s{attempt}", spec=spec, state=state, created_at=START - 9))
    for role, one in containers(pod):
        if not machine.boxes or draw(st.booleans()):
            continue
        for attempt in range(draw(st.integers(1, 3))):
            box = draw(st.sampled_from(machine.boxes))
            newest = box is machine.boxes[-1] and attempt == 2
            state = ContainerState.EXITED
            if newest and role is not Role.EPHEMERAL:
                state = draw(st.sampled_from(list(ContainerState)))
            running = state is ContainerState.RUNNING
            run = Container(
                one.name,
                f"{one.name}-{attempt}",
                box.id,
                attempt,
                state,
                started_at=START - 8,
                finished_at=0.0 if running else START - draw(st.sampled_from([0.0, 7.0])),
                exit_code=draw(st.sampled_from([0, 1, 42])),
                level=draw(st.integers(0, 7)),
                made_from=draw(st.sampled_from(["", "i", "old"])),
            )
            machine.runs.append(run)
            if running:
                machine.ends[run.id] = START + does[one.name].lives
    return machine


CHECKED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@CHECKED
@given(machines())
def test_from_any_state_the_plan_converges(machine: Machine) -> None:
    machine.run(3000)
    facts = machine.facts()
    if machine.pod.status.phase in ("Succeeded", "Failed"):
        assert not any(run.state is ContainerState.RUNNING for run in machine.runs)
        assert not any(box.state is SandboxState.READY for box in machine.boxes)
    names = [run.name for run in machine.runs if run.state is ContainerState.RUNNING]
    assert len(names) == len(set(names))
    assert all(len(runs) <= 4 for runs in facts.containers.values())


@CHECKED
@given(machines(), st.sampled_from([0.0, 1.0, 4.0, 50.0]), st.sampled_from([0, 1, 20]))
def test_deletion_always_ends(machine: Machine, after: float, grace: int) -> None:
    machine.run(after)
    asked = machine.now
    metadata = msgspec.structs.replace(
        machine.pod.metadata,
        deletion_timestamp=format_time(asked + grace),
        deletion_grace_period_seconds=grace,
    )
    machine.pod = msgspec.structs.replace(machine.pod, metadata=metadata)
    begun = len(machine.starts)
    machine.run(10_000)
    assert machine.finished
    assert len(machine.starts) == begun
    # One second is what the API's times lack; then a second for each sidecar whose turn comes after the deadline.
    late = 2 + sum(role is Role.SIDECAR for role, _ in containers(machine.pod))
    assert machine.now <= asked + grace + late + (0 if grace else 1)


@CHECKED
@given(machines())
def test_containers_that_end_well_and_never_restart_make_the_pod_end(machine: Machine) -> None:
    machine.boxes, machine.runs, machine.ends = [], [], {}
    plain = [
        msgspec.structs.replace(spec, restart_policy=None, restart_policy_rules=(), liveness_probe=None)
        for spec in machine.pod.spec.containers
    ]
    inits = [
        spec if role is Role.SIDECAR else msgspec.structs.replace(spec, restart_policy=None, restart_policy_rules=())
        for role, spec in containers(machine.pod)
        if role in (Role.INIT, Role.SIDECAR)
    ]
    changed = msgspec.structs.replace(
        machine.pod.spec,
        containers=tuple(plain),
        init_containers=tuple(inits),
        restart_policy="Never",
        active_deadline_seconds=None,
    )
    machine.pod = msgspec.structs.replace(machine.pod, spec=changed)
    for role, spec in containers(machine.pod):
        lives = NEVER if role is Role.SIDECAR else 5.0
        machine.behaviours[spec.name] = Behaviour(lives=lives, obeys=1.0, hook=1.0)
    machine.run(3000)
    assert machine.pod.status.phase == "Succeeded"
    order = [name for _, name in machine.starts if name != "e0"]
    assert order == sorted(order, key=lambda name: (name[0] == "m", name)), "not in the order of the spec"
    assert len(order) == len(set(order)), "something was started twice"
