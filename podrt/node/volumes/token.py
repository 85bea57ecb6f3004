"""Service account tokens: JSON Web Tokens (RFC 7519) that the daemon signs with a key of its own.

HS256, made with the standard library. A public-key signature would need a cryptography package in a daemon that runs
as root, and nobody could use it: Pods can't reach the API (it is a unix socket), so there is no JWKS to fetch, and
who checks a token asks the daemon. The key is made once, ``<state_dir>/service-account.key``, mode 0600.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from podrt.fsutil import write_atomic
from podrt.model.configuration import ServiceAccount

DEFAULT_SECONDS = 3600
KEY_BYTES = 32
MAX_AGE = 24 * 3600.0
"""A token older than this is replaced even if it is valid for longer, as by the kubelet."""


class TokenError(Exception):
    """The text is no token of ours, or no longer valid."""


class Bound(NamedTuple):
    """What a token ends with: a ``pod`` (and the node where it is) or a ``secret``."""

    kind: str
    name: str
    uid: str
    node: str = ""


class Signer:
    """Makes and checks tokens. ``issuer`` is the ``iss`` claim, and the audience where none is asked for."""

    def __init__(self, key_file: Path, issuer: str) -> None:
        self.issuer = issuer
        self._key = _key(key_file)

    def sign(
        self, account: ServiceAccount, audiences: Sequence[str], seconds: int, now: float, bound: Bound | None = None
    ) -> str:
        """A token for an account; ``seconds`` until it expires."""
        meta = account.metadata
        ours: dict[str, Any] = {
            "namespace": meta.namespace,
            "serviceaccount": {"name": meta.name, "uid": meta.uid},
        }
        if bound is not None:
            ours[bound.kind] = {"name": bound.name, "uid": bound.uid}
            if bound.node:
                ours["node"] = {"name": bound.node}
        claims = {
            "aud": list(audiences) or [self.issuer],
            "exp": int(now) + seconds,
            "iat": int(now),
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": ours,
            "nbf": int(now),
            "sub": f"system:serviceaccount:{meta.namespace}:{meta.name}",
        }
        head = _encode(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
        signed = f"{head}.{_encode(msgspec.json.encode(claims))}"
        return f"{signed}.{_encode(self._sign(signed))}"

    def verify(self, token: str, now: float, audiences: Sequence[str] = ()) -> dict[str, Any]:
        """The claims of a valid token that is for one of ``audiences`` (none: for the API).

        Raises TokenError that says what is wrong, never the token.
        """
        signed, _, signature = token.rpartition(".")
        try:
            if not hmac.compare_digest(_decode(signature), self._sign(signed)):
                raise TokenError("the signature is not this daemon's")
            claims: dict[str, Any] = msgspec.json.decode(_decode(signed.partition(".")[2]))
        except (ValueError, msgspec.DecodeError):
            raise TokenError("not a token") from None
        if not claims["nbf"] <= now < claims["exp"]:
            raise TokenError("the token has expired")
        if not set(audiences or (self.issuer,)) & set(claims["aud"]):
            raise TokenError("the token is for another audience")
        return claims

    def _sign(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode(), hashlib.sha256).digest()


def _key(file: Path) -> bytes:
    """The key in a file, made if there is none."""
    with contextlib.suppress(FileNotFoundError):
        if len(key := file.read_bytes()) >= KEY_BYTES:
            return key
    key = os.urandom(KEY_BYTES)
    write_atomic(file, key, 0o600, durable=True)
    return key


def replace_at(issued: float, expires: float) -> float:
    """When a token is to be replaced: after 80 % of its life, or a day."""
    return min(issued + 0.8 * (expires - issued), issued + MAX_AGE)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
