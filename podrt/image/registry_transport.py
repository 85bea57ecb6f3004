"""HTTP to a registry: challenges, redirects, proxies, time limits, retries with back-off, and errors in plain words.

Redirects are followed here and not by aiohttp: what says who we are (Authorization, headers of hosts.toml) stays with
the server it was meant for, and nobody is led from HTTPS to plain HTTP. Proxies come from the environment (HTTP_PROXY,
HTTPS_PROXY, NO_PROXY); aiohttp's own reading of it would also send passwords of ~/.netrc.

Protocol: OCI distribution-spec 1.1; tokens: the distribution project's "Token Authentication Specification".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
from yarl import URL

from podrt import __version__
from podrt.errors import (
    ForbiddenError,
    ImageError,
    NotFoundError,
    PodrtError,
    UnauthenticatedError,
    UnavailableError,
)
from podrt.image import registry_auth, registry_config
from podrt.image.reference import Reference
from podrt.image.registry_auth import ANONYMOUS, Credential, Login
from podrt.image.registry_config import Endpoint
from podrt.image.registry_http import error_text, origin_of, proxy_for

T = TypeVar("T")

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_MAX_WAIT = 60.0
"""Seconds of a Retry-After that are waited at most."""
_MAX_TOKEN = 1 << 20
_TOKEN_LIFE = 60.0
"""Seconds that a token lives which doesn't say how long."""
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class Settings(NamedTuple):
    """How registries are dealt with."""

    config_dir: Path = registry_config.DEFAULT_ROOT
    auth_files: tuple[Path, ...] | None = None
    """None: those of docker and podman."""
    parallel: int = 3
    """Layers of one image that are fetched or pushed at once."""
    tries: int = 4
    """Of one request, and of one layer without progress in between."""
    first_delay: float = 0.5
    """Seconds before the second try; doubled for each further one, up to 30."""
    connect_timeout: float = 15.0
    idle_timeout: float = 60.0
    """Seconds without a byte."""


class TransientError(UnavailableError):
    """Failed in a way that may pass: worth another try."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class UntrustedError(UnavailableError):
    """The certificate is not one that we trust: then nothing at that address is, over plain HTTP least of all."""


class Transport:
    """One HTTP client for all registries, made on first use. ``await close()`` at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Endpoint, ssl.SSLContext] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self.settings
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=limits.connect_timeout, sock_read=limits.idle_timeout
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=1 << 20,
                headers={"User-Agent": f"podrt/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._session

    async def repositories(
        self,
        name: str,
        capability: str,
        secrets: Sequence[bytes] = (),
        resolving: bool = False,
        login: Login | None = None,
    ) -> list[Repository]:
        """The endpoints that may be asked for ``name`` (``registry/path``), each with its credentials."""
        domain, _, path = name.partition("/")
        files = self.settings.auth_files
        result = []
        for endpoint in registry_config.endpoints(self.settings.config_dir, domain, capability):
            if resolving and "resolve" not in endpoint.capabilities:
                continue
            # A mirror has its own credentials, and is not told those of the registry it stands in for.
            about = Reference(f"{endpoint.host if endpoint.mirror_of else domain}/{path}")
            if login is not None and (login.fits(about.domain) if login.server else not endpoint.mirror_of):
                found = [login.credential]
            else:
                found = await registry_auth.credentials(
                    about, registry_auth.default_files() if files is None else files, secrets
                )
            actions = "pull,push" if capability == "push" else "pull"
            result.append(Repository(self, endpoint, path, found, actions))
        return result

    def tls(self, endpoint: Endpoint) -> ssl.SSLContext:
        if endpoint not in self._contexts:
            if len(self._contexts) > 64:
                self._contexts.clear()
            self._contexts[endpoint] = endpoint.ssl_context()
        return self._contexts[endpoint]

    async def retry(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call ``work`` until it doesn't raise TransientError, as often as the settings say."""
        for attempt in range(1, self.settings.tries + 1):
            try:
                return await work()
            except TransientError as error:
                if attempt == self.settings.tries:
                    raise
                await self.back_off(attempt, error.wait)
        raise AssertionError("tries is at least 1")

    async def back_off(self, attempt: int, at_least: float = 0.0) -> None:
        """Sleep before the try after ``attempt`` failed ones: doubled each time, with a random part."""
        delay = min(self.settings.first_delay * 2.0 ** (attempt - 1), 30.0) * random.uniform(0.75, 1.25)
        await asyncio.sleep(max(delay, min(at_least, _MAX_WAIT)))


class Repository:
    """One repository at one endpoint. Keeps what it learned about authentication."""

    def __init__(
        self, transport: Transport, endpoint: Endpoint, path: str, credentials: Sequence[Credential], actions: str
    ) -> None:
        self.endpoint = endpoint
        self.path = path
        self.transport = transport
        self._credentials = list(credentials) or [ANONYMOUS]
        self._scope = f"repository:{path}:{actions}"
        self._authorization = ""
        self._accepted = False
        """Whether the registry took what we say about ourselves before: then a refusal means that it has expired."""
        self._expires = float("inf")
        self._lock = asyncio.Lock()

    @property
    def where(self) -> str:
        return f"registry {self.endpoint.host}"

    def url(self, rest: str) -> str:
        return f"{self.endpoint.url}/{self.path}/{rest}"

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        follow: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request, of whatever status; authenticated and redirected as need be.

        ``body`` is called for each sending. Raises TransientError, UnavailableError, ForbiddenError, ImageError.
        """
        if time.monotonic() >= self._expires:
            self._authorization, self._expires = "", float("inf")
        for _ in range(len(self._credentials) + 2):
            used = self._authorization
            async with self._redirected(method, url, headers or {}, body, follow) as response:
                if response.status not in (401, 403) or not await self._authenticate(response, used):
                    self._accepted = self._accepted or response.status not in (401, 403)
                    yield response
                    return
        raise ForbiddenError(f"{self.where}: refuses {self.path}; see the credentials (podman login, docker login)")

    async def fetch(self, url: str, limit: int, what: str, accept: str = "*/*") -> tuple[bytes, aiohttp.ClientResponse]:
        """A small document in full, with retries. Raises NotFoundError and what :meth:`request` raises."""

        async def once() -> tuple[bytes, aiohttp.ClientResponse]:
            async with self.request("GET", url, headers={"Accept": accept}) as response:
                await self.check(response, what)
                return await self.read(response, limit, what), response

        return await self.transport.retry(once)

    async def read(self, response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
        """The body, of at most ``limit`` bytes."""
        if (response.content_length or 0) > limit:
            raise ImageError(f"{what}: has {response.content_length} bytes; at most {limit} are believed")
        data = bytearray()
        with self.errors():
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > limit:
                    raise ImageError(f"{what}: has more than the {limit} bytes that are believed")
        return bytes(data)

    async def check(self, response: aiohttp.ClientResponse, what: str, expected: Sequence[int] = (200,)) -> None:
        """Raise the error that an answer means."""
        status = response.status
        if status in expected:
            return
        told = await error_text(response)
        text = f"{what}: {self.where} answers {status}{told}"
        if status == 404:
            raise NotFoundError(f"{what}: not found in {self.where}{told}")
        if status in (401, 403):
            raise (UnauthenticatedError if status == 401 else ForbiddenError)(
                f"{what}: {self.where} denies access or has no such repository ({status}){told};"
                " see imagePullSecrets and the auth files"
            )
        if status in _TRANSIENT:
            wait = response.headers.get("Retry-After", "")
            raise TransientError(text, float(wait) if wait.isdigit() else 0.0)
        raise ImageError(text)

    @contextlib.contextmanager
    def errors(self) -> Any:
        """Turns failures of the connection into errors of ours."""
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise UntrustedError(
                f"{self.where}: its certificate is not trusted: {error.certificate_error}; put its CA into hosts.toml"
                f" below {self.transport.settings.config_dir}"
            ) from error
        except aiohttp.ClientConnectorSSLError as error:
            raise UnavailableError(f"{self.where}: does not speak TLS as it should: {error.os_error}") from error
        except aiohttp.ClientConnectorDNSError as error:
            raise TransientError(f"{self.where}: can't be reached: no such host {error.host}") from error
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, ConnectionError) as error:
            text = str(error.os_error) if isinstance(error, aiohttp.ClientConnectorError) else str(error)
            text = text or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            raise TransientError(f"{self.where}: can't be reached or breaks off: {text}") from error

    # Sending

    @contextlib.asynccontextmanager
    async def _redirected(
        self, method: str, url: str, headers: dict[str, str], body: Callable[[], Any] | None, follow: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        origin = origin_of(url)
        for _ in range(_MAX_REDIRECTS + 1):
            own = dict(headers)
            if origin_of(url) == origin == origin_of(self.endpoint.url):
                own.update(self.endpoint.headers)
                if self._authorization:
                    own["Authorization"] = self._authorization
            response = await self._send(method, url, own, body)
            try:
                if not follow or response.status not in _REDIRECTS or "Location" not in response.headers:
                    yield response
                    return
                target = urljoin(url, response.headers["Location"])
            finally:
                response.release()
            if urlsplit(target).scheme not in ("http", "https") or (
                urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"
            ):
                raise ImageError(f"{self.where}: redirects from HTTPS to {origin_of(target)}; that is not followed")
            url = target
        raise ImageError(f"{self.where}: more than {_MAX_REDIRECTS} redirects")

    async def _send(
        self, method: str, url: str, headers: dict[str, str], body: Callable[[], Any] | None
    ) -> aiohttp.ClientResponse:
        proxy, proxy_headers = proxy_for(url)
        # Contexts are given for plain HTTP as well: a proxy or redirect may be HTTPS.
        with self.errors():
            return await self.transport.session().request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body() if body else None,
                allow_redirects=False,
                ssl=self.transport.tls(self.endpoint),
                proxy=proxy,
                proxy_headers=proxy_headers,
            )

    # Who we are

    async def _authenticate(self, response: aiohttp.ClientResponse, used: str) -> bool:
        """Find other words to say who we are; False if there are none."""
        challenges = response.headers.getall("WWW-Authenticate", [])
        if origin_of(str(response.url)) != origin_of(self.endpoint.url):
            return False  # another server, which is to know nothing of us
        async with self._lock:
            if self._authorization != used:
                return True  # another layer's request did it meanwhile
            if used and (not self._accepted or response.status == 403):
                self._credentials.pop(0)
            self._accepted = False
            while self._credentials:
                authorization = await self._answer(challenges, self._credentials[0])
                if authorization:
                    self._authorization = authorization
                    return True
                self._credentials.pop(0)
            self._credentials = [ANONYMOUS]
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
        if urlsplit(realm).scheme != "https" and not self.endpoint.url.startswith("http:"):
            raise ForbiddenError(f"{self.where}: its token server {realm!r} is not HTTPS; no password is sent there")
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
        response = await self._send(method, url, headers, body)
        async with response:
            if response.status in (400, 401, 403):
                return ""
            await self.check(response, f"token server {origin_of(realm)}")
            data = await self.read(response, _MAX_TOKEN, f"token server {origin_of(realm)}")
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


async def first_that_works(
    repositories: Sequence[Repository], work: Callable[[Repository], Awaitable[T]]
) -> tuple[T, Repository]:
    """Ask one endpoint after the other; the result and who gave it. Raises what the last one raised, told of all.

    A mirror may lack an image or be away; an image that is wrong (ImageError) is not asked for elsewhere.
    """
    failures: list[PodrtError] = []
    untrusted: set[str] = set()
    for repository in repositories:
        if repository.endpoint.host in untrusted:
            continue
        try:
            return await work(repository), repository
        except (NotFoundError, UnavailableError, ForbiddenError) as error:
            failures.append(error)
            if isinstance(error, UntrustedError):
                untrusted.add(repository.endpoint.host)
    # What a server said counts for more than that another can't be reached.
    last = next((one for one in reversed(failures) if not isinstance(one, UnavailableError)), failures[-1])
    others = [str(one) for one in failures if one is not last]
    raise type(last)(str(last) + (f" (before: {'; '.join(others)})" if others else "")) from last
