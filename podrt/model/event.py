"""Event (core/v1), in the shape that ``kubectl describe`` and ``kubectl events`` read."""

from __future__ import annotations

from podrt.model.base import Int32, MicroTime, Struct, Time, always, made
from podrt.model.meta import ListMeta, ObjectMeta


class ObjectReference(Struct, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""
    """For an event about a container: ``spec.containers{name}``."""


class EventSource(Struct, frozen=True, kw_only=True):
    component: str = ""
    host: str = ""


class EventSeries(Struct, frozen=True, kw_only=True):
    count: Int32 = 0
    last_observed_time: MicroTime | None = None


class Event(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("Event")
    metadata: ObjectMeta = made(ObjectMeta)
    involved_object: ObjectReference = made(ObjectReference)
    reason: str = ""
    message: str = ""
    source: EventSource = made(EventSource)
    first_timestamp: Time | None = always(None)
    last_timestamp: Time | None = always(None)
    count: Int32 = 0
    type: str = ""
    """Normal or Warning."""
    event_time: MicroTime | None = always(None)
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = always("")
    reporting_instance: str = always("")


class EventList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("EventList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Event, ...] = always(())
