"""Query parameters, typed: one helper per type, each raising MalformedError that names the parameter."""

from __future__ import annotations

from aiohttp import web

from podrt.errors import MalformedError

_TRUE, _FALSE = ("1", "t", "true", "yes", "on"), ("", "0", "f", "false", "no", "off")


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean as Kubernetes reads it: present without a value means true."""
    if name not in request.query:
        return default
    text = request.query[name].lower()
    if text == "" or text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise MalformedError(f"query parameter {name}: must be true or false, not {request.query[name]!r}")


def integer(request: web.Request, name: str, minimum: int = 0) -> int | None:
    """A whole number of at least ``minimum``; None where it is absent or empty."""
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise MalformedError(f"query parameter {name}: must be a whole number, not {text!r}") from None
    if not minimum <= value < 2**63:
        raise MalformedError(f"query parameter {name}: must be {minimum} or more, not {text}")
    return value


def choice(request: web.Request, name: str, choices: tuple[str, ...]) -> str:
    """One of ``choices``, of which the first is the default."""
    text = request.query.get(name, "") or choices[0]
    if text not in choices:
        raise MalformedError(f"query parameter {name}: must be one of {', '.join(choices)}, not {text!r}")
    return text
