"""``podrt kubeconfig``: what stock kubectl needs to reach this daemon."""

from __future__ import annotations

import json
import os

import click

from podrt.cli import options
from podrt.cli.session import Session, out

_PATH = "/apis/podrt.dev/v1alpha1/access"


@click.command("kubeconfig", cls=options.Verb)
@click.option("-w", "--write", "path", default="", metavar="FILE", help="Write it to FILE (mode 0600), not to stdout.")
@options.namespace_option
@click.pass_obj
def kubeconfig(session: Session, path: str) -> None:
    """Print a kubeconfig: podrt kubeconfig > ~/.kube/podrt, KUBECONFIG=~/.kube/podrt kubectl get pods.

    The daemon must serve a loopback address: listen = "127.0.0.1:6443" in /etc/podrt/config.toml. The file holds a
    token that is as good as root on this machine.
    """
    found = session.client.get(_PATH)
    cluster = {"server": found["server"], "certificate-authority-data": found["certificateAuthorityData"]}
    context = {"cluster": "podrt", "user": "podrt", "namespace": session.namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "podrt", "cluster": cluster}],
        "users": [{"name": "podrt", "user": {"token": found["token"]}}],
        "contexts": [{"name": "podrt", "context": context}],
        "current-context": "podrt",
    }
    # JSON is YAML, and needs no library here.
    text = json.dumps(document, indent=2)
    if not path:
        out(text)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text + "\n")
