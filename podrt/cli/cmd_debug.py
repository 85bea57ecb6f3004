"""``podrt debug``: add a debugging container to a running pod, and go into it."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import click

from podrt.cli import options
from podrt.cli.cmd_run import pairs
from podrt.cli.errors import CliError
from podrt.cli.resources import PODS, pod_name
from podrt.cli.session import Session, err
from podrt.cli.waiting import wait_until

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_PROFILES: dict[str, dict[str, Any]] = {
    "general": {"capabilities": {"add": ["SYS_PTRACE"]}},
    "baseline": {},
    "restricted": {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "netadmin": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
    "sysadmin": {"privileged": True},
}
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")


@click.command("debug", cls=options.Verb)
@click.argument("pod", shell_complete=options.complete_pods)
@click.argument("args", nargs=-1, metavar="[-- COMMAND [ARG...]]")
@click.option("--image", required=True, help="Image of the debugging container.")
@click.option("--image-pull-policy", default="", help="Always, IfNotPresent or Never.")
@click.option("-c", "--container", default="", help="Its name (else a new one).")
@click.option(
    "--target", default="", shell_complete=options.complete_containers, help="Container whose processes it shall see."
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable.")
@click.option("--profile", default="general", type=click.Choice(sorted(_PROFILES)), help="What it may do.")
@click.option("-i", "--stdin", "use_stdin", is_flag=True, help="Keep stdin open, and attach.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--attach", "do_attach", is_flag=True, help="Attach to it.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the container's own output.")
@click.option("--timeout", default="60s", metavar="TIME", help="How long to wait for its start.")
@options.namespace_option
@click.pass_obj
def debug(
    session: Session,
    pod: str,
    args: tuple[str, ...],
    image: str,
    image_pull_policy: str,
    container: str,
    target: str,
    env: tuple[str, ...],
    profile: str,
    use_stdin: bool,
    tty: bool,
    do_attach: bool,
    quiet: bool,
    timeout: str,
) -> int:
    """Add a debugging container to a running pod: debug -it web --image=busybox --target=web -- sh."""
    if tty and not use_stdin:
        raise CliError("-i (--stdin) is required for containers with -t (--tty)", 2)
    name = pod_name(pod)
    if not container:
        container = "debugger-" + "".join(random.choices(_ALPHABET, k=5))
        if not quiet:
            err(f"Defaulting debug container name to {container}.")
    entry: dict[str, Any] = {"name": container, "image": image, "terminationMessagePolicy": "File"}
    if args:
        entry["command"] = list(args)
    if image_pull_policy:
        entry["imagePullPolicy"] = image_pull_policy
    if env:
        entry["env"] = [{"name": key, "value": value} for key, value in pairs(env, "--env").items()]
    if target:
        entry["targetContainerName"] = target
    if _PROFILES[profile]:
        entry["securityContext"] = _PROFILES[profile]
    if use_stdin:
        entry |= {"stdin": True, "stdinOnce": True}
    if tty:
        entry["tty"] = True
    _add(session, name, entry)
    if not (use_stdin or do_attach):
        return 0
    return _go_in(session, name, container, use_stdin, tty, quiet, timeout)


def _add(session: Session, name: str, entry: dict[str, Any]) -> None:
    path = PODS.item(session.namespace, name) + "/ephemeralcontainers"
    patch = {"spec": {"ephemeralContainers": [entry]}}
    session.client.json(
        "PATCH", path, {"fieldValidation": "Strict"}, patch, content_type="application/strategic-merge-patch+json"
    )


def _go_in(session: Session, name: str, container: str, use_stdin: bool, tty: bool, quiet: bool, timeout: str) -> int:
    from podrt.cli.cmd_exec import attach_to
    from podrt.cli.times import parse_duration

    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def begun(value: dict[str, Any] | None) -> bool:
        if value is None:
            raise CliError(f'pod "{name}" was deleted before container {container} ran')
        state = _state(value, container)
        seen[:] = [(value, state)]
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            raise CliError(f"container {container}: {waiting['reason']}: {waiting.get('message', '')}")
        return bool(state.get("running") or state.get("terminated"))

    deadline = time.monotonic() + parse_duration(timeout)
    if not wait_until(session.client, PODS, session.namespace, name, begun, deadline):
        raise CliError(f"timed out waiting for container {container}; 'podrt describe pod {name}' says why")
    value, state = seen[0]
    if use_stdin and not state.get("terminated"):
        return attach_to(session, value, container, use_stdin, tty, quiet)
    # The log has all that it wrote, also before an attach would have begun.
    _print_log(session, name, container)
    return _exit_code(session, name, container)


def _exit_code(session: Session, name: str, container: str) -> int:
    """The exit code of a debugging container that has ended; 0 if its pod is gone before that is known."""
    codes: list[int] = []

    def ended(value: dict[str, Any] | None) -> bool:
        terminated = _state(value or {}, container).get("terminated")
        if terminated:
            codes[:] = [int(terminated.get("exitCode", 0))]
        return value is None or bool(terminated)

    wait_until(session.client, PODS, session.namespace, name, ended, time.monotonic() + 10)
    return codes[0] if codes else 0


def _state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    for item in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if item["name"] == container:
            return dict(item.get("state") or {})
    return {}


def _print_log(session: Session, name: str, container: str) -> None:
    query: dict[str, object] = {"container": container, "follow": True}
    with session.client.open("GET", PODS.item(session.namespace, name) + "/log", query) as response:
        for chunk in response.chunks():
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
