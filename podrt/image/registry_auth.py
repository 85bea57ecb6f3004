"""Who we are to a registry: credentials from auth files, imagePullSecrets and credential helpers.

Auth files are those of docker and podman (containers-auth.json(5)); a Pod's imagePullSecrets are the same document
(``kubernetes.io/dockerconfigjson``, or the bare ``auths`` of ``dockercfg``). A key is a registry, with an optional
scheme, port and path below it; each part of its host may be a glob (Kubernetes: ``*.registry.example``). The longest
key counts first, and all that fit are tried. A broken file or helper is logged and passed over: another source may
know better, and if none does the registry's refusal says so.

Nothing here is ever logged or put into a message but the names of files, helpers and registries.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from podrt.image.reference import DEFAULT_DOMAIN, Reference

_LOG = logging.getLogger(__name__)
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_TIMEOUT = 30.0
_DOCKER_HUB = "https://index.docker.io/v1/"
_DOCKER_HOSTS = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_TOKEN_USER = "<token>"
_MAX_FILE = 4 << 20


class Credential(NamedTuple):
    """One way to say who we are: a name and password, a refresh token (``identity_token``), or what the registry's
    token server gave already (``registry_token``)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Credential(...)"  # never a password in a log

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credential()


class Login(NamedTuple):
    """What a caller says who we are: for one registry, and then nothing else is tried there, not even to be nobody.
    So a pull with it that succeeds shows that it opens the image."""

    credential: Credential
    server: str = ""
    """As a key of ``auths``; empty: the registry of the image."""

    def fits(self, domain: str) -> bool:
        """Whether it is for the registry ``domain``."""
        return _bare(self.server).partition("/")[0] == domain


def default_files() -> list[Path]:
    """Where auth files are looked for, first to last: containers-auth.json(5), then docker's."""
    home = Path(os.environ.get("HOME") or "/root")
    found = [Path(os.environ["REGISTRY_AUTH_FILE"])] if os.environ.get("REGISTRY_AUTH_FILE") else []
    found += [Path("/run/containers/0/auth.json"), home / ".config/containers/auth.json"]
    return [*found, Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"]


async def credentials(reference: Reference, files: Sequence[Path], secrets: Sequence[bytes] = ()) -> list[Credential]:
    """What may be tried for ``reference``, best first; ``ANONYMOUS`` is always the last.

    ``secrets`` are documents of imagePullSecrets and come before ``files``.
    """
    found: list[Credential] = []
    for index, secret in enumerate(secrets):
        document = _decode(secret, f"imagePullSecrets[{index}]")
        found += from_document(document, reference)
    for path in files:
        try:
            if path.stat().st_size > _MAX_FILE:
                continue
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            _LOG.warning("auth file %s can't be read: %s", path, error.strerror)
            continue
        document = _decode(data, str(path))
        found += await _from_helper(document, reference)
        found += from_document(document, reference)
    return [*dict.fromkeys(found), ANONYMOUS]


def from_document(document: dict[str, Any], reference: Reference) -> list[Credential]:
    """The entries of an auth file that are for ``reference``, the most specific first."""
    auths = document.get("auths", document)
    if not isinstance(auths, dict):
        return []
    fitting = [key for key, value in auths.items() if isinstance(value, dict) and _fits(key, reference)]
    found = []
    for key in sorted(fitting, key=lambda key: (len(_bare(key)), key), reverse=True):
        credential = _entry(auths[key])
        if credential is None:
            _LOG.warning("credentials for %r in an auth file can't be read; log in again", key)
        elif credential != ANONYMOUS:
            found.append(credential)
    return found


def _decode(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        _LOG.warning("%s: not a JSON object; its credentials are passed over", what)
        return {}
    return document


def _entry(value: dict[str, Any]) -> Credential | None:
    username, password = value.get("username") or "", value.get("password") or ""
    token = value.get("identitytoken") or ""
    if text := value.get("auth"):
        try:
            decoded = base64.b64decode(text, validate=False).decode()
        except (binascii.Error, ValueError, TypeError):
            return None
        username, colon, password = decoded.partition(":")
        if not colon:
            return None
        password = password.strip("\0")
    if not all(isinstance(part, str) for part in (username, password, token)):
        return None
    return Credential(username, password, token)


def _bare(key: str) -> str:
    """Host, port and path of a key of ``auths``."""
    _, separator, rest = key.partition("://")
    rest = (rest if separator else key).rstrip("/")
    for version in ("/v1", "/v2"):
        rest = rest.removesuffix(version)
    host, slash, path = rest.partition("/")
    return (DEFAULT_DOMAIN if host in _DOCKER_HOSTS else host) + slash + path


def _fits(key: str, reference: Reference) -> bool:
    host, _, path = _bare(key).partition("/")
    if path and f"{reference.path}/".removeprefix(f"{path}/") == f"{reference.path}/":
        return False
    name, _, port = host.partition(":")
    wanted, _, wanted_port = reference.domain.partition(":")
    labels, wanted_labels = name.split("."), wanted.split(".")
    return (
        port == wanted_port
        and len(labels) == len(wanted_labels)
        and all(fnmatch.fnmatchcase(want, label) for want, label in zip(wanted_labels, labels, strict=True))
    )


async def _from_helper(document: dict[str, Any], reference: Reference) -> list[Credential]:
    """What the credential helper of an auth file says (docker-credential-helpers: ``get``)."""
    helpers = document.get("credHelpers")
    name = ""
    if isinstance(helpers, dict):
        fitting = [key for key in helpers if _fits(key, reference)]
        if fitting:
            name = str(helpers[max(fitting, key=len)])
    name = name or str(document.get("credsStore") or "")
    if not name:
        return []
    if not _HELPER.fullmatch(name):
        _LOG.warning("credential helper %r: not a program name; passed over", name)
        return []
    server = _DOCKER_HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
    answer = await _run_helper(f"docker-credential-{name}", server)
    if answer is None:
        return []
    username, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    if username == _TOKEN_USER:
        return [Credential(identity_token=secret)]
    return [Credential(username, secret)] if username else []


async def _run_helper(program: str, server: str) -> dict[str, Any] | None:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        _LOG.warning("credential helper %s can't be run: %s", program, error.strerror)
        return None
    try:
        async with asyncio.timeout(_HELPER_TIMEOUT):
            output, _ = await process.communicate(server.encode())
    except TimeoutError:
        _LOG.warning("credential helper %s did not answer within %g s", program, _HELPER_TIMEOUT)
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return None  # it says so where it has nothing for this registry
    document = _decode(output, program)
    return document or None
