"""What all API structs share: naming, scalar types, times.

Every field has a default, because the Kubernetes API decodes an absent field to its zero value and leaves it to
validation to call it required. A field that Kubernetes always writes, even when it is zero (``ready: false``), has its
default from :func:`always`; all others are left out when they hold their default.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

T = TypeVar("T")

_UPPER = {
    "api": "API",
    "cidr": "CIDR",
    "cidrs": "CIDRs",
    "fqdn": "FQDN",
    "id": "ID",
    "ip": "IP",
    "ipc": "IPC",
    "ips": "IPs",
    "pid": "PID",
    "uuid": "UUID",
    "wwns": "WWNs",
}


def wire_name(attribute: str) -> str:
    """The JSON name of a struct's attribute: ``pod_ips`` -> ``podIPs``, ``continue_`` -> ``continue``."""
    first, *rest = attribute.strip("_").split("_")
    return first + "".join(_UPPER.get(word) or word[:1].upper() + word[1:] for word in rest)


class Struct(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename=wire_name
):
    """Base of all API structs. Subclasses must repeat ``frozen=True, kw_only=True``."""


def always(value: T) -> T:
    """A default that is encoded all the same (msgspec leaves out plain defaults only)."""
    field: T = msgspec.field(default_factory=lambda: value)
    return field


def made(factory: Callable[[], T]) -> T:
    """A default made anew for each object (it may hold dictionaries), and always encoded."""
    field: T = msgspec.field(default_factory=factory)
    return field


Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Quantity = Annotated[str, msgspec.Meta(extra={"scalar": "quantity"})]
"""Text of a resource quantity, canonical once decoded by ``codec``; ``podrt.model.quantity`` calculates with it."""
Time = Annotated[str, msgspec.Meta(extra={"scalar": "time"})]
"""RFC 3339 in UTC with whole seconds: ``2026-01-31T12:00:00Z``."""
MicroTime = Annotated[str, msgspec.Meta(extra={"scalar": "microtime"})]
"""RFC 3339 in UTC with microseconds."""
Base64 = Annotated[str, msgspec.Meta(extra={"scalar": "base64"})]
"""Bytes as base64 text, canonical once decoded by ``codec``. Messages never show it: Secrets are made of it."""
HiddenText = Annotated[str, msgspec.Meta(extra={"scalar": "hidden"})]
"""Text that messages never show."""
IntOrString = int | str
"""A port number or name, a count or a percentage."""
ResourceList = dict[str, Quantity]
"""Resource name (``cpu``, ``memory``, ``ephemeral-storage``, ``hugepages-2Mi``) to quantity."""


def now() -> datetime.datetime:
    """The current time, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def format_time(moment: datetime.datetime | float) -> str:
    """A ``Time`` from an aware datetime or a Unix time; fractions of a second are cut off, as Kubernetes does."""
    if isinstance(moment, int | float):
        moment = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime.datetime | float) -> str:
    """A ``MicroTime`` from an aware datetime or a Unix time."""
    if isinstance(moment, int | float):
        moment = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime.datetime:
    """An aware datetime in UTC from RFC 3339 text. Raises ValueError."""
    if len(text) < 20 or text[10] not in "Tt":
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-01-31T12:00:00Z")
    moment = datetime.datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: end it with Z or an offset")
    return moment.astimezone(datetime.UTC)
