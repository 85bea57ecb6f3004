"""How a remote command ended, as clients are told: a ``metav1.Status``, or a line of text for old protocols."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import msgspec

from podrt.errors import LaunchError

_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)


class Status(NamedTuple):
    success: bool
    message: str
    document: bytes
    """The Status as JSON."""


SUCCESS = Status(
    True, "", msgspec.json.encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
)


def exit_status(code: int) -> Status:
    """The Status of an exit code, as remotecommand's v4 has it."""
    if code == 0:
        return SUCCESS
    return failed_command(code, f"command terminated with non-zero exit code: exit status {code}")


def failed_command(code: int, message: str) -> Status:
    return _failure("NonZeroExitCode", message, {"causes": [{"reason": "ExitCode", "message": str(code)}]})


def failed_launch(error: LaunchError) -> Status:
    """With the shell's codes, so that a script can tell "no such command" from a command that failed."""
    return failed_command(127 if error.errno in _NOT_FOUND else 126, str(error))


def internal_error(message: str) -> Status:
    return _failure("InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]}, 500)


def _failure(reason: str, message: str, details: dict[str, Any], code: int = 0) -> Status:
    document: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
    }
    if code:
        document["code"] = code
    return Status(False, message, msgspec.json.encode(document))
