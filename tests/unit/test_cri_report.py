"""What a kubelet is told: the engine's statuses as messages, whose is what, names that are taken, errors as codes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from cri_api.v1 import api_pb2 as api
from msgspec.structs import replace

from podrt import errors as podrt_errors
from podrt.cri import errors, names, report
from podrt.cri.events import Events
from podrt.cri.own import Own
from podrt.engine.events import EventBus
from podrt.engine.specs import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    EngineEvent,
    EventKind,
    IdMap,
    Mount,
    NamespaceMode,
    Propagation,
    Resources,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
)
from podrt.errors import AlreadyExistsError, InvalidError, NotFoundError, PodrtError, UnavailableError

SPEC = SandboxSpec(name="p", namespace="n", uid="u", attempt=1, labels={"a": "b"}, owner="cri")
BOX = SandboxStatus(
    id="b" * 64, spec=SPEC, state=SandboxState.READY, created_at=1_700_000_000.5, ips=("10.0.0.2", "fd00::2")
)
UNIT = ContainerStatus(
    id="c" * 64,
    sandbox_id=BOX.id,
    spec=ContainerSpec(name="main", attempt=2, image="sha256:1", user_image="nginx", labels={"x": "y"}),
    state=ContainerState.RUNNING,
    image_id="sha256:1",
    image_ref="docker.io/library/nginx@sha256:2",
    created_at=1.25,
    started_at=2.5,
    uid=7,
    gid=8,
    groups=(8, 9),
    stop_signal="SIGQUIT",
)


def name(status: ContainerStatus) -> str:
    return report.image_name(("docker.io/library/a:1", "docker.io/library/nginx:latest"), status)


# -- messages


def test_a_sandbox() -> None:
    found = report.sandbox_status(BOX)
    assert (found.id, found.state, found.created_at) == (BOX.id, api.SANDBOX_READY, 1_700_000_000_500_000_000)
    assert (found.metadata.name, found.metadata.namespace, found.metadata.uid, found.metadata.attempt) == (
        "p",
        "n",
        "u",
        1,
    )
    assert (found.network.ip, [one.ip for one in found.network.additional_ips]) == ("10.0.0.2", ["fd00::2"])
    assert not found.linux.namespaces.options.HasField("userns_options")


@pytest.mark.parametrize("state", [SandboxState.NOT_READY, SandboxState.CREATING])
def test_a_sandbox_that_is_not_ready_has_no_address(state: SandboxState) -> None:
    found = report.sandbox_status(replace(BOX, state=state))
    assert (found.state, found.network.ip, list(found.network.additional_ips)) == (api.SANDBOX_NOTREADY, "", [])


def test_the_namespaces_of_a_sandbox() -> None:
    maps = (IdMap(inside=0, outside=5, count=6),)
    spec = replace(SPEC, pid=NamespaceMode.POD, ipc=NamespaceMode.NODE, uid_maps=maps, gid_maps=maps)
    options = report.sandbox_status(replace(BOX, spec=spec)).linux.namespaces.options
    assert (options.network, options.pid, options.ipc) == (api.POD, api.POD, api.NODE)
    assert options.userns_options.mode == api.POD
    assert list(options.userns_options.uids) == [api.IDMapping(host_id=5, container_id=0, length=6)]


def test_a_container() -> None:
    found = report.container_status(UNIT, name)
    assert (found.metadata.name, found.metadata.attempt, found.state) == ("main", 2, api.CONTAINER_RUNNING)
    assert (found.created_at, found.started_at, found.finished_at) == (1_250_000_000, 2_500_000_000, 0)
    assert (found.image.image, found.image.user_specified_image) == ("docker.io/library/nginx:latest", "nginx")
    assert (found.image_id, found.image_ref) == ("sha256:1", "docker.io/library/nginx@sha256:2")
    assert (found.user.linux.uid, found.user.linux.gid, list(found.user.linux.supplemental_groups)) == (7, 8, [8, 9])
    assert found.stop_signal == api.SIGQUIT
    assert not report.container_status(replace(UNIT, uid=None), name).HasField("user")


@pytest.mark.parametrize(
    ("user", "image", "wanted"),
    [
        ("nginx", "sha256:1", "docker.io/library/nginx:latest"),
        ("", "docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
        ("other", "sha256:1", "docker.io/library/a:1"),
        ("NOT/A:NAME", "sha256:1", "docker.io/library/a:1"),
    ],
)
def test_what_an_image_is_called(user: str, image: str, wanted: str) -> None:
    status = replace(UNIT, spec=replace(UNIT.spec, user_image=user, image=image))
    assert name(status) == wanted
    assert report.image_name((), status) == image


def test_mounts_and_limits_come_back() -> None:
    limits = Resources(cpu_quota=5, cpu_shares=6, memory_limit=7, memory_swap=8, cpuset_cpus="0", unified={"a": "b"})
    mounts = (
        Mount(source="/h", destination="/c", read_only=True, propagation=Propagation.HOST_TO_CONTAINER),
        Mount(source="", image="busybox", image_path="bin", destination="/i", read_only=True),
    )
    status = replace(UNIT, spec=replace(UNIT.spec, resources=limits, mounts=mounts, oom_score_adj=-9))
    found = report.container_status(status, name)
    assert list(found.mounts) == [
        api.Mount(
            host_path="/h",
            container_path="/c",
            readonly=True,
            propagation=api.PROPAGATION_HOST_TO_CONTAINER,
        ),
        api.Mount(container_path="/i", readonly=True, image=api.ImageSpec(image="busybox"), image_sub_path="bin"),
    ]
    assert found.resources.linux == api.LinuxContainerResources(
        cpu_period=100_000,
        cpu_quota=5,
        cpu_shares=6,
        memory_limit_in_bytes=7,
        memory_swap_limit_in_bytes=8,
        cpuset_cpus="0",
        unified={"a": "b"},
        oom_score_adj=-9,
    )


# -- whose is what


class Engine:
    """Its lists, and a bus of events."""

    def __init__(self, *boxes: SandboxStatus, units: tuple[ContainerStatus, ...] = ()) -> None:
        self.boxes = {box.id: box for box in boxes}
        self.units = {unit.id: unit for unit in units}
        self.bus = EventBus()
        self.subscribe, self.unsubscribe = self.bus.subscribe, self.bus.unsubscribe

    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        return list(self.boxes.values())

    def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return [unit for unit in self.units.values() if sandbox_id in ("", unit.sandbox_id)]

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        if sandbox_id not in self.boxes:
            raise NotFoundError(f"sandbox {sandbox_id!r} does not exist")
        return self.boxes[sandbox_id]

    def container_status(self, container_id: str) -> ContainerStatus:
        if container_id not in self.units:
            raise NotFoundError(f"container {container_id!r} does not exist")
        return self.units[container_id]


def own(engine: Engine) -> Own:
    return Own(engine)  # type: ignore[arg-type]


FOREIGN = replace(BOX, id="f" * 64, spec=replace(SPEC, owner=""))
FOREIGN_UNIT = replace(UNIT, id="e" * 64, sandbox_id=FOREIGN.id)
MAKING = replace(BOX, id="d" * 64, state=SandboxState.CREATING)


def test_only_its_own() -> None:
    found = own(Engine(BOX, FOREIGN, MAKING, units=(UNIT, FOREIGN_UNIT)))
    assert found.sandboxes() == [BOX]
    assert found.containers() == [UNIT]
    assert found.containers(FOREIGN.id) == []
    assert found.sandbox(BOX.id) == found.sandbox("bb") == BOX
    assert found.container(UNIT.id) == found.container("c") == UNIT
    for identity in (FOREIGN.id, "f", "x" * 64):
        with pytest.raises(NotFoundError, match=f"sandbox '{identity}' does not exist"):
            found.sandbox(identity)
    for identity in (FOREIGN_UNIT.id, "e"):
        with pytest.raises(NotFoundError, match=f"container '{identity}' does not exist"):
            found.container(identity)
    with pytest.raises(InvalidError, match="is missing"):
        found.container("")


def test_the_beginning_of_two_ids() -> None:
    found = own(Engine(BOX, replace(BOX, id="b" * 63 + "a")))
    with pytest.raises(InvalidError, match="2 ids begin so"):
        found.sandbox("bbb")


# -- names


def test_a_name_is_taken_while_its_object_is_there() -> None:
    there: set[str] = set()
    known = names.Names("sandbox", there.__contains__)
    with known.reserved("x") as made:
        with pytest.raises(AlreadyExistsError, match="being made"), known.reserved("x"):
            pass
        there.add("1")
        made("1")
    with pytest.raises(AlreadyExistsError, match="by sandbox 1"), known.reserved("x"):
        pass
    there.clear()
    with known.reserved("x"):
        pass  # not made: free again
    with pytest.raises(ValueError, match="failed"), known.reserved("x"):
        raise ValueError("failed")
    known.found("x", "2")
    there.add("2")
    known.forget("x")
    with pytest.raises(AlreadyExistsError), known.reserved("x"):
        pass
    there.clear()
    known.forget("x")
    known.forget("y")
    assert known._ids == {}


def test_names_are_of_all_that_tells_pods_apart() -> None:
    assert names.of_sandbox(SPEC) == "p_n_u_1"
    assert names.of_container(UNIT.spec, SPEC) == "main_p_n_u_2"


# -- errors


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(one for below in kind.__subclasses__() for one in subclasses(below))]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidError("x"), "INVALID_ARGUMENT"),
        (NotFoundError("x"), "NOT_FOUND"),
        (podrt_errors.ConflictError("x"), "FAILED_PRECONDITION"),
        (podrt_errors.DeadlineError("x"), "DEADLINE_EXCEEDED"),
        (podrt_errors.UnsupportedError("x"), "UNIMPLEMENTED"),
        (podrt_errors.LaunchError("exec", 2, "/x", "x"), "UNKNOWN"),
        (OSError(2, "x"), "UNKNOWN"),
        (KeyError("x"), "INTERNAL"),
    ],
)
def test_codes(error: Exception, code: str) -> None:
    assert errors.code_of(error).name == code


def test_no_error_of_podrt_is_a_defect() -> None:
    for kind in subclasses(PodrtError):
        assert errors.code_of(kind.__new__(kind)) is not grpc.StatusCode.INTERNAL


def test_messages() -> None:
    assert errors.message_of(InvalidError("what is wrong")) == "what is wrong"
    assert len(errors.message_of(InvalidError("x" * 10_000))) == 2000
    assert "secret" not in errors.message_of(KeyError("secret"))


# -- events


class Stream:
    def __init__(self, events: Events) -> None:
        self.found: list[Any] = []
        self.error: BaseException | None = None
        self.task = asyncio.create_task(self._read(events))

    async def _read(self, events: Events) -> None:
        try:
            async for event in events.subscribe():
                self.found.append(event)
        except UnavailableError as error:
            self.error = error


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_events_of_others_are_not_told_and_slow_ones_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podrt.cri.events._BACKLOG", 4)
    engine = Engine(BOX, FOREIGN, units=(UNIT,))
    events = Events(engine, own(engine), name)  # type: ignore[arg-type]
    events.start()
    stream = Stream(events)
    await settle()
    engine.bus.send(EventKind.CONTAINER_STARTED, FOREIGN.id, FOREIGN_UNIT.id)
    engine.bus.send(EventKind.WARNING, BOX.id, UNIT.id)
    engine.bus.send(EventKind.CONTAINER_STARTED, BOX.id, UNIT.id, at=3.0)
    await settle()
    [event] = stream.found
    assert (event.container_id, event.container_event_type, event.created_at) == (
        UNIT.id,
        api.CONTAINER_STARTED_EVENT,
        3_000_000_000,
    )
    assert [one.id for one in event.containers_statuses] == [UNIT.id]
    # All of these come before the reader has its turn.
    for _ in range(6):
        events._tell(EngineEvent(kind=EventKind.SANDBOX_STOPPED, sandbox_id=BOX.id, at=1.0))
    await settle()
    assert isinstance(stream.error, UnavailableError) and len(stream.found) == 5
    await events.close()


async def test_a_sandbox_that_is_gone_is_told_as_it_was() -> None:
    engine = Engine(BOX, FOREIGN)
    events = Events(engine, own(engine), name)  # type: ignore[arg-type]
    events.start()
    stream = Stream(events)
    await settle()
    engine.boxes.clear()
    engine.bus.send(EventKind.SANDBOX_DELETED, FOREIGN.id)
    engine.bus.send(EventKind.SANDBOX_DELETED, BOX.id)
    engine.bus.send(EventKind.SANDBOX_DELETED, BOX.id)
    await settle()
    await events.close()
    await stream.task
    [event] = stream.found
    assert event.container_event_type == api.CONTAINER_DELETED_EVENT
    assert (event.pod_sandbox_status.id, event.pod_sandbox_status.state) == (BOX.id, api.SANDBOX_NOTREADY)
