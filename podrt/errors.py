"""The one small tree of exceptions.

Every error that podrt raises on purpose is a :class:`PodrtError`. HTTP codes, gRPC codes and exit codes are mapped from
these classes once, at each edge (``api``, ``cri``, ``cli``); nothing below an edge knows a status code. A failed system
call stays an :class:`OSError` with errno, the call and the path.

A message says what failed, on which object, and what the reader can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PodrtError(Exception):
    """Base of all errors raised on purpose."""


class Cause(NamedTuple):
    """One reason of an :class:`InvalidError`: the shape of ``StatusCause`` of the Kubernetes API."""

    field: str
    """Path of the field, for example ``spec.containers[0].image``."""
    message: str
    reason: str = "FieldValueInvalid"
    """A ``CauseType`` of the Kubernetes API: FieldValueRequired, FieldValueNotSupported, FieldValueForbidden, ..."""


class InvalidError(PodrtError):
    """The request is well-formed but one or more fields are wrong (422 Invalid, INVALID_ARGUMENT)."""

    def __init__(self, message: str, causes: Sequence[Cause] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class MalformedError(PodrtError):
    """The request can't be read at all: broken JSON, a wrong type, unknown fields (400 BadRequest)."""

    def __init__(self, message: str, causes: Sequence[Cause] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class NotFoundError(PodrtError):
    """The named object does not exist (404)."""


class AlreadyExistsError(PodrtError):
    """An object of that name exists (409 AlreadyExists)."""


class ConflictError(PodrtError):
    """The object is not in the state or version that the request assumes (409 Conflict, FAILED_PRECONDITION)."""


class ExpiredError(PodrtError):
    """The requested resourceVersion is too old to be watched or listed from (410 Expired)."""


class ForbiddenError(PodrtError):
    """Policy refuses the request (403)."""


class UnauthenticatedError(ForbiddenError):
    """A registry doesn't believe who we say we are, or wants to be told (403, UNAUTHENTICATED)."""


class UnsupportedError(PodrtError):
    """A real feature that podrt or this kernel doesn't have (501, UNIMPLEMENTED)."""


class UnavailableError(PodrtError):
    """A part that is needed is not there right now; the same call may succeed later (503, UNAVAILABLE)."""


class DeadlineError(PodrtError):
    """The work did not end in the time given (504, DEADLINE_EXCEEDED)."""


class ExhaustedError(PodrtError):
    """No more of a bounded resource: addresses, host ports, disk (507, RESOURCE_EXHAUSTED)."""


class ImageError(PodrtError):
    """An image or archive is corrupt, unsafe or of a kind that can't be used."""


class LaunchError(PodrtError):
    """A process of a container could not be started.

    ``step`` is what the child was doing (``exec``, ``mount``, ``user`` ...), ``errno`` the errno of the failed call or
    0, ``path`` the path or name it was about ("" where there is none).
    """

    def __init__(self, step: str, errno: int, path: str, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno
        self.path = path
