"""Who we are to a registry: its challenges, the credentials there are, and the tokens they are exchanged for.

Credentials are tried one after the other. Nothing of them is sent to another server than the one they are for, but to
its token server, and over plain HTTP only where the registry itself is spoken to so.

Source: the distribution project's "Token Authentication Specification".
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from podrt.errors import ForbiddenError, ImageError
from podrt.image.registry_auth import ANONYMOUS, Credential
from podrt.image.registry_http import origin_of
from podrt.image.registry_transport import Server

_MAX_TOKEN = 1 << 20
_TOKEN_LIFE = 60.0
"""Seconds that a token lives which doesn't say how long."""
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class Identity:
    """What is said to one server about one ``scope`` (``repository:<path>:<actions>``)."""

    def __init__(self, server: Server, credentials: Sequence[Credential], scope: str) -> None:
        self.credentials = list(credentials) or [ANONYMOUS]
        """Those that have not been refused."""
        self.authorization = ""
        """The header to send; empty for none."""
        self.accepted = False
        """Whether the registry took what we say about ourselves before: then a refusal means that it has expired."""
        self._server = server
        self._scope = scope
        self._expires = float("inf")
        self._lock = asyncio.Lock()

    def expire(self) -> None:
        """Drop a token that is too old."""
        if time.monotonic() >= self._expires:
            self.authorization, self._expires = "", float("inf")

    async def find_other(self, response: aiohttp.ClientResponse, used: str) -> bool:
        """Other words to say who we are, after a request with ``used`` was refused (401, 403); False if there are none.

        Raises what the token server's failure means: ForbiddenError, ImageError, UnavailableError.
        """
        challenges = response.headers.getall("WWW-Authenticate", [])
        if origin_of(str(response.url)) != origin_of(self._server.endpoint.url):
            return False  # another server, which is to know nothing of us
        async with self._lock:
            if self.authorization != used:
                return True  # another layer's request did it meanwhile
            if used and (not self.accepted or response.status == 403):
                self.credentials.pop(0)
            self.accepted = False
            while self.credentials:
                authorization = await self._answer(challenges, self.credentials[0])
                if authorization:
                    self.authorization = authorization
                    return True
                self.credentials.pop(0)
            self.credentials = [ANONYMOUS]
            return False

    async def _answer(self, challenges: Sequence[str], credential: Credential) -> str:
        """An Authorization header for one of the challenges; empty if ``credential`` is none for them."""
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer" and credential.registry_token:
                return f"Bearer {credential.registry_token}"
            if scheme.lower() == "bearer":
                return await self._token(dict(_CHALLENGE.findall(rest)), credential)
            if scheme.lower() == "basic" and credential.username:
                self._expires = float("inf")
                return credential.basic()
        return ""

    async def _token(self, challenge: dict[str, str], credential: Credential) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._server.endpoint.url.startswith("http:"):
            raise ForbiddenError(
                f"{self._server.where}: its token server {realm!r} is not HTTPS; no password is sent there"
            )
        query = {key: challenge[key] for key in ("service",) if key in challenge}
        query["scope"] = challenge.get("scope") or self._scope
        headers: dict[str, str] = {}
        body: Callable[[], Any] | None = None
        method = "GET"
        if credential.identity_token:
            form = query | {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
            form["client_id"] = "podrt"
            method, url = "POST", realm
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = functools.partial(bytes, urlencode(form).encode())
        else:
            url = realm + ("&" if "?" in realm else "?") + urlencode(query)
            if credential.username:
                headers["Authorization"] = credential.basic()
        response = await self._server.send(method, url, headers, body)
        async with response:
            if response.status in (400, 401, 403):
                return ""
            await self._server.check(response, f"token server {origin_of(realm)}")
            data = await self._server.read(response, _MAX_TOKEN, f"token server {origin_of(realm)}")
        try:
            document = json.loads(data)
            token = document.get("token") or document["access_token"]
            life = float(document.get("expires_in") or _TOKEN_LIFE)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ImageError(f"token server {origin_of(realm)}: its answer has no token") from error
        if not isinstance(token, str) or not token.isascii() or any(char.isspace() for char in token):
            raise ImageError(f"token server {origin_of(realm)}: its token is malformed")
        self._expires = time.monotonic() + max(life * 0.9, 5.0)
        return f"Bearer {token}"
