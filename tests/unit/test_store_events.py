"""Events: counting, lifetime, bounds, and that recording never fails its caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from podrt.model.base import format_time
from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.events import NORMAL, WARNING, EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

POD = Pod(metadata=ObjectMeta(name="a", namespace="default", uid="1", resource_version="5"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    Registry(store)
    yield store
    store.close()


def events(store: Store) -> list[Event]:
    return store.list(Event).items


def test_an_event_has_what_describe_shows(store: Store) -> None:
    EventRecorder(store, host="here").record(POD, WARNING, "BackOff", "again", "spec.containers{c}")
    (event,) = events(store)
    assert event.metadata.name.startswith("a.")
    assert event.metadata.namespace == "default"
    assert event.metadata.uid
    about = event.involved_object
    assert (about.kind, about.name, about.uid, about.api_version) == ("Pod", "a", "1", "v1")
    assert about.field_path == "spec.containers{c}"
    assert (event.type, event.reason, event.message, event.count) == ("Warning", "BackOff", "again", 1)
    assert (event.source.component, event.source.host, event.reporting_component) == ("kubelet", "here", "kubelet")
    assert event.first_timestamp == event.last_timestamp


def test_equal_events_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = EventRecorder(store)
    start = time.time()
    for number in range(3):
        monkeypatch.setattr(time, "time", lambda number=number: start + 10 * number)
        recorder.record(POD, NORMAL, "Pulled", "x")
    recorder.record(POD, NORMAL, "Pulled", "y")
    recorder.record(POD, WARNING, "Pulled", "x")
    recorder.record(POD, NORMAL, "Pulled", "x", "spec.containers{c}")
    first, *others = sorted(events(store), key=lambda event: -event.count)
    assert first.count == 3
    assert (first.first_timestamp, first.last_timestamp) == (format_time(start), format_time(start + 20))
    assert [event.count for event in others] == [1, 1, 1]


def test_counting_goes_on_after_a_restart_and_after_a_delete(store: Store, tmp_path: Path) -> None:
    EventRecorder(store).record(POD, NORMAL, "Pulled", "x")
    recorder = EventRecorder(store)
    recorder.record(POD, NORMAL, "Pulled", "x")
    (event,) = events(store)
    assert event.count == 2
    store.delete(Event, "default", event.metadata.name)
    recorder.record(POD, NORMAL, "Pulled", "x")
    assert [event.count for event in events(store)] == [1]


def test_events_of_another_pod_of_the_name_are_not_the_same(store: Store) -> None:
    recorder = EventRecorder(store)
    recorder.record(POD, NORMAL, "Pulled", "x")
    recorder.record(replace(POD, metadata=replace(POD.metadata, uid="2")), NORMAL, "Pulled", "x")
    assert len(events(store)) == 2


def test_old_events_go(store: Store) -> None:
    recorder = EventRecorder(store, ttl=100)
    recorder.record(POD, NORMAL, "Pulled", "x")
    assert recorder.prune(time.time() + 50) == 0
    assert recorder.prune(time.time() + 102) == 1
    assert events(store) == []


def test_there_are_never_too_many(store: Store) -> None:
    recorder = EventRecorder(store, limit=50)
    for number in range(500):
        recorder.record(POD, NORMAL, "Flood", str(number))
        assert len(events(store)) <= 50
    assert any(event.message == "499" for event in events(store))


def test_events_of_objects_without_a_namespace_and_long_messages(store: Store) -> None:
    EventRecorder(store).record(Node(metadata=ObjectMeta(name="n")), NORMAL, "Ready", "x" * 5000)
    (event,) = events(store)
    assert event.metadata.namespace == "default"
    assert len(event.message) == 1024


def test_recording_never_raises(store: Store) -> None:
    recorder = EventRecorder(store)
    recorder.record(replace(POD, metadata=replace(POD.metadata, namespace="gone")), NORMAL, "Pulled", "x")
    space = store.get(Namespace, "", "kube-public")
    deleted = replace(space.metadata, deletion_timestamp="2020-01-01T00:00:00Z", finalizers=("a.b/c",))
    store.update(replace(space, metadata=deleted))
    recorder.record(replace(POD, metadata=replace(POD.metadata, namespace="kube-public")), NORMAL, "Pulled", "x")
    assert events(store) == []
    store.close()
    recorder.record(POD, NORMAL, "Pulled", "x")
    assert events(store) == []
