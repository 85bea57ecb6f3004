"""Where the registries are: mirrors, plain HTTP, private CAs, from directories as containerd has them.

``<root>/<registry>/hosts.toml`` (``_default`` where a registry has none) names the endpoints of one registry, tried in
the order written and the registry itself last. Read are ``server``, ``[host."<url>"]``, ``capabilities``, ``ca``,
``client``, ``skip_verify``, ``override_path`` and ``header`` (containerd's docs/hosts.md). A directory without the file
may hold ``*.crt`` and ``*.cert``/``*.key`` (docker's certs.d). In a directory's name the colon before the port may also
be written ``host_port_``. Files are read for each pull, so that a change needs no restart.

Without configuration a registry is asked over HTTPS; one on the loopback interface that speaks no TLS over HTTP, too.

Not a registry: ``localhost/...`` without a port. Such names are local, as podman has it, and are never pulled.
"""

from __future__ import annotations

import ipaddress
import ssl
import tomllib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from podrt.errors import InvalidError
from podrt.image.reference import DEFAULT_DOMAIN, Reference

DEFAULT_ROOT = Path("/etc/podrt/certs.d")
LOCAL = "localhost"
"""The domain of names that no registry has."""
_DOCKER_SERVER = "registry-1.docker.io"
_CAPABILITIES = ("pull", "resolve", "push")
_HOST_KEYS = {"capabilities", "ca", "client", "skip_verify", "override_path", "header", "dial_timeout"}
_FILE = "hosts.toml"


class Endpoint(NamedTuple):
    """One server that is asked for the repositories of a registry."""

    url: str
    """With ``/v2`` at its end, or what ``override_path`` left: ``https://mirror.example:5000/v2``."""
    capabilities: tuple[str, ...] = _CAPABILITIES
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()
    """Certificate and key."""
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    mirror_of: str = ""
    """The registry that this one stands in for; empty for the registry itself."""

    @property
    def host(self) -> str:
        """Host and port as the URL has them."""
        return urlsplit(self.url).netloc

    def ssl_context(self) -> ssl.SSLContext:
        """Raises InvalidError if a file can't be used."""
        context = ssl.create_default_context()
        try:
            for path in self.ca:
                context.load_verify_locations(path)
            for cert, key in self.client:
                context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidError(f"registry {self.host}: certificate file can't be used: {error}") from error
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def is_local(reference: Reference) -> bool:
    """Whether a name is of this machine only: ``localhost/...`` without a port."""
    return reference.domain == LOCAL


def endpoints(root: Path, domain: str, capability: str) -> list[Endpoint]:
    """The servers to ask about images of ``domain``, in order, that have ``capability`` (pull, resolve, push).

    Raises InvalidError naming the file and key.
    """
    directory = _directory(root, domain)
    if directory is not None and (directory / _FILE).is_file():
        found = _from_file(directory / _FILE, domain)
    else:
        server = _DOCKER_SERVER if domain == DEFAULT_DOMAIN else domain
        certificates = _certificates(directory) if directory is not None else {}
        found = [Endpoint(f"https://{server}/v2", **certificates)]
        if is_loopback(server):
            found.append(Endpoint(f"http://{server}/v2"))
    usable = [one for one in found if capability in one.capabilities]
    if not usable:
        raise InvalidError(f"{directory}/{_FILE}: no host for {domain} has the capability {capability!r}")
    return usable


def is_loopback(host: str) -> bool:
    """Whether ``host`` (with or without a port) is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _directory(root: Path, domain: str) -> Path | None:
    host, colon, port = domain.rpartition(":")
    names = [domain]
    if colon and port.isdigit():
        names += [f"{host}_{port}_", host]
    for name in (*names, "_default"):
        if (root / name).is_dir():
            return root / name
    return None


def _certificates(directory: Path) -> dict[str, Any]:
    pairs = tuple((cert, cert.with_suffix(".key")) for cert in sorted(directory.glob("*.cert")))
    for cert, key in pairs:
        if not key.is_file():
            raise InvalidError(f"{cert}: its key {key.name} is missing")
    return {"ca": tuple(sorted(directory.glob("*.crt"))), "client": pairs}


def _from_file(path: Path, domain: str) -> list[Endpoint]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: can't be read: {error}") from error
    hosts = document.pop("host", {})
    server = document.pop("server", "")
    if not isinstance(hosts, dict) or not isinstance(server, str):
        raise InvalidError(f"{path}: host must be a table and server a URL")
    result = []
    for url, table in hosts.items():
        if not isinstance(table, dict):
            raise InvalidError(f"{path}: host.{url!r}: must be a table")
        result.append(_endpoint(path, url, table, domain))
    own = _DOCKER_SERVER if domain == DEFAULT_DOMAIN else domain
    last = _endpoint(path, server or f"https://{own}", document, "")
    if all(one.url != last.url for one in result):
        result.append(last)
    return result


def _endpoint(path: Path, url: str, table: dict[str, Any], mirror_of: str) -> Endpoint:
    what = f"{path}: {url}"
    if unknown := sorted(set(table) - _HOST_KEYS):
        raise InvalidError(f"{what}: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(_HOST_KEYS))}")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InvalidError(f"{what}: must be a URL such as https://registry.example:5000")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if not _flag(table, "override_path", what) and not base.endswith("/v2"):
        base += "/v2"
    capabilities = table.get("capabilities", list(_CAPABILITIES))
    if not isinstance(capabilities, list) or not set(capabilities) <= set(_CAPABILITIES):
        raise InvalidError(f"{what}: capabilities: must be a list of {', '.join(_CAPABILITIES)}")
    headers = table.get("header", {})
    if not isinstance(headers, dict):
        raise InvalidError(f"{what}: header: must be a table")
    pairs: list[tuple[str, str]] = []
    for name, value in headers.items():
        pairs += [(name, str(one)) for one in (value if isinstance(value, list) else [value])]
    return Endpoint(
        base,
        tuple(capabilities),
        tuple(path.parent / name for name in _strings(table.get("ca", []), f"{what}: ca")),
        _clients(path, table.get("client", []), what),
        _flag(table, "skip_verify", what),
        tuple(pairs),
        mirror_of,
    )


def _flag(table: dict[str, Any], key: str, what: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidError(f"{what}: {key}: must be true or false")
    return value


def _strings(value: Any, what: str) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise InvalidError(f"{what}: must be a path or a list of paths")
    return values


def _clients(path: Path, value: Any, what: str) -> tuple[tuple[Path, Path], ...]:
    """One file with both, a list of such, or a list of pairs."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise InvalidError(f"{what}: client: must be a path or a list of pairs of certificate and key")
    result = []
    for one in values:
        pair = [one, one] if isinstance(one, str) else one
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InvalidError(f"{what}: client: must be a path or a list of pairs of certificate and key")
        result.append((path.parent / pair[0], path.parent / (pair[1] or pair[0])))
    return tuple(result)
