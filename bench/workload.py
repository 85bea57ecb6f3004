"""A Deployment scaled up and down, against single Pods made and deleted at once, in turns on the same daemon."""

from __future__ import annotations

import time
from typing import Any

from bench.pod import pod
from bench.podrt_bench import Podrt
from tests.framework.client import Client, path_of

DEPLOYMENTS = path_of("Deployment")
_PATIENCE = 120
"""Seconds without a change of any Deployment."""


def deployment(name: str) -> dict[str, Any]:
    """Of the Pods that everything is measured with; no replicas yet."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod(name)["spec"]}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def scaled(bench: Podrt, count: int, singles: int, rounds: int = 3) -> dict[str, Any]:
    """Milliseconds for each Pod, a value for each round.

    ``up_ms``: from the change of scale until ``count`` replicas are ready; ``down_ms``: until the last Pod is gone.
    ``single_up_ms``, ``single_down_ms``: the same of ``singles`` Pods at once."""
    name = "bench-scaled"
    results: dict[str, Any] = {"count": count, "singles": singles}
    results |= {key: [] for key in ("up_ms", "down_ms", "single_up_ms", "single_down_ms")}
    bench.request("POST", DEPLOYMENTS, deployment(name))
    try:
        for _ in range(rounds):
            alone = bench.at_once(singles)
            results["single_up_ms"].append(alone["create_all_ms"] / singles)
            results["single_down_ms"].append(alone["delete_all_ms"] / singles)
            time.sleep(1)
            results["up_ms"].append(_scale(bench, name, count) / count)
            time.sleep(1)
            results["down_ms"].append(_scale(bench, name, 0) / count)
            time.sleep(1)
    finally:
        bench.request("DELETE", f"{DEPLOYMENTS}/{name}")
    return results


def _scale(bench: Podrt, name: str, count: int) -> float:
    """Milliseconds until the Deployment's status says that it is done, and at 0 until no Pod is left either."""
    pods = [one for one in bench.observer.running if one.startswith(f"{name}-") and one not in bench.observer.gone]
    begin = time.perf_counter()
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name, "namespace": "default"}}
    bench.request("PUT", f"{DEPLOYMENTS}/{name}/scale", scale | {"spec": {"replicas": count}})
    # The watch begins with the Deployment as it is.
    for event in Client(bench.daemon.config.socket).watch(DEPLOYMENTS, timeout=_PATIENCE):
        found = event["object"]
        status = found.get("status", {})
        seen = found["metadata"]["name"] == name and found["metadata"]["generation"] == status.get("observedGeneration")
        if seen and status.get("readyReplicas", 0) == status.get("replicas", 0) == count:
            break
    if not count:
        bench.observer.wait(bench.observer.gone, pods)
    return (time.perf_counter() - begin) * 1e3
