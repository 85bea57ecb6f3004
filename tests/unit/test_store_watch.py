"""Watches: order, selectors, expiry, bounds, bookmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from podrt.errors import ExpiredError, InvalidError, MalformedError
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod
from podrt.store.store import Store
from podrt.store.watch import BOOKMARK, Watcher


def pod(name: str, namespace: str = "default", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db", window=5, queue_size=3)
    yield store
    store.close()


def drain(watcher: Watcher) -> list[tuple[str, str, int]]:
    found = []
    while (event := watcher.get_nowait()) is not None:
        metadata = event.object.metadata
        found.append((event.type, metadata.name, int(metadata.resource_version)))
    return found


def test_from_nothing_it_starts_with_what_is_there(store: Store) -> None:
    store.create(pod("a"))
    store.create(pod("b", "other"))
    watcher = store.watch(Pod)
    store.create(pod("c"))
    assert drain(watcher) == [("ADDED", "a", 1), ("ADDED", "b", 2), ("ADDED", "c", 3)]


def test_from_a_revision_it_goes_on_after_it(store: Store) -> None:
    store.create(pod("a"))
    since = store.list(Pod).revision
    store.update(pod("a", x="1"))
    store.delete(Pod, "default", "a")
    watcher = store.watch("pods", since=str(since))
    store.create(pod("b"))
    assert drain(watcher) == [("MODIFIED", "a", 2), ("DELETED", "a", 3), ("ADDED", "b", 4)]
    assert drain(store.watch("pods", since=store.revision)) == []


def test_other_kinds_and_namespaces_are_not_its_business(store: Store) -> None:
    watcher = store.watch("pods", "default", since=store.revision)
    events = store.watch("events", since=store.revision)
    store.create(pod("a", "other"))
    store.create(pod("b"))
    assert drain(watcher) == [("ADDED", "b", 2)]
    assert drain(events) == []


def test_objects_that_come_to_match_are_added_and_that_cease_to_are_deleted(store: Store) -> None:
    watcher = store.watch("pods", since=store.revision, label_selector="app=web")
    store.create(pod("a"))
    store.update(pod("a", app="web"))
    store.update(pod("a", app="web", more="x"))
    event = drain(watcher)
    store.update(pod("a", app="api"))
    last = watcher.get_nowait()
    store.delete(Pod, "default", "a")
    assert event == [("ADDED", "a", 2), ("MODIFIED", "a", 3)]
    assert last is not None and last.type == "DELETED"
    # The last state that matched, at the revision at which it ceased to.
    assert last.object.metadata.labels == {"app": "web", "more": "x"}
    assert last.object.metadata.resource_version == "4"
    assert drain(watcher) == []


def test_field_selectors_follow_the_same_rule(store: Store) -> None:
    watcher = store.watch("pods", since=store.revision, field_selector="status.phase=Running")
    created = store.create(pod("a"))
    running = store.update(replace(created, status=replace(created.status, phase="Running")))
    store.update(replace(running, status=replace(running.status, phase="Failed")))
    assert drain(watcher) == [("ADDED", "a", 2), ("DELETED", "a", 3)]


def test_too_old_and_future_revisions_are_expired(store: Store) -> None:
    for number in range(7):
        store.create(pod(f"p{number}"))
    with pytest.raises(ExpiredError, match="too old resource version: 1"):
        store.watch("pods", since=1)
    assert len(drain(store.watch("pods", since=2))) == 5
    with pytest.raises(ExpiredError, match="newer"):
        store.watch("pods", since=99)
    # Another kind's history is not pushed out by this one's.
    assert drain(store.watch("nodes", since=1)) == []
    assert store.watchers() == 2


@pytest.mark.parametrize("since", ["abc", "1.5", "-1", " 1", "9" * 30])
def test_revisions_that_are_none(store: Store, since: str) -> None:
    with pytest.raises(InvalidError, match="resourceVersion"):
        store.watch("pods", since=since)


def test_history_does_not_outlive_the_daemon(store: Store, tmp_path: Path) -> None:
    store.create(pod("a"))
    store.create(pod("b"))
    store.close()
    again = Store(tmp_path / "store.db")
    with pytest.raises(ExpiredError):
        again.watch("pods", since=1)
    watcher = again.watch("pods", since=2)
    again.create(pod("c"))
    assert drain(watcher) == [("ADDED", "c", 3)]
    again.close()


def test_a_bad_selector_is_refused_and_leaves_no_watch(store: Store) -> None:
    with pytest.raises(MalformedError):
        store.watch("pods", label_selector="a in")
    assert store.watchers() == 0


def test_a_slow_watcher_is_cut_off(store: Store) -> None:
    slow = store.watch("pods", since=store.revision)
    quick = store.watch("pods", since=store.revision)
    for number in range(4):
        store.create(pod(f"p{number}"))
        assert len(drain(quick)) == 1
    with pytest.raises(ExpiredError, match="too far behind"):
        slow.get_nowait()
    assert store.watchers() == 1


def test_what_is_there_at_the_start_does_not_cut_it_off(store: Store) -> None:
    for number in range(10):
        store.create(pod(f"p{number}"))
    watcher = store.watch("pods")
    store.create(pod("x"))
    assert len(drain(watcher)) == 11


async def test_iteration_waits_and_ends_with_close(store: Store) -> None:
    watcher = store.watch("pods", since=store.revision)
    seen: list[str] = []

    async def follow() -> None:
        async for event in watcher:
            seen.append(event.object.metadata.name)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    store.create(pod("a"))
    store.create(pod("b"))
    await asyncio.sleep(0.01)
    assert seen == ["a", "b"]
    watcher.close()
    await asyncio.wait_for(task, 1)
    assert store.watchers() == 0


async def test_iteration_raises_when_cut_off(store: Store) -> None:
    with store.watch("pods", since=store.revision) as watcher:
        for number in range(4):
            store.create(pod(f"p{number}"))
        with pytest.raises(ExpiredError):
            await watcher.get()


async def test_bookmarks_when_idle(store: Store) -> None:
    with store.watch("pods", since=store.revision, bookmark_interval=0.01, label_selector="a=b") as watcher:
        store.create(pod("a"))
        event = await asyncio.wait_for(watcher.get(), 1)
        assert event is not None
        assert event.type == BOOKMARK
        assert event.object == Pod(metadata=ObjectMeta(resource_version="1"))
        store.create(pod("b", a="b"))
        event = await asyncio.wait_for(watcher.get(), 1)
        assert event is not None and event.type == "ADDED"


async def test_no_bookmark_overtakes_an_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that comes after the timer went off, but before the task runs, is given before any bookmark."""

    async def too_late(waiting: Coroutine[object, object, bool], timeout: float | None) -> None:
        waiting.close()
        store.create(pod("a"))
        raise TimeoutError

    with store.watch("pods", since=store.revision, bookmark_interval=1) as watcher:
        monkeypatch.setattr(asyncio, "wait_for", too_late)
        event = await watcher.get()
        assert event is not None and event.type == "ADDED"


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "delete"]), st.sampled_from(["x", "y"])), max_size=25
)


@given(STEPS, st.integers(0, 25))
def test_list_then_watch_gives_the_same_as_list(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]], start: int
) -> None:
    """Whoever lists at some moment and follows from there has, at the end, what a list gives at the end."""
    store = Store(tmp_path_factory.mktemp("watch") / "store.db", window=100, queue_size=100)
    watcher: Watcher | None = None
    known: dict[str, str] = {}
    for index, (name, action, label) in enumerate(steps):
        if index == start:
            listing = store.list(Pod, "default", "l=x")
            known = {item.metadata.name: item.metadata.resource_version for item in listing.items}
            if listing.revision:
                watcher = store.watch(Pod, "default", listing.revision, "l=x")
        old = store.find(Pod, "default", name)
        if action == "put":
            if old is None:
                store.create(pod(name, l=label))
            else:
                store.update(pod(name, l=label))
        elif old is not None:
            store.delete(Pod, "default", name)
    if watcher is not None:
        while (event := watcher.get_nowait()) is not None:
            name, revision = event.object.metadata.name, event.object.metadata.resource_version
            if event.type == "DELETED":
                assert name in known
                del known[name]
            else:
                assert (event.type == "ADDED") == (name not in known)
                known[name] = revision
        found = store.list(Pod, "default", "l=x").items
        assert known == {item.metadata.name: item.metadata.resource_version for item in found}
    store.close()
