"""Entry point of ``podrt``: the list of verbs and the options that hold for all of them."""

from __future__ import annotations

import os
import sys

import click

from podrt.cli.lazy import Lazy, RootGroup
from podrt.cli.session import DEFAULT_SOCKET, Session

_SECTIONS = {
    "Running and changing": {
        "apply": Lazy("podrt.cli.cmd_apply", "apply", "Create or change objects so that they are as in a file"),
        "create": Lazy("podrt.cli.cmd_create", "create", "Create objects from a file or from options"),
        "run": Lazy("podrt.cli.cmd_run", "run", "Run an image in a new pod"),
        "delete": Lazy("podrt.cli.cmd_delete", "delete", "Delete objects by file, name or labels"),
        "edit": Lazy("podrt.cli.cmd_edit", "edit", "Edit an object in $EDITOR"),
        "patch": Lazy("podrt.cli.cmd_patch", "patch", "Change fields of an object"),
        "scale": Lazy("podrt.cli.cmd_scale", "scale", "Set the number of replicas"),
        "set": Lazy("podrt.cli.cmd_scale", "set_", "Change the images of an object"),
        "rollout": Lazy("podrt.cli.cmd_rollout", "rollout", "Follow, undo, pause, resume and restart rollouts"),
        "label": Lazy("podrt.cli.cmd_patch", "label", "Set or remove labels"),
        "annotate": Lazy("podrt.cli.cmd_patch", "annotate", "Set or remove annotations"),
    },
    "Looking": {
        "get": Lazy("podrt.cli.cmd_get", "get", "List objects"),
        "describe": Lazy("podrt.cli.cmd_describe", "describe", "Show objects in detail, with their events"),
        "diff": Lazy("podrt.cli.cmd_diff", "diff", "Show what apply would change"),
        "explain": Lazy("podrt.cli.cmd_explain", "explain", "Explain the fields of a kind"),
        "events": Lazy("podrt.cli.cmd_events", "events", "List events"),
        "logs": Lazy("podrt.cli.cmd_logs", "logs", "Print the output of containers"),
        "top": Lazy("podrt.cli.cmd_top", "top", "Show use of CPU and memory"),
        "wait": Lazy("podrt.cli.cmd_wait", "wait", "Wait for a condition of objects"),
    },
    "Going inside": {
        "exec": Lazy("podrt.cli.cmd_exec", "exec_", "Run a command in a container"),
        "attach": Lazy("podrt.cli.cmd_exec", "attach", "Attach to a running container"),
        "debug": Lazy("podrt.cli.cmd_debug", "debug", "Add a debugging container to a running pod"),
        "cp": Lazy("podrt.cli.cmd_cp", "cp", "Copy files to and from containers"),
        "port-forward": Lazy("podrt.cli.cmd_portforward", "port_forward", "Forward local ports to a pod"),
    },
    "Images and machine": {
        "image": Lazy("podrt.cli.cmd_image", "image", "Load, list, tag, save and remove images"),
        "system": Lazy("podrt.cli.cmd_system", "system", "Show the daemon, check the machine"),
    },
    "Other": {
        "api-resources": Lazy("podrt.cli.cmd_misc", "api_resources", "List the resource types of the server"),
        "completion": Lazy("podrt.cli.cmd_misc", "completion", "Print a completion script for bash, zsh or fish"),
        "kubeconfig": Lazy("podrt.cli.cmd_kubeconfig", "kubeconfig", "Print a kubeconfig for stock kubectl"),
        "version": Lazy("podrt.cli.cmd_misc", "version", "Print the versions of client and daemon"),
    },
}


@click.group(
    cls=RootGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    options_metavar="[OPTIONS]",
    subcommand_metavar="COMMAND ...",
)
@click.option("--socket", envvar="PODRT_SOCKET", default=DEFAULT_SOCKET, show_default=True, help="The daemon's socket.")
@click.option("-n", "--namespace", envvar="PODRT_NAMESPACE", default="default", metavar="NAME", help="Namespace.")
@click.pass_context
def cli(ctx: click.Context, socket: str, namespace: str) -> None:
    """Run Kubernetes Pods on this machine. The verbs and their options are kubectl's."""
    ctx.obj = Session(socket, namespace)


def main() -> None:
    """The ``podrt`` script."""
    _open_standard_streams()
    cli(prog_name="podrt")


def _open_standard_streams() -> None:
    """/dev/null in place of a closed stdin, stdout or stderr (``podrt exec -i web -- cat <&-``).

    Else the connection to the daemon gets the number of the closed one, and is read as the input or printed to.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is ``fd``
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
