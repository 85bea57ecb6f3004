"""The second door: TCP on a loopback address, for clients that can't speak HTTP over a unix socket, such as kubectl.

Off unless ``listen`` is set. TLS always, and a bearer token on every request: whoever may use this door is root here,
as at the socket. Who has not shown the token yet has little time and shares little room (``streaming.strangers``).
Certificate (self-signed, its own authority) and token are made once and kept in ``state_dir/access``, mode 0700. Who
may use the socket may have both; that is what ``podrt kubeconfig`` asks for.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from podrt.api.status import UnauthorizedError
from podrt.config import parse_loopback
from podrt.errors import UnavailableError
from podrt.streaming import strangers
from podrt.streaming.strangers import Strangers

_SUBJECT = "/CN=podrt"
_NAMES = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"
_DAYS = "3650"


class Access:
    """Token and certificate of one daemon, and the address that it serves on."""

    def __init__(self, directory: Path, listen: str) -> None:
        """Raises InvalidError for a bad ``listen``."""
        self._directory = directory
        self._wanted = parse_loopback("listen", listen) if listen else None
        self._token = b""
        self._url = ""
        self._server: asyncio.Server | None = None
        self._strangers: Strangers | None = None

    async def start(self, make: Callable[[], RequestHandler], backlog: int) -> bool:
        """Serve with the protocols that ``make`` makes; False if no address is configured.

        Raises UnavailableError, OSError.
        """
        if self._wanted is None:
            return False
        await self._prepare()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        family = socket.AF_INET6 if ":" in self._wanted.host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        self._strangers = Strangers(make)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(self._wanted)
            self._server = await asyncio.get_running_loop().create_server(
                self._strangers, sock=found, ssl=context, backlog=backlog, ssl_handshake_timeout=strangers.PATIENCE
            )
        except OSError as error:
            found.close()
            raise UnavailableError(f"listen: can't bind {self._wanted.host}:{self._wanted.port}: {error}") from error
        port = found.getsockname()[1]
        host = f"[{self._wanted.host}]" if family == socket.AF_INET6 else self._wanted.host
        self._url = f"https://{host}:{port}"
        return True

    def stop(self) -> None:
        """Stop listening, and cut off who has not shown the token. The others' connections are their server's."""
        if self._server is not None and self._strangers is not None:
            self._server.close()
            self._strangers.close()

    @property
    def _certificate(self) -> Path:
        return self._directory / "certificate.pem"

    @property
    def _key(self) -> Path:
        return self._directory / "key.pem"

    async def _prepare(self) -> None:
        """What is missing is made; what is there stays, so that kubeconfigs go on working."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory.chmod(0o700)
        if not (self._certificate.exists() and self._key.exists()):
            await self._make_certificate()
        token = self._directory / "token"
        if not token.exists():
            fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
        self._token = token.read_bytes().strip()
        if len(self._token) < 16:
            raise UnavailableError(f"{token}: no token in it: remove the file, and a new one is made")

    async def _make_certificate(self) -> None:
        """By openssl(1): no key is made by code of ours."""
        key, certificate = self._key.with_suffix(".new"), self._certificate.with_suffix(".new")
        # fmt: off
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", _DAYS, "-subj", _SUBJECT, "-addext", _NAMES, "-addext", "extendedKeyUsage=serverAuth",
                   "-keyout", str(key), "-out", str(certificate)]
        # fmt: on
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=-1
            )
        except FileNotFoundError:
            raise UnavailableError("listen: openssl is needed to make a certificate: install the package") from None
        _, errors = await process.communicate()
        if process.returncode:
            raise UnavailableError(f"listen: openssl can't make a certificate: {errors.decode(errors='replace')}")
        key.chmod(0o600)
        key.replace(self._key)
        certificate.replace(self._certificate)

    def check(self, request: web.Request) -> None:
        """Raises UnauthorizedError for a request over TCP without the token. The unix socket's mode is its own lock."""
        transport = request.transport
        peer = transport.get_extra_info("socket") if transport is not None else None
        if peer is not None and peer.family == socket.AF_UNIX:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if (
            self._token
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token)
        ):
            if self._strangers is not None:
                self._strangers.let_in(request.protocol)
            return
        raise UnauthorizedError("Unauthorized")

    def certificate(self) -> str:
        """The certificate in PEM, by which clients know this door."""
        return self._certificate.read_text()

    def document(self) -> dict[str, Any]:
        """What a client needs. Raises UnavailableError if nothing is served over TCP."""
        if not self._url:
            raise UnavailableError(
                'podrtd serves no TCP address: set listen = "127.0.0.1:6443" in /etc/podrt/config.toml and restart it'
            )
        return {
            "server": self._url,
            "certificateAuthorityData": base64.b64encode(self._certificate.read_bytes()).decode(),
            "token": self._token.decode(),
        }
