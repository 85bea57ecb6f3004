"""Records on disk, and the transition tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from podrt.engine import records, transitions
from podrt.engine.records import Command, ContainerRecord, Phase, Process, SandboxRecord
from podrt.engine.specs import ContainerSpec, ContainerState, Resources, SandboxSpec, SandboxState
from podrt.errors import ConflictError, InvalidError

SANDBOX = SandboxRecord(
    id="a" * 64,
    spec=SandboxSpec(name="p", namespace="n", uid="u", sysctls={"net.x": "1"}),
    phase=Phase.CREATED,
    created_at=1.5,
    cgroup="/podrt/podu",
    namespaces={"net": "/run/netns/podrt-aaaaaaaaaaaa"},
    ips=("10.0.0.2", "fd00::2"),
    pause=Process(pid=7, start_time=8, boot_id="b"),
)
CONTAINER = ContainerRecord(
    id="b" * 64,
    sandbox_id="a" * 64,
    spec=ContainerSpec(name="c", image="i", env=(("A", "b"),), resources=Resources(memory_limit=5)),
    phase=Phase.CREATED,
    created_at=2.5,
    cgroup="/podrt/podu/c",
    image_id="sha256:1",
    image_ref="i",
    layers=("/l",),
    command=Command(argv=("x",), env=("A=b",), cwd="/", user="0", stop_signal="SIGTERM"),
)


def test_round_trip(tmp_path: Path) -> None:
    for record in (SANDBOX, CONTAINER):
        directory = tmp_path / record.id
        directory.mkdir()
        records.save(directory, record)
        assert records.load(directory, type(record)) == record
        assert [path.name for path in directory.iterdir()] == [records.FILE_NAME]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken record"),
        (b"{", "broken record"),
        (b"\xff\xfe", "broken record"),
        (b'{"version":2,"record":{}}', "version 2"),
        (b'{"version":1,"record":{}}', "missing required field"),
        (b'{"version":1,"record":[]}', "broken record"),
    ],
)
def test_broken_records_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    directory = tmp_path / SANDBOX.id
    directory.mkdir()
    (directory / records.FILE_NAME).write_bytes(content)
    with pytest.raises(InvalidError, match=message) as caught:
        records.load(directory, SandboxRecord)
    assert str(directory) in str(caught.value)


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / SANDBOX.id
    directory.mkdir()
    records.save(directory, SANDBOX)
    path = directory / records.FILE_NAME
    document = json.loads(path.read_text())
    document["record"]["spec"]["surprise"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidError, match="surprise"):
        records.load(directory, SandboxRecord)


def test_a_record_in_the_wrong_directory_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("c" * 64)
    directory.mkdir()
    records.save(directory, SANDBOX)
    with pytest.raises(InvalidError, match="in the directory of cccc"):
        records.load(directory, SandboxRecord)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        records.load(tmp_path, SandboxRecord)


def test_status_of_a_sandbox() -> None:
    status = SANDBOX.status()
    assert (status.state, status.netns, status.ips) == (SandboxState.READY, SANDBOX.namespaces["net"], SANDBOX.ips)
    assert status.pause_pid == 7


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (Phase.CREATING, ContainerState.CREATED),
        (Phase.CREATED, ContainerState.CREATED),
        (Phase.RUNNING, ContainerState.RUNNING),
        (Phase.EXITED, ContainerState.EXITED),
        (Phase.REMOVING, ContainerState.EXITED),
    ],
)
def test_status_of_a_container(phase: Phase, state: ContainerState) -> None:
    process = Process(pid=7, start_time=8, boot_id="b")
    fields = {name: getattr(CONTAINER, name) for name in CONTAINER.__struct_fields__}
    record = ContainerRecord(**(fields | {"phase": phase, "process": process}))
    assert record.status().state is state
    assert record.status().pid == (7 if phase is Phase.RUNNING else 0)


ALLOWED = {
    (Phase.CREATING, Phase.CREATED),
    (Phase.CREATING, Phase.REMOVING),
    (Phase.CREATED, Phase.RUNNING),
    (Phase.CREATED, Phase.EXITED),
    (Phase.CREATED, Phase.REMOVING),
    (Phase.RUNNING, Phase.EXITED),
    (Phase.EXITED, Phase.REMOVING),
}


@pytest.mark.parametrize(("start", "end"), list(itertools.permutations(Phase, 2)))
def test_container_transitions(start: Phase, end: Phase) -> None:
    fields = {name: getattr(CONTAINER, name) for name in CONTAINER.__struct_fields__}
    record = ContainerRecord(**(fields | {"phase": start}))
    if (start, end) in ALLOWED:
        transitions.check(record, end)
    else:
        with pytest.raises(ConflictError, match=f"container c \\(b{{12}}\\) cannot go from {start} to {end}"):
            transitions.check(record, end)


def test_sandbox_transitions() -> None:
    transitions.check(SANDBOX, Phase.EXITED)
    with pytest.raises(ConflictError, match=r"sandbox p \(a{12}\) cannot go from created to running"):
        transitions.check(SANDBOX, Phase.RUNNING)
