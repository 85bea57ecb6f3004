"""What the server has: ``/api``, ``/apis``, each group-version, and the aggregated form that kubectl asks for first.

All of it is derived from ``model.kinds`` and the two groups below, so that nothing can be served and not announced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from podrt.model.kinds import RESOURCES, Resource
from podrt.model.tokens import API_VERSION as TOKENS

METRICS_GROUP = "metrics.k8s.io"
METRICS_VERSION = "v1beta1"
PODRT_GROUP = "podrt.dev"
PODRT_VERSION = "v1alpha1"

AGGREGATED = "APIGroupDiscoveryList"

UNDELETABLE_COLLECTIONS = ("namespaces",)
"""Kinds without deletecollection: too much would go with one request."""

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "status": ("", ("get", "patch", "update")),
    "ephemeralcontainers": ("", ("get", "patch", "update")),
    "resize": ("", ("get", "patch", "update")),
    "binding": ("Binding", ("create",)),
    "token": ("TokenRequest", ("create",)),
    "log": ("", ("get",)),
    "exec": ("PodExecOptions", ("create", "get")),
    "attach": ("PodAttachOptions", ("create", "get")),
    "portforward": ("PodPortForwardOptions", ("create", "get")),
    "scale": ("Scale", ("get", "patch", "update")),
}
_FOREIGN = {"Scale": ("autoscaling", "v1"), "TokenRequest": ("authentication.k8s.io", "v1")}
"""Group and version of kinds that belong elsewhere than the resource that they are a part of."""


class Announced(NamedTuple):
    """One resource as discovery lists it."""

    name: str
    singular: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()


class Group(NamedTuple):
    name: str
    version: str
    resources: tuple[Announced, ...]

    @property
    def group_version(self) -> str:
        return f"{self.name}/{self.version}" if self.name else self.version

    @property
    def path(self) -> str:
        """The prefix of its paths, without slash: ``api/v1``, ``apis/metrics.k8s.io/v1beta1``."""
        return f"apis/{self.group_version}" if self.name else f"api/{self.version}"


def _announce(resource: Resource) -> Announced:
    return Announced(
        name=resource.name,
        singular=resource.singular,
        kind=resource.kind,
        namespaced=resource.namespaced,
        verbs=tuple(v for v in _VERBS if v != "deletecollection" or resource.name not in UNDELETABLE_COLLECTIONS),
        short_names=resource.short_names,
        categories=resource.categories,
        subresources=tuple(name for name in resource.subresources if name in _SUBRESOURCES),
    )


def groups() -> tuple[Group, ...]:
    """All group-versions, the core group first."""
    by_version: dict[str, list[Announced]] = {"v1": []}
    for resource in RESOURCES:
        by_version.setdefault(resource.api_version, []).append(_announce(resource))
    found = [
        Group(version.rpartition("/")[0], version.rpartition("/")[2], tuple(resources))
        for version, resources in by_version.items()
    ]
    usage = (
        Announced("nodes", "", "NodeMetrics", False, ("get", "list")),
        Announced("pods", "", "PodMetrics", True, ("get", "list")),
    )
    reviews = (Announced("tokenreviews", "tokenreview", "TokenReview", False, ("create",)),)
    images = (Announced("images", "image", "Image", False, ("delete", "get", "list"), short_names=("img",)),)
    group, _, version = TOKENS.partition("/")
    reviewing = Group(group, version, reviews)
    return (*found, reviewing, Group(METRICS_GROUP, METRICS_VERSION, usage), Group(PODRT_GROUP, PODRT_VERSION, images))


def api_versions() -> dict[str, Any]:
    """``/api``."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def api_group(group: Group) -> dict[str, Any]:
    """``/apis/<group>``."""
    version = {"groupVersion": group.group_version, "version": group.version}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group.name,
        "versions": [version],
        "preferredVersion": version,
    }


def api_group_list() -> dict[str, Any]:
    """``/apis``."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [api_group(g) for g in groups() if g.name]}


def resource_list(group: Group) -> dict[str, Any]:
    """``/api/v1`` and ``/apis/<group>/<version>``."""
    entries: list[dict[str, Any]] = []
    for resource in group.resources:
        entry: dict[str, Any] = {
            "name": resource.name,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        }
        if resource.short_names:
            entry["shortNames"] = resource.short_names
        if resource.categories:
            entry["categories"] = resource.categories
        entries.append(entry)
        for name in resource.subresources:
            kind, verbs = _SUBRESOURCES[name]
            foreign = dict(zip(("group", "version"), _FOREIGN.get(kind, ()), strict=False))
            entries.append(
                {
                    "name": f"{resource.name}/{name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    **foreign,
                    "kind": kind or resource.kind,
                    "verbs": verbs,
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group.group_version,
        "resources": entries,
    }


def aggregated(version: str, *, core: bool) -> dict[str, Any]:
    """``/api`` (``core``) or ``/apis`` as one APIGroupDiscoveryList; ``version`` is v2 or v2beta1."""
    return {
        "kind": AGGREGATED,
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_aggregated_group(group) for group in groups() if (group.name == "") is core],
    }


def _aggregated_group(group: Group) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for resource in group.resources:
        entry: dict[str, Any] = {
            "resource": resource.name,
            "responseKind": _kind(group, resource.kind),
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": resource.verbs,
        }
        if resource.short_names:
            entry["shortNames"] = resource.short_names
        if resource.categories:
            entry["categories"] = resource.categories
        if resource.subresources:
            entry["subresources"] = [
                {
                    "subresource": name,
                    "responseKind": _kind(group, _SUBRESOURCES[name][0] or resource.kind),
                    "verbs": _SUBRESOURCES[name][1],
                }
                for name in resource.subresources
            ]
        resources.append(entry)
    version = {"version": group.version, "resources": resources, "freshness": "Current"}
    return {"metadata": {"name": group.name, "creationTimestamp": None}, "versions": [version]}


def _kind(group: Group, kind: str) -> dict[str, str]:
    name, version = _FOREIGN.get(kind, (group.name, group.version))
    return {"group": name, "version": version, "kind": kind}
