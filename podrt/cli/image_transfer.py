"""Verbs that move archives: load, import, save. A directory is sent as a tar made on the way."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from podrt.cli import options
from podrt.cli.errors import ApiError, CliError
from podrt.cli.image_manage import BASE
from podrt.cli.progress import Progress
from podrt.cli.session import Session, out

_CHUNK = 1 << 20


@click.command("load", cls=options.Verb)
@click.argument("source", required=False, metavar="[ARCHIVE|DIRECTORY|-]")
@click.option("-i", "--input", "input_", metavar="FILE", help="The archive (as docker load has it).")
@click.option("-q", "--quiet", is_flag=True, help="No progress, names only.")
@options.socket_option
@click.pass_obj
def load(session: Session, source: str | None, input_: str | None, quiet: bool) -> None:
    """Load images from an OCI or docker archive (plain, gzip, zstd), an OCI directory, or stdin (-)."""
    name = _source(source or input_)
    for image in _send(session, "images:load", [], name, quiet):
        names = image.get("names") or [image["id"]]
        for text in names:
            out(str(text) if quiet else f"Loaded image: {text}")


@click.command("import", cls=options.Verb)
@click.argument("source", metavar="ARCHIVE|DIRECTORY|-")
@click.argument("name", metavar="NAME")
@click.option("--cmd", default="", metavar="WORDS", help="Default command, in shell words or as a JSON list.")
@click.option("--entrypoint", default="", metavar="WORDS", help="Entry point, in shell words or as a JSON list.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable of the image.")
@click.option("--user", default="", help="User that the command runs as.")
@click.option("--workdir", default="", help="Working directory of the command.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Label of the image.")
@click.option("--expose", multiple=True, metavar="PORT[/PROTOCOL]", help="Port that the image serves.")
@click.option("--stop-signal", default="", help="Signal that ends the command in order.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, the id only.")
@options.socket_option
@click.pass_obj
def import_(
    session: Session,
    source: str,
    name: str,
    cmd: str,
    entrypoint: str,
    env: tuple[str, ...],
    user: str,
    workdir: str,
    label: tuple[str, ...],
    expose: tuple[str, ...],
    stop_signal: str,
    quiet: bool,
) -> None:
    """Make an image of one layer from a root file system: import rootfs.tar name:tag --cmd /bin/sh."""
    config: dict[str, Any] = {
        "Env": list(env),
        "Cmd": _words(cmd, "--cmd"),
        "Entrypoint": _words(entrypoint, "--entrypoint"),
        "User": user,
        "WorkingDir": workdir,
        "StopSignal": stop_signal,
        "Labels": dict(_pair(item, "--label") for item in label),
        "ExposedPorts": {port if "/" in port else f"{port}/tcp": {} for port in expose},
    }
    for item in env:
        _pair(item, "--env")
    config = {key: value for key, value in config.items() if value}
    query: list[tuple[str, object]] = [("name", name), ("config", json.dumps(config) if config else None)]
    for image in _send(session, "images:import", query, _source(source), quiet):
        out(str(image["id"]) if quiet else f"Imported image: {name} ({image['id']})")


@click.command("save", cls=options.Verb)
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", default="-", metavar="FILE", help="File to write; - is stdout.")
@click.option("--format", "kind", default="oci", type=click.Choice(["oci", "docker"]), help="Kind of the archive.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@options.socket_option
@click.pass_obj
def save(session: Session, references: tuple[str, ...], output: str, kind: str, quiet: bool) -> None:
    """Save images to an archive: save busybox -o busybox.tar."""
    if output == "-" and sys.stdout.isatty():
        raise CliError("cowardly refusing to save to a terminal; use -o FILE or redirect", 2)
    query: list[tuple[str, object]] = [("ref", reference) for reference in references]
    query.append(("format", kind))
    with session.client.open("GET", f"{BASE}/images:save", query, headers={"Accept": "*/*"}) as response:
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
        with _output(output) as file, Progress(quiet) as progress:
            done = 0
            for chunk in response.chunks(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress.update("saving", done, total)


@contextmanager
def _output(path: str) -> Iterator[IO[bytes]]:
    """stdout, or a file that is there only if it is whole."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:  # a device or FIFO: nothing to rename
            yield file
        return
    partial = f"{path}.partial-{os.getpid()}"
    try:
        with open(partial, "xb") as file:
            yield file
        os.rename(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def _words(text: str, option: str) -> list[str]:
    if not text:
        return []
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CliError(f"{option}: a JSON list of strings is expected", 2)
        return value
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise CliError(f"{option}: {error}", 2) from None


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CliError(f"{option}: {text!r} is not KEY=VALUE", 2)
    return key, value


def _source(name: str | None) -> str:
    if name:
        return name
    if sys.stdin.isatty():
        raise CliError("name an archive or directory, or - for stdin", 2)
    return "-"


def _send(
    session: Session, verb: str, query: list[tuple[str, object]], source: str, quiet: bool
) -> list[dict[str, Any]]:
    """Upload ``source``, show progress, and return the images. Raises ApiError from the last line of the answer."""
    with Progress(quiet) as progress, _opened(source) as (file, size):
        headers = {"Content-Type": "application/x-tar", "Accept": "application/json"}
        if size is not None:
            headers["Content-Length"] = str(size)
        body = _counted(file, size, progress)
        with session.client.open("POST", f"{BASE}/{verb}", query, body, headers) as response:
            for line in response.lines():
                if not line.strip():
                    continue
                message = json.loads(line)
                if "progress" in message:
                    step = message["progress"]
                    progress.update(str(step.get("what", "")), int(step.get("done") or 0), step.get("total"))
                elif "error" in message:
                    raise ApiError(message["error"])
                elif "images" in message:
                    return list(message["images"])
    raise CliError("the daemon ended its answer without a result; see its log")


def _counted(file: IO[bytes], size: int | None, progress: Progress) -> Iterator[bytes]:
    done = 0
    while size is None or done < size:
        chunk = file.read(_CHUNK if size is None else min(_CHUNK, size - done))
        if not chunk:
            if size is not None:
                raise CliError("the archive became shorter while it was read")
            return
        done += len(chunk)
        yield chunk
        progress.update("sending", done, size)


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """The bytes to send, and how many (None: not known before)."""
    if source == "-":
        yield sys.stdin.buffer, None
        return
    if not os.path.exists(source):
        raise CliError(f"{source}: no such file or directory")
    if os.path.isdir(source):
        with _packed(source) as stream:
            yield stream, None
        return
    with open(source, "rb") as file:
        found = os.fstat(file.fileno())
        yield file, found.st_size if stat.S_ISREG(found.st_mode) else None


@contextmanager
def _packed(directory: str) -> Iterator[IO[bytes]]:
    """The directory's contents as a tar, made by a thread while it is read."""
    import tarfile

    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def pack() -> None:
        try:
            with open(write_end, "wb") as sink, tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name in sorted(os.listdir(directory)):
                    tar.add(os.path.join(directory, name), name)
        except BrokenPipeError:
            pass  # the upload ended first, and its own error says why
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=pack, daemon=True)
    thread.start()
    with open(read_end, "rb") as stream:
        yield _Checked(stream, thread, failures)  # type: ignore[misc]
    thread.join()


class _Checked:
    """A reader that, at the end, raises what went wrong on the writing side: half an archive is no archive."""

    def __init__(self, stream: IO[bytes], thread: threading.Thread, failures: list[BaseException]) -> None:
        self._stream = stream
        self._thread = thread
        self._failures = failures

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if not data:
            self._thread.join()
            if self._failures:
                raise self._failures[0]
        return data
