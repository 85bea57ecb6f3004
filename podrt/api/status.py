"""Errors on the wire: the one place where exceptions become HTTP codes and ``kind: Status`` bodies.

Limits: text of an unexpected exception never leaves the daemon; the log has it. Reasons are those of Kubernetes where
it has one (``metav1.StatusReason``), since clients such as kubectl decide by them.
"""

from __future__ import annotations

import http
import os
from typing import NamedTuple

import msgspec
from aiohttp import web

from podrt import errors
from podrt.model.meta import Status, StatusCause, StatusDetails


class Subject(NamedTuple):
    """What a request is about, for ``details``: the resource and the object's name, empty where there is none."""

    kind: str = ""
    name: str = ""
    group: str = ""


NOTHING = Subject()


class UnsupportedMediaTypeError(errors.PodrtError):
    """The body is of a content type that this endpoint can't read (415)."""


class UnauthorizedError(errors.PodrtError):
    """A request over TCP without the token (401)."""


# Order matters only for subclasses; there are none in errors.py.
_CODES: dict[type[errors.PodrtError], tuple[int, str]] = {
    errors.InvalidError: (422, "Invalid"),
    errors.MalformedError: (400, "BadRequest"),
    errors.NotFoundError: (404, "NotFound"),
    errors.AlreadyExistsError: (409, "AlreadyExists"),
    errors.ConflictError: (409, "Conflict"),
    errors.ExpiredError: (410, "Expired"),
    errors.ForbiddenError: (403, "Forbidden"),
    errors.UnsupportedError: (501, "NotImplemented"),
    errors.UnavailableError: (503, "ServiceUnavailable"),
    errors.DeadlineError: (504, "Timeout"),
    errors.ExhaustedError: (507, "InsufficientStorage"),
    errors.ImageError: (422, "Invalid"),
    errors.LaunchError: (500, "InternalError"),
    UnsupportedMediaTypeError: (415, "UnsupportedMediaType"),
    UnauthorizedError: (401, "Unauthorized"),
}

_HTTP_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
}
_HTTP_MESSAGES = {
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    413: "the request is too large",
}


def status_of(error: BaseException, subject: Subject = NOTHING) -> Status:
    """The Status of an exception. Anything not raised on purpose becomes 500 InternalError without its text."""
    if isinstance(error, errors.PodrtError):
        code, reason = code_of(error)
        causes: tuple[StatusCause, ...] = ()
        if isinstance(error, errors.InvalidError | errors.MalformedError):
            causes = tuple(StatusCause(reason=c.reason, message=c.message, field=c.field) for c in error.causes)
        return failure(code, reason, str(error), subject, causes)
    if isinstance(error, web.HTTPException):
        reason = _HTTP_REASONS.get(error.status, "" if error.status < 500 else "InternalError")
        return failure(error.status, reason, _HTTP_MESSAGES.get(error.status) or error.text or error.reason, subject)
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        return failure(500, "InternalError", f"Internal error occurred: {os.strerror(error.errno)}{where}", subject)
    return failure(500, "InternalError", "Internal error occurred: see the log of podrtd", subject)


def code_of(error: errors.PodrtError) -> tuple[int, str]:
    """HTTP code and reason of an error, by its class or the nearest base that is known."""
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    return 500, "InternalError"


def failure(
    code: int, reason: str, message: str, subject: Subject = NOTHING, causes: tuple[StatusCause, ...] = ()
) -> Status:
    details = None
    if subject != NOTHING or causes:
        details = StatusDetails(name=subject.name, group=subject.group, kind=subject.kind, causes=causes)
    return Status(status="Failure", message=message, reason=reason, details=details, code=code)


def success(subject: Subject, uid: str = "") -> Status:
    """The answer to a deletion that leaves no object to return."""
    details = StatusDetails(name=subject.name, group=subject.group, kind=subject.kind, uid=uid)
    return Status(status="Success", details=details, code=200)


def response(status: Status, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status.code or 500,
        reason=_phrase(status.code),
        body=msgspec.json.encode(status),
        content_type="application/json",
        headers=headers,
    )


def _phrase(code: int) -> str:
    try:
        return http.HTTPStatus(code).phrase
    except ValueError:
        return ""
