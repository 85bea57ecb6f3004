"""What ends a command: an exit code and a message worded as kubectl words it.

Exit codes: 0 done, 1 error (also a ``wait`` that timed out), 2 wrong usage, 130 interrupted; ``exec`` and ``run -it``
hand on the exit code of the remote process.
"""

from __future__ import annotations

from typing import Any

from podrt.errors import PodrtError


class CliError(PodrtError):
    """Ends the command with ``error: <message>`` on stderr and ``code``."""

    prefix = "error: "

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code

    def render(self) -> str:
        return f"{self.prefix}{self}"


class ApiError(CliError):
    """The API answered with a ``Status`` of kind Failure."""

    def __init__(self, status: dict[str, Any], doing: str = "") -> None:
        self.status = status
        self.reason = str(status.get("reason") or "")
        self.http_code = int(status.get("code") or 0)
        self.doing = doing
        super().__init__(str(status.get("message") or "unknown error"))

    def render(self) -> str:
        """kubectl's wording; an Invalid object is introduced by its kind and name."""
        message = str(self)
        details = self.status.get("details") or {}
        if self.reason == "Invalid" and details.get("kind"):
            return _invalid(details, message)
        where = f" ({self.reason})" if self.reason else ""
        doing = f"{self.doing}: " if self.doing else ""
        return f"Error from server{where}: {doing}{message}"


def _invalid(details: dict[str, Any], message: str) -> str:
    head = f'The {details["kind"]} "{details.get("name", "")}" is invalid'
    causes = details.get("causes") or []
    lines = [f"{cause['field']}: {cause.get('message', '')}" for cause in causes if cause.get("field")]
    if not lines:
        return f"{head}: {message}"
    if len(lines) == 1:
        return f"{head}: {lines[0]}"
    return f"{head}: \n" + "\n".join(f"* {line}" for line in lines)


def from_response(code: int, body: bytes, doing: str = "") -> ApiError:
    """The error that an HTTP answer of 400 and above carries; a body that is no Status is quoted."""
    import json

    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return ApiError({"code": code} | status, doing)
    text = body.decode("utf-8", "replace").strip()[:500]
    reason = "NotFound" if code == 404 else ""
    if code == 404:
        text = "the server could not find the requested resource"
    return ApiError({"code": code, "reason": reason, "message": text or f"HTTP status {code}"}, doing)
