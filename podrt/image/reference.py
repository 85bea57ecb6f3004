"""Image references: parsing and normalizing them the way docker writes them.

``busybox`` is ``docker.io/library/busybox:latest``; ``localhost/x``, ``host.example/x`` and ``host:5000/x`` name a
registry. The grammar is that of the distribution project (``reference`` package documentation) and of the OCI
distribution specification. Parsing is pure; nothing is looked up.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from podrt.errors import InvalidError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX_ID = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Reference(NamedTuple):
    """A normalized reference. At least one of ``tag`` and ``digest`` is set."""

    name: str
    """Registry and repository in full: ``docker.io/library/busybox``."""
    tag: str = ""
    digest: str = ""

    @property
    def domain(self) -> str:
        """The registry: ``docker.io``, ``localhost:5000``."""
        return self.name.partition("/")[0]

    @property
    def path(self) -> str:
        """The repository within the registry: ``library/busybox``."""
        return self.name.partition("/")[2]

    def familiar(self) -> str:
        """The short form docker prints: no default registry, no ``library/``; the tag is kept."""
        return familiar_name(self.name) + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def familiar_name(name: str) -> str:
    """``docker.io/library/busybox`` -> ``busybox``, ``docker.io/a/b`` -> ``a/b``; other registries unchanged."""
    prefix = DEFAULT_DOMAIN + "/"
    if not name.startswith(prefix):
        return name
    short = name[len(prefix) :]
    if short.startswith(_OFFICIAL) and "/" not in short[len(_OFFICIAL) :]:
        short = short[len(_OFFICIAL) :]
    # "docker.io/foo.bar/x" can't be written shorter: "foo.bar" would read as a registry.
    return name if _is_domain(short.partition("/")[0]) and "/" in short else short


def parse(text: str) -> Reference:
    """Normalize ``[registry/]repository[:tag][@digest]``; the tag is ``latest`` where neither tag nor digest is given.

    Raises InvalidError that says which part is wrong.
    """
    if not text:
        raise InvalidError("image reference is empty; write for example busybox:latest")
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest, f"image reference {text!r}")
    tag = ""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidError(
                f"image reference {text!r}: tag {tag!r} is wrong: 1 to 128 letters, digits, '_', '.', '-',"
                " the first not '.' or '-'"
            )
    name = _normalize_name(rest, text)
    return Reference(name, tag or ("" if digest else DEFAULT_TAG), digest)


def check_digest(digest: str, what: str) -> str:
    """Return ``digest`` if it is ``sha256:<64 hex>`` or ``sha512:<128 hex>`` in lower case; else InvalidError naming
    ``what``.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidError(
            f"{what}: digest {digest!r} is wrong: must be sha256:<64 hex digits> or sha512:<128 hex digits>"
        )
    return digest


def _is_domain(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _normalize_name(name: str, text: str) -> str:
    if _HEX_ID.fullmatch(name):
        raise InvalidError(f"image reference {text!r}: 64 hex digits are an image id, not a name")
    first, slash, path = name.partition("/")
    if slash and _is_domain(first):
        domain = DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first
        if not _DOMAIN.fullmatch(domain):
            raise InvalidError(
                f"image reference {text!r}: registry {domain!r} is not a host name with an optional port"
            )
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    for component in path.split("/"):
        if not component:
            raise InvalidError(f"image reference {text!r}: the repository name has an empty part")
        if component != component.lower():
            raise InvalidError(f"image reference {text!r}: repository name {component!r} must be lower case")
        if not _COMPONENT.fullmatch(component):
            raise InvalidError(
                f"image reference {text!r}: repository name {component!r} may have lower-case letters and digits,"
                " separated by '.', '_', '__' or '-'"
            )
    full = f"{domain}/{path}"
    if len(full) > _MAX_NAME:
        raise InvalidError(
            f"image reference {text[:40]!r}...: the name has {len(full)} characters; at most {_MAX_NAME} are allowed"
        )
    return full
