"""The stream of events: what is told, to whom, and what comes along."""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, container, sandbox
from tests.framework.daemon import Daemon
from tests.framework.patience import scaled
from tests.framework.pods import pod

CREATED, STARTED = api.CONTAINER_CREATED_EVENT, api.CONTAINER_STARTED_EVENT
STOPPED, DELETED = api.CONTAINER_STOPPED_EVENT, api.CONTAINER_DELETED_EVENT


class Listener:
    """A subscription, read by a thread of its own."""

    def __init__(self, cri: CriClient) -> None:
        self.call = cri.runtime.GetContainerEvents(api.GetEventsRequest(), wait_for_ready=True)
        self.events: queue.Queue[Any] = queue.Queue()
        self.ended: list[grpc.StatusCode] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for event in self.call:
                self.events.put(event)
        except grpc.RpcError as error:
            self.ended.append(error.code())

    def take(self, count: int) -> list[Any]:
        return [self.events.get(timeout=scaled(20)) for _ in range(count)]

    def drop_until_deleted(self, box: str) -> bool:
        """Drop what is there up to the end of sandbox ``box``; False if that is not told soon."""
        try:
            while told([self.events.get(timeout=scaled(0.5))]) != [(box, DELETED)]:
                pass
        except queue.Empty:
            return False
        return True


def listen(cri: CriClient, count: int = 1) -> list[Listener]:
    """Subscriptions that are there: sandboxes are made until all of them tell of one and the same."""
    listeners = [Listener(cri) for _ in range(count)]
    while True:
        box = cri.run_sandbox()
        cri.remove_sandbox(box)
        heard = [listener.drop_until_deleted(box) for listener in listeners]
        if all(heard):
            return listeners


def told(events: list[Any]) -> list[tuple[str, int]]:
    return [(one.container_id, one.container_event_type) for one in events]


def test_a_life_as_events(cri: CriClient, shared_daemon: Daemon) -> None:
    listeners = listen(cri, 2)
    shared_daemon.apply(pod("other"))  # of the API: nothing of it is told
    shared_daemon.wait_for("other", "Running")
    config = sandbox("told", labels={"a": "b"})
    box = cri.run_sandbox(config)
    unit = cri.run(box, config, container(command=("sh", "-c", "exit 3")))
    for listener in listeners:
        events = listener.take(5)
        assert told(events) == [(box, CREATED), (box, STARTED), (unit, CREATED), (unit, STARTED), (unit, STOPPED)]
        assert all(event.pod_sandbox_status.metadata == config.metadata for event in events)
        assert all(event.created_at > 0 for event in events)
        [status] = events[-1].containers_statuses
        assert (status.id, status.state, status.exit_code) == (unit, api.CONTAINER_EXITED, 3)
        assert events[0].pod_sandbox_status.state == api.SANDBOX_READY and not events[0].containers_statuses
    listeners[0].call.cancel()
    cri.remove(unit)
    cri.stop_sandbox(box)
    cri.remove_sandbox(box)
    events = listeners[1].take(3)
    assert told(events) == [(unit, DELETED), (box, STOPPED), (box, DELETED)]
    assert events[1].pod_sandbox_status.state == events[2].pod_sandbox_status.state == api.SANDBOX_NOTREADY
    assert events[2].pod_sandbox_status.metadata == config.metadata
    shared_daemon.delete("other", grace=0)
    assert listeners[0].ended == [grpc.StatusCode.CANCELLED]

    shared_daemon.restart()
    listeners[1].thread.join(scaled(20))
    assert not listeners[1].thread.is_alive()


def test_what_was_there_before_the_daemon_is_told_when_it_goes(cri: CriClient, shared_daemon: Daemon) -> None:
    config = sandbox("before")
    box = cri.run_sandbox(config)
    shared_daemon.restart()
    [listener] = listen(cri)
    cri.remove_sandbox(box)
    [event] = listener.take(1)
    assert told([event]) == [(box, DELETED)]
    assert event.pod_sandbox_status.metadata == config.metadata
