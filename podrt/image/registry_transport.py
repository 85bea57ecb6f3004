"""HTTP to a registry's servers: connections, proxies, time limits, retries with back-off, and errors in plain words.

One request at a time, of no particular meaning; what is asked of a repository and who we say we are is in
``registry_repository`` and ``registry_identity``. Proxies come from the environment (HTTP_PROXY, HTTPS_PROXY,
NO_PROXY); aiohttp's own reading of it would also send passwords of ~/.netrc.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from podrt import __version__
from podrt.errors import (
    ForbiddenError,
    ImageError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from podrt.image import registry_config
from podrt.image.registry_config import Endpoint
from podrt.image.registry_http import error_text, proxy_for

T = TypeVar("T")

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_MAX_WAIT = 60.0
"""Seconds of a Retry-After that are waited at most."""


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


class Server:
    """One endpoint of a registry: what is sent to it, and what its answers mean."""

    def __init__(self, transport: Transport, endpoint: Endpoint) -> None:
        self.transport = transport
        self.endpoint = endpoint

    @property
    def where(self) -> str:
        """For messages."""
        return f"registry {self.endpoint.host}"

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: Callable[[], Any] | None
    ) -> aiohttp.ClientResponse:
        """One request, to this endpoint or where it sends us; the caller releases the answer.

        Raises TransientError, UnavailableError.
        """
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
