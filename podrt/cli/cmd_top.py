"""``podrt top``: the metrics API (metrics.k8s.io/v1beta1)."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import NODES
from podrt.cli.session import Session, err
from podrt.cli.times import quantity

_BASE = "/apis/metrics.k8s.io/v1beta1"
_SORTS = {"cpu": 0, "memory": 1}


@click.command("top", cls=options.Verb)
@click.argument("kind", type=click.Choice(["pod", "pods", "po", "node", "nodes", "no"]))
@click.argument("name", required=False)
@click.option("--containers", is_flag=True, help="Pods by their containers.")
@click.option("-l", "--selector", metavar="EXPR", help="The objects with these labels.")
@click.option("--sort-by", default="", type=click.Choice(["", "cpu", "memory"]), help="cpu or memory, largest first.")
@click.option("--sum", "with_sum", is_flag=True, help="Add up the pods in a last line.")
@click.option("--no-headers", is_flag=True, help="Leave the headers out.")
@options.all_namespaces_option
@options.namespace_option
@click.pass_obj
def top(
    session: Session,
    kind: str,
    name: str | None,
    containers: bool,
    selector: str | None,
    sort_by: str,
    with_sum: bool,
    no_headers: bool,
    all_namespaces: bool,
) -> None:
    """Show what pods or nodes use of CPU and memory: top pod, top pod web --containers, top node."""
    if name and selector:
        raise CliError("only one of NAME or --selector can be provided", 2)
    if kind.startswith("no"):
        _nodes(session, name, selector, sort_by, not no_headers)
    else:
        _pods(session, name, selector, sort_by, not no_headers, containers, with_sum, all_namespaces)


def _items(session: Session, path: str, name: str | None, selector: str | None) -> list[dict[str, Any]]:
    try:
        if name:
            return [session.client.get(f"{path}/{name}")]
        return printers.objects_of(session.client.get(path, {"labelSelector": selector}))
    except ApiError as error:
        if error.http_code == 404 and not error.status.get("details"):
            raise CliError("Metrics API not available") from None
        raise


def _use(usage: dict[str, Any]) -> tuple[float, float]:
    """Cores and bytes."""
    return quantity(usage.get("cpu", "0")), quantity(usage.get("memory", "0"))


def _texts(use: tuple[float, float]) -> list[str]:
    # Rounded up, as kubectl does: what is used at all is never shown as 0m.
    return [f"{-int(-use[0] * 1000 // 1)}m", f"{int(use[1]) >> 20}Mi"]


def _pods(
    session: Session,
    name: str | None,
    selector: str | None,
    sort_by: str,
    headers: bool,
    containers: bool,
    with_sum: bool,
    all_namespaces: bool,
) -> None:
    path = f"{_BASE}/pods" if all_namespaces else f"{_BASE}/namespaces/{session.namespace}/pods"
    rows: list[tuple[list[str], tuple[float, float]]] = []
    for item in _items(session, path, name, selector):
        metadata = item.get("metadata") or {}
        head = [str(metadata.get("namespace", ""))] if all_namespaces else []
        parts = [(str(part.get("name")), _use(part.get("usage") or {})) for part in item.get("containers") or ()]
        if containers:
            rows += [([*head, str(metadata.get("name")), part], use) for part, use in parts]
        else:
            total = (sum(use[0] for _, use in parts), sum(use[1] for _, use in parts))
            rows.append(([*head, str(metadata.get("name"))], total))
    if not rows:
        err("No resources found" if all_namespaces else f"No resources found in {session.namespace} namespace.")
        return
    rows.sort(key=lambda row: -row[1][_SORTS[sort_by]] if sort_by else row[0])
    titles = ["POD" if containers else "NAME"] + (["NAME"] if containers else [])
    titles = (["NAMESPACE"] if all_namespaces else []) + titles
    lines = [[*names, *_texts(use)] for names, use in rows]
    if with_sum:
        lines.append([""] * len(titles) + _texts((sum(u[0] for _, u in rows), sum(u[1] for _, u in rows))))
    printers.Table([*titles, "CPU(cores)", "MEMORY(bytes)"] if headers else None).write(lines)


def _nodes(session: Session, name: str | None, selector: str | None, sort_by: str, headers: bool) -> None:
    items = _items(session, f"{_BASE}/nodes", name, selector)
    found = printers.objects_of(session.client.get(NODES.collection(None)))
    allocatable = {printers.object_name(node): (node.get("status") or {}).get("allocatable") or {} for node in found}
    rows = []
    for item in items:
        node = printers.object_name(item)
        rows.append((node, _use(item.get("usage") or {}), _use(allocatable.get(node) or {})))
    rows.sort(key=lambda row: -row[1][_SORTS[sort_by]] if sort_by else row[0])
    lines = []
    for node, use, whole in rows:
        cpu, memory = _texts(use)
        percents = [
            f"{int(part * 100 / all_)}%" if all_ else "<unknown>" for part, all_ in zip(use, whole, strict=True)
        ]
        lines.append([node, cpu, percents[0], memory, percents[1]])
    titles = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    printers.Table(titles if headers else None).write(lines)
