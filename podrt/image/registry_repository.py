"""One repository at one server of a registry: authenticated requests, redirects, and which servers may be asked.

Redirects are followed here and not by aiohttp: what says who we are (Authorization, headers of hosts.toml) stays with
the server it was meant for, and nobody is led from HTTPS to plain HTTP.

Protocol: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp

from podrt.errors import ForbiddenError, ImageError, NotFoundError, PodrtError, UnavailableError
from podrt.image import registry_auth, registry_config
from podrt.image.reference import Reference
from podrt.image.registry_auth import Credential, Login
from podrt.image.registry_http import origin_of
from podrt.image.registry_identity import Identity
from podrt.image.registry_transport import Server, Transport, UntrustedError

T = TypeVar("T")

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5


class Repository:
    """The repository ``path`` at ``server``, for ``actions`` (``pull`` or ``pull,push``). Keeps what it learned about
    authentication."""

    def __init__(self, server: Server, path: str, credentials: Sequence[Credential], actions: str) -> None:
        self.server = server
        self.path = path
        self._identity = Identity(server, credentials, f"repository:{path}:{actions}")

    def url(self, rest: str) -> str:
        return f"{self.server.endpoint.url}/{self.path}/{rest}"

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
        self._identity.expire()
        for _ in range(len(self._identity.credentials) + 2):
            used = self._identity.authorization
            async with self._redirected(method, url, headers or {}, body, follow) as response:
                if response.status not in (401, 403) or not await self._identity.find_other(response, used):
                    self._identity.accepted = self._identity.accepted or response.status not in (401, 403)
                    yield response
                    return
        raise ForbiddenError(
            f"{self.server.where}: refuses {self.path}; see the credentials (podman login, docker login)"
        )

    async def fetch(self, url: str, limit: int, what: str, accept: str = "*/*") -> tuple[bytes, aiohttp.ClientResponse]:
        """A small document in full, with retries. Raises NotFoundError and what :meth:`request` raises."""

        async def once() -> tuple[bytes, aiohttp.ClientResponse]:
            async with self.request("GET", url, headers={"Accept": accept}) as response:
                await self.server.check(response, what)
                return await self.server.read(response, limit, what), response

        return await self.server.transport.retry(once)

    @contextlib.asynccontextmanager
    async def _redirected(
        self, method: str, url: str, headers: dict[str, str], body: Callable[[], Any] | None, follow: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        origin = origin_of(url)
        for _ in range(_MAX_REDIRECTS + 1):
            own = dict(headers)
            if origin_of(url) == origin == origin_of(self.server.endpoint.url):
                own.update(self.server.endpoint.headers)
                if self._identity.authorization:
                    own["Authorization"] = self._identity.authorization
            response = await self.server.send(method, url, own, body)
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
                raise ImageError(
                    f"{self.server.where}: redirects from HTTPS to {origin_of(target)}; that is not followed"
                )
            url = target
        raise ImageError(f"{self.server.where}: more than {_MAX_REDIRECTS} redirects")


async def repositories_of(
    transport: Transport,
    name: str,
    capability: str,
    secrets: Sequence[bytes] = (),
    resolving: bool = False,
    login: Login | None = None,
) -> list[Repository]:
    """The endpoints that may be asked for ``name`` (``registry/path``), each with its credentials."""
    domain, _, path = name.partition("/")
    files = transport.settings.auth_files
    result = []
    for endpoint in registry_config.endpoints(transport.settings.config_dir, domain, capability):
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
        result.append(Repository(Server(transport, endpoint), path, found, actions))
    return result


async def first_that_works(
    repositories: Sequence[Repository], work: Callable[[Repository], Awaitable[T]]
) -> tuple[T, Repository]:
    """Ask one endpoint after the other; the result and who gave it. Raises what the last one raised, told of all.

    A mirror may lack an image or be away; an image that is wrong (ImageError) is not asked for elsewhere.
    """
    failures: list[PodrtError] = []
    untrusted: set[str] = set()
    for repository in repositories:
        if repository.server.endpoint.host in untrusted:
            continue
        try:
            return await work(repository), repository
        except (NotFoundError, UnavailableError, ForbiddenError) as error:
            failures.append(error)
            if isinstance(error, UntrustedError):
                untrusted.add(repository.server.endpoint.host)
    # What a server said counts for more than that another can't be reached.
    last = next((one for one in reversed(failures) if not isinstance(one, UnavailableError)), failures[-1])
    others = [str(one) for one in failures if one is not last]
    raise type(last)(str(last) + (f" (before: {'; '.join(others)})" if others else "")) from last
