"""``podrt cp``: tar through exec, both ways."""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Callable
from typing import NamedTuple

import click

from podrt.cli import options
from podrt.cli.cmd_exec import query_with_empty
from podrt.cli.cmd_logs import default_container
from podrt.cli.errors import CliError
from podrt.cli.resources import PODS
from podrt.cli.session import Session, warn
from podrt.cli.streams import PROTOCOL
from podrt.cli.streams import Session as StreamSession


class Place(NamedTuple):
    """One end of a copy; ``pod`` "" is this machine."""

    namespace: str
    pod: str
    path: str


def parse_place(text: str, namespace: str) -> Place:
    """``[NAMESPACE/]POD:PATH``, or a local path (one with a slash before the colon is local). Raises CliError."""
    head, colon, path = text.partition(":")
    if not colon or head.startswith((".", "/")) or head.count("/") > 1:
        return Place("", "", text)
    if not head:
        raise CliError(f"{text}: the name of the pod is missing before the colon", 2)
    if not path:
        raise CliError(f"{text}: filepath can not be empty", 2)
    space, slash, pod = head.rpartition("/")
    return Place(space if slash else namespace, pod, path)


@click.command("cp", cls=options.Verb)
@click.argument("source", metavar="[[NAMESPACE/]POD:]SOURCE")
@click.argument("destination", metavar="[[NAMESPACE/]POD:]DESTINATION")
@click.option("-c", "--container", default="", shell_complete=options.complete_containers, help="Container.")
@click.option("--no-preserve", is_flag=True, help="Don't keep owner and mode.")
@options.namespace_option
@click.pass_obj
def cp(session: Session, source: str, destination: str, container: str, no_preserve: bool) -> None:
    """Copy files and directories to or from a container (which must have tar): cp web:/etc/hosts ., cp a web:/tmp."""
    origin = parse_place(source, session.namespace)
    target = parse_place(destination, session.namespace)
    if bool(origin.pod) == bool(target.pod):
        raise CliError("one of source and destination must be in a pod (POD:PATH), the other on this machine", 2)
    remote = origin if origin.pod else target
    if not container:
        pod = session.client.get(PODS.item(remote.namespace, remote.pod))
        container = default_container(pod)
    shell = _Remote(session, remote, container)
    if origin.pod:
        _download(shell, origin.path, target.path, not no_preserve)
    else:
        _upload(shell, origin.path, target.path, not no_preserve)


class _Remote:
    """Runs commands in the container with descriptors in place of a terminal."""

    def __init__(self, session: Session, place: Place, container: str) -> None:
        self._session = session
        self._place = place
        self._container = container

    def run(self, command: list[str], stdin: int | None, stdout: int) -> int:
        """The exit code; stderr goes to ours."""
        query: list[tuple[str, object]] = [("command", part) for part in command]
        query += [("container", self._container), ("stdin", True if stdin is not None else None)]
        query += [("stdout", True), ("stderr", True)]
        path = PODS.item(self._place.namespace, self._place.pod) + "/exec"
        ws = self._session.client.websocket(path, query_with_empty(query), [PROTOCOL])
        return StreamSession(ws, stdin, stdout, 2).run()

    def is_directory(self, path: str) -> bool:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return self.run(["test", "-d", path], None, null) == 0
        finally:
            os.close(null)


def _upload(shell: _Remote, source: str, destination: str, preserve: bool) -> None:
    from podrt.cli.safetar import pack

    if not os.path.exists(source):
        raise CliError(f"{source} doesn't exist in local filesystem")
    base = os.path.basename(os.path.abspath(source))
    if destination.endswith("/") or shell.is_directory(destination):
        destination = posixpath.join(destination, base)
    folder, name = posixpath.split(destination)
    command = ["tar", "-xmf", "-"] if preserve else ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"]
    # "-C" comes last: a name that begins with a dash must not become an option.
    command += ["-C", folder or "."]

    def write(fd: int) -> None:
        with open(fd, "wb") as stream:
            pack(stream, source, "./" + name, preserve)

    code = _with_pipe(write, lambda fd: shell.run(command, fd, 2), writes=True)
    if code != 0:
        raise CliError(f"copying failed: tar in the container ended with exit code {code}", code)


def _download(shell: _Remote, source: str, destination: str, preserve: bool) -> None:
    from podrt.cli.safetar import unpack

    clean = posixpath.normpath(source)
    if clean.startswith("../") or clean == "..":
        raise CliError(f"{source}: a path in the container must not begin with ..")
    if clean == "/":
        command = ["tar", "cf", "-", "-C", "/", "."]
        prefix = ""
    else:
        # "./" keeps a name with a leading dash from being an option of tar.
        folder, name = posixpath.split(clean)
        command = ["tar", "cf", "-", "-C", folder or ".", "./" + name]
        prefix = name
    written: list[int] = []

    def read(fd: int) -> None:
        with open(fd, "rb") as stream:
            written.append(unpack(stream, prefix or ".", destination, warn, preserve))
            while stream.read(1 << 16):
                pass  # padding after the end of the archive: tar must not die of SIGPIPE

    code = _with_pipe(read, lambda fd: shell.run(command, None, fd), writes=False)
    if code != 0:
        raise CliError(f"copying failed: tar in the container ended with exit code {code}", code)


def _with_pipe(local: Callable[[int], None], remote: Callable[[int], int], writes: bool) -> int:
    """Run ``local`` in a thread on one end of a pipe (which it closes) and ``remote`` on the other. Raises for both."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ours, theirs = (write_end, read_end) if writes else (read_end, write_end)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            local(ours)
        except BrokenPipeError:
            pass  # the remote side ended first, and its exit code says why
        except (CliError, OSError) as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    code = 1
    try:
        code = remote(theirs)
    except BrokenPipeError:
        pass  # unpacking failed, and says why
    finally:
        os.close(theirs)
        thread.join()
    if failures:
        raise failures[0]
    return code
