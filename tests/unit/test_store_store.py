"""The table: revisions, conflicts, what survives a restart, damage, subscribers."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import podrt
from podrt.errors import AlreadyExistsError, ConflictError, MalformedError, NotFoundError, UnavailableError
from podrt.model.container import Container
from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.store.database import Database
from podrt.store.store import Store
from podrt.store.watch import ADDED, DELETED, MODIFIED, Change


def pod(name: str, namespace: str = "default", phase: str = "", **labels: str) -> Pod:
    new = Pod(
        metadata=ObjectMeta(name=name, namespace=namespace, labels=labels),
        spec=PodSpec(containers=(Container(name="c", image="i"),)),
    )
    return replace(new, status=replace(new.status, phase=phase))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


def reopen(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)


def test_every_write_gets_the_next_revision(store: Store) -> None:
    first = store.create(pod("a"))
    second = store.create(pod("b"))
    third = store.update(replace(first, status=replace(first.status, phase="Running")))
    gone = store.delete(Pod, "default", "b")
    assert [int(obj.metadata.resource_version) for obj in (first, second, third, gone)] == [1, 2, 3, 4]
    assert store.revision == 4


def test_a_write_that_changes_nothing_gets_none(store: Store) -> None:
    first = store.create(pod("a"))
    assert store.update(pod("a")) is first
    assert store.revision == 1


def test_what_is_not_there_and_what_is(store: Store) -> None:
    store.create(pod("a"))
    with pytest.raises(AlreadyExistsError, match='pods "a" already exists'):
        store.create(pod("a"))
    calls: list[Callable[[], object]] = [
        lambda: store.get(Pod, "default", "b"),
        lambda: store.update(pod("b")),
        lambda: store.delete(Pod, "default", "b"),
        lambda: store.modify(Pod, "other", "a", lambda old: old),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match="not found"):
            call()
    with pytest.raises(NotFoundError, match="resource type"):
        store.list("gizmos")
    assert store.find(Pod, "default", "b") is None


def test_update_at_an_expected_revision(store: Store) -> None:
    first = store.create(pod("a"))
    second = store.update(pod("a", phase="Running"), first.metadata.resource_version)
    with pytest.raises(ConflictError, match="the object has been modified"):
        store.update(pod("a", phase="Failed"), first.metadata.resource_version)
    assert store.get(Pod, "default", "a") is second
    assert store.update(pod("a", phase="Failed"), "").status.phase == "Failed"


def test_modify_and_renaming(store: Store) -> None:
    store.create(pod("a"))
    changed = store.modify(Pod, "default", "a", lambda old: replace(old, status=replace(old.status, phase="Running")))
    assert store.get("pods", "default", "a") is changed
    with pytest.raises(ConflictError, match="cannot change"):
        store.modify(Pod, "default", "a", lambda old: pod("b"))


def test_list_selects_and_sorts(store: Store) -> None:
    for name, space, phase, app in (
        ("b", "x", "Running", "1"),
        ("a", "x", "Pending", "2"),
        ("c", "default", "Running", "1"),
    ):
        store.create(pod(name, space, phase, app=app))

    def names(*args: str | None) -> list[str]:
        return [found.metadata.name for found in store.list(Pod, *args).items]

    assert names() == ["c", "a", "b"]
    assert names("x") == ["a", "b"]
    assert names("x", "app=1") == ["b"]
    assert names(None, None, "status.phase=Running") == ["c", "b"]
    assert names(None, "app", "status.phase=Pending") == ["a"]
    assert names("nowhere") == []
    assert store.list("pods").revision == 3
    with pytest.raises(MalformedError):
        store.list(Pod, None, "a in (")


def test_everything_survives_a_restart(store: Store, tmp_path: Path) -> None:
    store.create(pod("a", app="x"))
    kept = store.update(pod("a", phase="Running", app="x"))
    store.create(pod("b"))
    store.delete(Pod, "default", "b")
    again = reopen(store, tmp_path / "store.db")
    assert again.get(Pod, "default", "a") == kept
    assert again.count(Pod) == 1
    assert again.revision == 4
    assert again.broken == []
    assert int(again.create(pod("c")).metadata.resource_version) == 5
    again.close()


def test_the_revision_never_goes_back_even_with_nothing_left(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        store.create(pod("a"))
        store.delete(Pod, "default", "a")
        store = reopen(store, tmp_path / "store.db")
        assert store.revision == 2 * (number + 1)
    store.close()


def test_a_write_survives_kill_9(tmp_path: Path) -> None:
    """What create() returned is there after SIGKILL in the next instant, with no close and no checkpoint."""
    script = (
        "import sys, os, pathlib\n"
        "from podrt.store.store import Store\n"
        "from podrt.model.pod import Pod\n"
        "from podrt.model.meta import ObjectMeta\n"
        "store = Store(pathlib.Path(sys.argv[1]))\n"
        "for n in range(50):\n"
        "    store.create(Pod(metadata=ObjectMeta(name=f'p{n}', namespace='default')))\n"
        "store.delete('pods', 'default', 'p0')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "store.db"
    root = str(Path(podrt.__file__).parents[1])
    result = subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": root})
    assert result.returncode == -signal.SIGKILL
    store = Store(path)
    assert (store.count(Pod), store.revision) == (49, 51)
    store.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'{"kind": "Pod"}', b'{"metadata": {"name": "b"}, "unknown": 1}', b'{"spec": 5}', b"null"],
)
def test_a_broken_row_is_set_aside(store: Store, tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.db"
    store.create(pod("a"))
    store.create(pod("b"))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE objects SET data = ? WHERE name = 'b'", (data,))
    connection.close()
    with caplog.at_level(logging.ERROR):
        again = Store(path)
    assert [found.metadata.name for found in again.list(Pod).items] == ["a"]
    assert "pods default/b" in again.broken[0]
    assert "pods default/b" in caplog.text
    assert again.revision == 2
    assert again.create(pod("b")).metadata.resource_version == "3"
    again.close()
    database = Database(path)
    ((_, row),) = database.broken()
    assert (row.name, row.revision, row.data) == ("b", 2, data)
    database.close()


def test_a_row_of_an_unknown_kind_is_set_aside(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO objects VALUES ('gizmos', '', 'x', 7, '{}')")
    connection.close()
    again = Store(path)
    assert len(again.broken) == 1
    assert again.revision == 7
    again.close()


def test_a_file_that_is_no_database_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database" * 1000)
    store = Store(path)
    store.create(pod("a"))
    assert "moved to" in store.broken[0]
    (moved,) = tmp_path.glob("store.db.broken-*")
    assert moved.read_bytes().startswith(b"this is no database")
    store.close()


def test_of_a_damaged_file_what_can_be_read_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.db"
    store = Store(path)
    for number in range(300):
        store.create(pod(f"p{number:03}", text="x" * 60))
    store.close()
    data = bytearray(path.read_bytes())
    # Somewhere in the middle, so that some leaves before it are whole.
    middle = len(data) // 8192 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    again = Store(path)
    assert 0 < again.count(Pod) < 300
    assert again.revision > 300
    assert "damaged" in again.broken[-1]
    assert len(list(tmp_path.glob("store.db.broken-*"))) == 1
    again.create(pod("new"))
    kept = again.count(Pod)
    again.close()
    third = Store(path)
    assert (third.count(Pod), third.broken) == (kept, [])
    third.close()


def test_only_root_can_read_the_file(store: Store, tmp_path: Path) -> None:
    store.create(pod("a"))
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "store.db": 0o600,
        "store.db-wal": 0o600,
        "store.db-shm": 0o600,
    }


def test_a_directory_that_is_missing_or_a_newer_version(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"store\.db"):
        Store(tmp_path / "nowhere" / "store.db")
    path = tmp_path / "store.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UnavailableError, match="version 99"):
        Store(path)


def test_subscribers_are_told_at_once_and_in_order(store: Store) -> None:
    seen: list[tuple[str, str, int]] = []
    subscription = store.subscribe(lambda c: seen.append((c.type, c.object.metadata.name, c.revision)), Pod)
    store.create(pod("a"))
    store.create(Event(metadata=ObjectMeta(name="e", namespace="default")))
    store.update(pod("a", phase="Running"))
    store.delete(Pod, "default", "a")
    assert seen == [(ADDED, "a", 1), (MODIFIED, "a", 3), (DELETED, "a", 4)]
    subscription.close()
    store.create(pod("b"))
    assert len(seen) == 3


def test_a_subscriber_that_writes_or_fails_disturbs_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def write(change: Change) -> None:
        if change.old is None and change.object.metadata.name == "a":
            store.create(pod("b"))

    def fail(change: Change) -> None:
        raise RuntimeError("broken subscriber")

    store.subscribe(write)
    store.subscribe(fail)
    store.subscribe(lambda change: seen.append(change.revision))
    store.create(pod("a"))
    assert seen == [1, 2]
    assert "broken subscriber" in caplog.text


def test_a_failed_write_leaves_cache_and_revision_alone(store: Store) -> None:
    first = store.create(pod("a"))
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.create(pod("b")),
        lambda: store.update(pod("a", phase="Running")),
        lambda: store.delete(Pod, "default", "a"),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match=r"store\.db"):
            call()
    assert store.list(Pod).items == [first]
    assert store.revision == 1


def test_stored_json_is_the_object(store: Store, tmp_path: Path) -> None:
    first = store.create(pod("a"))
    connection = sqlite3.connect(tmp_path / "store.db")
    ((data,),) = connection.execute("SELECT data FROM objects").fetchall()
    connection.close()
    assert msgspec.json.decode(data, type=Pod) == first
