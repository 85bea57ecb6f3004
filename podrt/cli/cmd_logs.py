"""``podrt logs``."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from podrt.cli import options
from podrt.cli.client import Client
from podrt.cli.errors import CliError
from podrt.cli.printers import objects_of
from podrt.cli.resources import PODS, pod_of
from podrt.cli.session import Session, err

_MAX_STREAMS = 5


class _Source(NamedTuple):
    pod: str
    container: str


@click.command("logs", cls=options.Verb)
@click.argument("pod", required=False, shell_complete=options.complete_pods)
@click.argument("container_arg", required=False, metavar="[CONTAINER]", shell_complete=options.complete_containers)
@click.option("-c", "--container", default="", shell_complete=options.complete_containers, help="Container.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's run before this one.")
@click.option("--tail", type=int, default=-1, metavar="LINES", help="Only the last lines; -1: all (10 with -l).")
@click.option("--since", default="", metavar="DURATION", help="Only what is younger: 5s, 2m, 3h.")
@click.option("--since-time", default="", metavar="RFC3339", help="Only what was written after this time.")
@click.option("--timestamps", is_flag=True, help="The time before each line.")
@click.option("--limit-bytes", type=int, default=0, help="At most so many bytes.")
@click.option("--all-containers", is_flag=True, help="All containers of the pod.")
@click.option("--prefix", is_flag=True, help="Pod and container before each line.")
@click.option("--ignore-errors", is_flag=True, help="Go on with the other containers when one can't be read.")
@click.option("--max-log-requests", type=int, default=_MAX_STREAMS, help="Most streams followed at once.")
@click.option("-l", "--selector", metavar="EXPR", help="The pods with these labels.")
@options.namespace_option
@click.pass_obj
def logs(
    session: Session,
    pod: str | None,
    container_arg: str | None,
    container: str,
    follow: bool,
    previous: bool,
    tail: int,
    since: str,
    since_time: str,
    timestamps: bool,
    limit_bytes: int,
    all_containers: bool,
    prefix: bool,
    ignore_errors: bool,
    max_log_requests: int,
    selector: str | None,
) -> None:
    """Print what containers wrote: logs web, logs web -c sidecar -f, logs -l app=web --prefix."""
    container = container or container_arg or ""
    if bool(pod) == bool(selector):
        raise CliError("expected 'logs (POD | TYPE/NAME) [CONTAINER]' or -l SELECTOR", 2)
    if since and since_time:
        raise CliError("only one of --since-time / --since may be used", 2)
    if all_containers and container:
        raise CliError("--all-containers=true should not be specified with container name", 2)
    if tail < -1:
        raise CliError("--tail must be greater than or equal to -1", 2)
    query: dict[str, object] = {
        "follow": follow or None,
        "previous": previous or None,
        "timestamps": timestamps or None,
        "tailLines": tail if tail >= 0 else (10 if selector else None),
        "sinceSeconds": _seconds(since),
        "sinceTime": since_time,
        "limitBytes": limit_bytes or None,
    }
    sources = _sources(session, pod, selector, container, all_containers)
    if follow and len(sources) > max_log_requests:
        raise CliError(
            f"you are attempting to follow {len(sources)} log streams, but maximum allowed concurrency is "
            f"{max_log_requests}, use --max-log-requests to increase the limit"
        )
    if follow and len(sources) > 1:
        _follow_all(session, sources, query, prefix, ignore_errors)
        return
    for source in sources:
        try:
            for line in _lines(session.client, session.namespace, source, query, prefix):
                _write(line)
        except CliError as error:
            if not ignore_errors:
                raise
            err(error.render())


def _seconds(since: str) -> int | None:
    if not since:
        return None
    from podrt.cli.times import parse_duration

    value = parse_duration(since)
    if value <= 0:
        raise CliError("--since must be greater than 0", 2)
    return max(1, int(value + 0.999))


def _sources(
    session: Session, pod: str | None, selector: str | None, container: str, all_containers: bool
) -> list[_Source]:
    """Which streams are meant. One pod without --all-containers needs no look-up: the server chooses or objects."""
    if pod is not None and container:
        return [_Source(pod_of(session.client, session.namespace, pod), container)]
    if pod is not None:
        value = session.client.get(PODS.item(session.namespace, pod_of(session.client, session.namespace, pod)))
        return _of_pod(value, all_containers, container)
    found = session.client.get(PODS.collection(session.namespace), {"labelSelector": selector})
    sources = [source for item in objects_of(found) for source in _of_pod(item, all_containers, container)]
    if not sources:
        err(f"No resources found in {session.namespace} namespace.")
    return sources


def _of_pod(pod: dict[str, Any], all_containers: bool, container: str) -> list[_Source]:
    name = str(pod["metadata"]["name"])
    spec = pod.get("spec") or {}
    if container:
        return [_Source(name, container)]
    if all_containers:
        kinds = ("initContainers", "containers", "ephemeralContainers")
        return [_Source(name, str(item["name"])) for kind in kinds for item in spec.get(kind) or ()]
    return [_Source(name, default_container(pod))]


def default_container(pod: dict[str, Any], quiet: bool = False) -> str:
    """The annotated one, else the first; says so on stderr where there are several."""
    names = [str(item["name"]) for item in (pod.get("spec") or {}).get("containers") or ()]
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    chosen = annotations.get("kubectl.kubernetes.io/default-container")
    if chosen in names:
        return str(chosen)
    if not names:
        raise CliError(f"pod {pod['metadata']['name']} has no containers")
    if len(names) > 1 and not quiet:
        err(f'Defaulted container "{names[0]}" out of: {", ".join(names)}')
    return names[0]


def _lines(client: Client, namespace: str, source: _Source, query: dict[str, object], prefix: bool) -> Iterator[bytes]:
    """Chunks, or whole lines where each gets a prefix."""
    path = PODS.item(namespace, source.pod) + "/log"
    head = f"[pod/{source.pod}/{source.container}] ".encode() if prefix else b""
    with client.open("GET", path, query | {"container": source.container}, headers={"Accept": "*/*"}) as response:
        if not prefix:
            yield from response.chunks()
            return
        for line in response.lines():
            yield head + line + b"\n"


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _follow_all(
    session: Session, sources: list[_Source], query: dict[str, object], prefix: bool, ignore_errors: bool
) -> None:
    """A thread for each stream; lines stay whole. The first failure ends it all, unless errors are ignored."""
    lines: queue.Queue[bytes | CliError | None] = queue.Queue(maxsize=1000)

    def pump(source: _Source) -> None:
        try:
            path = PODS.item(session.namespace, source.pod) + "/log"
            head = f"[pod/{source.pod}/{source.container}] ".encode() if prefix else b""
            wanted = query | {"container": source.container}
            with session.client.open("GET", path, wanted, headers={"Accept": "*/*"}) as response:
                for line in response.lines():
                    lines.put(head + line + b"\n")
        except CliError as error:
            lines.put(error)
        except OSError as error:
            lines.put(CliError(f"lost the log of {source.pod}/{source.container}: {error.strerror}"))
        finally:
            lines.put(None)

    for source in sources:
        threading.Thread(target=pump, args=(source,), daemon=True).start()
    left = len(sources)
    while left:
        item = lines.get()
        if item is None:
            left -= 1
        elif isinstance(item, bytes):
            _write(item)
        elif ignore_errors:
            err(item.render())
        else:
            raise item
