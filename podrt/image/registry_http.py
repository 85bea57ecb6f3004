"""Small things about URLs and answers: origins, proxies of the environment, what a registry says of an error."""

from __future__ import annotations

import json
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from yarl import URL

from podrt.image import registry_config
from podrt.image.registry_auth import Credential

_MAX_ERROR = 64 << 10


def origin_of(url: str) -> str:
    """Scheme, host and port: what decides whether two URLs are of one server."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def proxy_for(url: str) -> tuple[URL | None, dict[str, str] | None]:
    """The proxy that the environment names for ``url``, and headers that say who we are to it.

    This machine is never behind one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = getproxies_environment().get(parts.scheme)
    if not found or registry_config.is_loopback(parts.netloc) or proxy_bypass_environment(host):
        return None, None
    proxy = URL(found if "://" in found else f"http://{found}")
    if not proxy.user:
        return proxy, None
    # aiohttp sends it as Proxy-Authorization.
    return proxy.with_user(None), {"Authorization": Credential(proxy.user, proxy.password or "").basic()}


async def error_text(response: aiohttp.ClientResponse) -> str:
    """What the registry says about an error (distribution-spec: ``errors[].message``), made fit for a message."""
    try:
        data = await response.content.read(_MAX_ERROR)
        entry = json.loads(data)["errors"][0]
        text = " ".join(f"{entry.get('code', '')} {entry.get('message', '')}".split())
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError, aiohttp.ClientError, TimeoutError):
        return ""
    return f": {text[:200]}" if text.isprintable() and text else ""
