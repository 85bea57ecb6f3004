"""Registries for tests, all on loopback: Debian's docker-registry with TLS, basic or token authentication; a token
server; a proxy that cuts connections; and a registry of our own that lies.

Each has its own port and directories and ends with its context.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

PROGRAM = "docker-registry"
USER, PASSWORD = "alice", "secret"
_HTPASSWD = "alice:$2y$05$XuIa79hZu4iwOWOSS5j.DuVFPDw2PyyOkssLVGBbI5ZrJsYShCaDi\n"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def available() -> bool:
    return shutil.which(PROGRAM) is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key."""
    directory.mkdir(parents=True, exist_ok=True)
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=podrt test")
    subprocess.run(
        (*command, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(cert)),
        check=True,
        capture_output=True,
    )
    return cert, key


@contextlib.contextmanager
def docker_registry(
    directory: Path, *, tls: bool = False, basic: bool = False, token_server: str = "", token_cert: Path | None = None
) -> Iterator[str]:
    """A running docker-registry; its ``127.0.0.1:port``. With ``tls`` its certificate is ``directory/cert.pem``."""
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    http: dict[str, Any] = {"addr": address, "secret": "test"}
    document: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": http,
    }
    context = ssl.create_default_context()
    if tls:
        cert, key = certificate(directory)
        http["tls"] = {"certificate": str(cert), "key": str(key)}
        context.load_verify_locations(cert)
    if basic:
        (directory / "htpasswd").write_text(_HTPASSWD)
        document["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    if token_server:
        document["auth"] = {
            "token": {
                "realm": f"http://{token_server}/token",
                "service": "test-registry",
                "issuer": "test-issuer",
                "rootcertbundle": str(token_cert),
            }
        }
    config = directory / "config.yml"
    config.write_text(yaml.safe_dump(document))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            (PROGRAM, "serve", str(config)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(f"http{'s' if tls else ''}://{address}/v2/", context, process, directory / "log")
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str, context: ssl.SSLContext, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    while True:
        try:
            opener.open(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError as error:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{url}: {error}"
            time.sleep(0.02)


class Threaded:
    """An aiohttp application (or any asyncio server) in a thread of its own, so that daemons and blocking tests can
    talk to it as well."""

    def __init__(self, serve: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(serve,), daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._error: BaseException | None = None

    def __enter__(self) -> Threaded:
        self._thread.start()
        self._ready.wait(20)
        if self._error:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _run(self, serve: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            try:
                async with serve(self._loop):
                    self._ready.set()
                    await self._stop.wait()
            except BaseException as error:
                self._error = error
                self._ready.set()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())
        self._loop.close()


@contextlib.contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """Serve ``app``; its address."""
    port = free_port()

    @contextlib.asynccontextmanager
    async def serve(_: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    with Threaded(serve):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def token_server(directory: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A token server in the way of docker's; its address, the certificate that signs, and who asked ("": anybody).

    Anonymous clients and alice get a token; only alice's opens repositories below ``private/`` and may push.
    """
    cert, key = certificate(directory)
    asked: list[str] = []

    async def give(request: web.Request) -> web.Response:
        user = ""
        if header := request.headers.get("Authorization"):
            user, _, password = base64.b64decode(header.partition(" ")[2]).decode().partition(":")
            if (user, password) != (USER, PASSWORD):
                return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        form = await request.post()
        if form.get("refresh_token"):
            user = USER if form["refresh_token"] == "refresh-me" else ""
        asked.append(user)
        scope = str(request.query.get("scope") or form.get("scope") or "")
        access = []
        for one in scope.split():
            kind, name, actions = one.split(":", 2)
            allowed = actions.split(",") if user else [a for a in actions.split(",") if a == "pull"]
            if not user and name.startswith("private/"):
                allowed = []
            access.append({"type": kind, "name": name, "actions": allowed})
        token = await asyncio.to_thread(_signed, access, user, cert, key)
        return web.json_response({"token": token, "access_token": token, "expires_in": 300})

    app = web.Application()
    app.add_routes([web.get("/token", give), web.post("/token", give)])
    with serving(app) as address:
        yield address, cert, asked


def _signed(access: list[dict[str, Any]], user: str, cert: Path, key: Path) -> str:
    der = subprocess.run(("openssl", "x509", "-in", str(cert), "-outform", "DER"), check=True, capture_output=True)
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der.stdout).decode()]}
    now = int(time.time())
    claims = {
        "iss": "test-issuer",
        "sub": user,
        "aud": "test-registry",
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "jti": os.urandom(8).hex(),
        "access": access,
    }
    text = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    command = ("openssl", "dgst", "-sha256", "-sign", str(key))
    signature = subprocess.run(command, input=text, check=True, capture_output=True).stdout
    return (text + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@contextlib.contextmanager
def cutting_proxy(target: str, after: int) -> Iterator[tuple[str, list[int]]]:
    """A TCP proxy that cuts each connection once ``after`` bytes came back through it; its address, and the bytes that
    each connection got."""
    port = free_port()
    counts: list[int] = []
    host, _, number = target.partition(":")

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(host, int(number))
        index = len(counts)
        counts.append(0)

        async def forward() -> None:
            while data := await reader.read(65536):
                upstream.write(data)
                await upstream.drain()

        sending = asyncio.create_task(forward())
        try:
            while data := await upstream_reader.read(min(65536, after - counts[index])):
                writer.write(data)
                await writer.drain()
                counts[index] += len(data)
                if counts[index] >= after:
                    break
        except ConnectionError:
            pass
        finally:
            sending.cancel()
            for one in (writer, upstream):
                one.transport.abort()

    @contextlib.asynccontextmanager
    async def serve(_: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
        server = await asyncio.start_server(connection, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0.05)

    with Threaded(serve):
        yield f"127.0.0.1:{port}", counts


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """A registry of one repository, ``test``, that serves what it is told, right or wrong."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """Content type and bytes by tag or digest."""
        self.overrides: dict[str, Callable[[web.Request], Any]] = {}
        """Handlers by path below ``/v2/test/``."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers."""

    def add_image(self, layers: list[bytes], diff_ids: list[str], tag: str = "latest", **config: Any) -> str:
        """Add an image of compressed layers; the manifest's digest."""
        document = {"architecture": _goarch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        data = json.dumps(document | config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.add_blob(data, OCI_CONFIG),
            "layers": [self.add_blob(layer, OCI_LAYER) for layer in layers],
        }
        return self.add_manifest(json.dumps(manifest).encode(), tag)

    def add_blob(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def add_manifest(self, data: bytes, tag: str, kind: str = OCI_MANIFEST) -> str:
        digest = digest_of(data)
        self.manifests[tag] = self.manifests[digest] = (kind, data)
        return digest

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        app = web.Application()
        app.add_routes([web.get("/v2/test/{what:.+}", self._get), web.get("/{other:.*}", self._other)])
        with serving(app) as address:
            yield address

    def fetched(self, kind: str) -> list[str]:
        return [path for path, _ in self.requests if path.startswith(f"/v2/test/{kind}/")]

    async def _other(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers)))
        return web.Response(status=404)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers)))
        what = request.match_info["what"]
        if handler := self.overrides.get(what):
            answer: web.StreamResponse = await handler(request)
            return answer
        kind, _, name = what.partition("/")
        if kind == "manifests" and name in self.manifests:
            media_type, data = self.manifests[name]
            return web.Response(body=data, headers={"Content-Type": media_type})
        if kind == "blobs" and name in self.blobs:
            return web.Response(body=self.blobs[name])
        return web.json_response({"errors": [{"code": "UNKNOWN", "message": "no such thing"}]}, status=404)


def _goarch() -> str:
    from podrt.image.manifest import host_architecture

    return host_architecture()
