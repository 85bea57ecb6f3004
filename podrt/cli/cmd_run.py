"""``podrt run``: a pod from the command line."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.cmd_delete import wait_gone
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import PODS
from podrt.cli.session import Session, err, out


@click.command("run", cls=options.Verb)
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[-- ARG...]")
@click.option("--image", required=True, help="Image of the container.")
@click.option("--image-pull-policy", default="", help="Always, IfNotPresent or Never.")
@click.option("--port", type=int, help="A port that the container serves.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable.")
@click.option("-l", "--labels", default="", metavar="KEY=VALUE,...", help="Labels of the pod (else run=NAME).")
@click.option("--annotations", multiple=True, metavar="KEY=VALUE", help="Annotation of the pod.")
@click.option("--limits", default="", metavar="cpu=500m,memory=64Mi", help="Limits of the container.")
@click.option("--requests", default="", metavar="cpu=100m,memory=32Mi", help="Requests of the container.")
@click.option(
    "--restart", default="Always", type=click.Choice(["Always", "OnFailure", "Never"]), help="Restart policy."
)
@click.option("--command", "as_command", is_flag=True, help="The arguments replace the image's entry point.")
@click.option("--privileged", is_flag=True, help="Run the container privileged.")
@click.option("-i", "--stdin", "use_stdin", is_flag=True, help="Keep stdin open, and attach to it.")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal.")
@click.option("--attach", "do_attach", is_flag=True, help="Attach when it runs (implied by -i).")
@click.option("--rm", is_flag=True, help="Delete the pod when the attached session ends.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the container's own output.")
@click.option("--pod-running-timeout", default="1m", metavar="DURATION", help="How long to wait for the pod to run.")
@options.output_option
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def run(
    session: Session,
    name: str,
    args: tuple[str, ...],
    image: str,
    image_pull_policy: str,
    port: int | None,
    env: tuple[str, ...],
    labels: str,
    annotations: tuple[str, ...],
    limits: str,
    requests: str,
    restart: str,
    as_command: bool,
    privileged: bool,
    use_stdin: bool,
    tty: bool,
    do_attach: bool,
    rm: bool,
    quiet: bool,
    pod_running_timeout: str,
    output: str,
    dry_run: str,
) -> int:
    """Run an image in a new pod: run web --image=nginx --port=80, run -it --rm sh --image=busybox -- sh."""
    attached = do_attach or use_stdin
    if tty and not use_stdin:
        raise CliError("-i (--stdin) is required for containers with -t (--tty)", 2)
    if rm and not attached:
        raise CliError("--rm should only be used for attached containers (-i or --attach)", 2)
    if rm and restart == "Always":
        restart = "Never"
    container: dict[str, Any] = {"name": name, "image": image}
    if args:
        container["command" if as_command else "args"] = list(args)
    elif as_command:
        raise CliError("--command needs the command: run NAME --image=IMAGE --command -- COMMAND", 2)
    container |= _container_fields(image_pull_policy, port, env, limits, requests, privileged, use_stdin, tty)
    metadata: dict[str, Any] = {"name": name, "labels": pairs(labels.split(","), "--labels") or {"run": name}}
    if annotations:
        metadata["annotations"] = pairs(annotations, "--annotations")
    metadata["namespace"] = session.namespace
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "restartPolicy": restart},
    }
    created = pod if dry_run == "client" else _create(session, pod, dry_run)
    if not attached or dry_run != "none":
        _print(created, output, dry_run)
        return 0
    return _attached(session, created, use_stdin, tty, rm, quiet, pod_running_timeout)


def _container_fields(
    policy: str,
    port: int | None,
    env: tuple[str, ...],
    limits: str,
    requests: str,
    privileged: bool,
    use_stdin: bool,
    tty: bool,
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if policy:
        fields["imagePullPolicy"] = policy
    if port is not None:
        fields["ports"] = [{"containerPort": port}]
    if env:
        fields["env"] = [{"name": key, "value": value} for key, value in pairs(env, "--env").items()]
    resources = {
        key: pairs(text.split(","), f"--{key}") for key, text in (("limits", limits), ("requests", requests)) if text
    }
    if resources:
        fields["resources"] = resources
    if privileged:
        fields["securityContext"] = {"privileged": True}
    if use_stdin:
        fields |= {"stdin": True, "stdinOnce": True}
    if tty:
        fields["tty"] = True
    return fields


def pairs(items: Any, option: str) -> dict[str, str]:
    """``KEY=VALUE`` items as a dictionary. Raises CliError that names ``option``."""
    result: dict[str, str] = {}
    for item in items:
        if not item:
            continue
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise CliError(f"{option}: {item!r} is not KEY=VALUE", 2)
        result[key] = value
    return result


def _create(session: Session, pod: dict[str, Any], dry_run: str) -> dict[str, Any]:
    query: dict[str, object] = {"fieldValidation": "Strict", "dryRun": "All" if dry_run == "server" else None}
    return session.client.json("POST", PODS.collection(session.namespace), query, pod)


def _print(pod: dict[str, Any], output: str, dry_run: str) -> None:
    render = printers.object_printer(output)
    if render is None:
        suffix = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
        out(f"pod/{printers.object_name(pod)} created{suffix}")
    else:
        printers.emit(render({"apiVersion": "v1", "kind": "Pod"} | pod))


def _attached(
    session: Session, pod: dict[str, Any], use_stdin: bool, tty: bool, rm: bool, quiet: bool, timeout: str
) -> int:
    from podrt.cli.cmd_exec import attach_to

    name = str(pod["metadata"]["name"])
    try:
        current = _wait_started(session, pod, timeout)
        phase = (current.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            _print_log(session, name)
        else:
            try:
                code = attach_to(session, current, name, use_stdin, tty, quiet)
                if code:
                    return code
            except ApiError:
                # It may have ended between the look and the attach.
                current = session.client.get(PODS.item(session.namespace, name))
                if (current.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                    raise
                _print_log(session, name)
        return _final_code(session, pod)
    finally:
        if rm:
            _remove(session, pod, quiet)


def _wait_started(session: Session, pod: dict[str, Any], timeout: str) -> dict[str, Any]:
    """The pod once it runs or has ended. Raises CliError when time is up or its image can't be had."""
    import time

    from podrt.cli.times import parse_duration
    from podrt.cli.waiting import wait_until

    name = str(pod["metadata"]["name"])
    seen: list[dict[str, Any]] = []

    def started(value: dict[str, Any] | None) -> bool:
        if value is None:
            raise CliError(f'pod "{name}" was deleted before it ran')
        seen[:] = [value]
        status = value.get("status") or {}
        for item in status.get("containerStatuses") or ():
            reason = ((item.get("state") or {}).get("waiting") or {}).get("reason", "")
            if reason in ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"):
                message = item["state"]["waiting"].get("message", "")
                raise CliError(f"pod/{name}: {reason}: {message}")
        return status.get("phase") in ("Running", "Succeeded", "Failed")

    deadline = time.monotonic() + parse_duration(timeout)
    if not wait_until(session.client, PODS, session.namespace, name, started, deadline):
        raise CliError(f"timed out waiting for pod/{name} to run; 'podrt describe pod {name}' says why")
    return seen[0]


def _print_log(session: Session, name: str) -> None:
    import sys

    with session.client.open("GET", PODS.item(session.namespace, name) + "/log", {"container": name}) as response:
        for chunk in response.chunks():
            sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def _final_code(session: Session, pod: dict[str, Any]) -> int:
    """The exit code of a pod that won't be restarted; 0 for one that goes on."""
    import time

    from podrt.cli.waiting import wait_until

    if pod["spec"].get("restartPolicy") == "Always":
        return 0
    codes: list[int] = []

    def ended(value: dict[str, Any] | None) -> bool:
        for item in ((value or {}).get("status") or {}).get("containerStatuses") or ():
            terminated = (item.get("state") or {}).get("terminated")
            if terminated:
                codes[:] = [int(terminated.get("exitCode", 0))]
        return value is None or (value.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    deadline = time.monotonic() + 10
    wait_until(session.client, PODS, session.namespace, str(pod["metadata"]["name"]), ended, deadline)
    return codes[0] if codes else 0


def _remove(session: Session, pod: dict[str, Any], quiet: bool) -> None:
    metadata = pod["metadata"]
    name = str(metadata["name"])
    path = PODS.item(session.namespace, name)
    try:
        session.client.json("DELETE", path, None, {"kind": "DeleteOptions", "apiVersion": "v1"})
    except ApiError as error:
        if error.reason != "NotFound":
            raise
        return
    if not quiet:
        err(f'pod "{name}" deleted from {session.namespace} namespace')
    wait_gone(session, PODS, path, session.namespace, name, str(metadata.get("uid", "")), None)
