"""Resource types and their paths: the ones asked for most are known here, the rest are discovered from the server.

Knowing pods and their like saves ``podrt get pods`` the discovery requests that kubectl keeps a cache for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from podrt.cli.client import Client, quote
from podrt.cli.errors import ApiError, CliError


class Resource(NamedTuple):
    """One row of discovery."""

    plural: str
    singular: str
    kind: str
    group_version: str
    """``v1`` or ``group/version``."""
    namespaced: bool
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return self.group_version.rpartition("/")[0]

    @property
    def label(self) -> str:
        """How messages name the type of an object: ``pod``, ``deployment.apps``."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    def collection(self, namespace: str | None) -> str:
        """The path of the list; ``namespace`` None means all."""
        root = "/apis/" if "/" in self.group_version else "/api/"
        middle = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        return f"{root}{self.group_version}{middle}/{self.plural}"

    def item(self, namespace: str, name: str) -> str:
        return f"{self.collection(namespace)}/{quote(name)}"


PODS = Resource("pods", "pod", "Pod", "v1", True, ("po",))
NODES = Resource("nodes", "node", "Node", "v1", False, ("no",))
NAMESPACES = Resource("namespaces", "namespace", "Namespace", "v1", False, ("ns",))
EVENTS = Resource("events", "event", "Event", "v1", True, ("ev",))
CONFIG_MAPS = Resource("configmaps", "configmap", "ConfigMap", "v1", True, ("cm",))
SECRETS = Resource("secrets", "secret", "Secret", "v1", True)
DEPLOYMENTS = Resource("deployments", "deployment", "Deployment", "apps/v1", True, ("deploy",))
REPLICA_SETS = Resource("replicasets", "replicaset", "ReplicaSet", "apps/v1", True, ("rs",))
STATEFUL_SETS = Resource("statefulsets", "statefulset", "StatefulSet", "apps/v1", True, ("sts",))
DAEMON_SETS = Resource("daemonsets", "daemonset", "DaemonSet", "apps/v1", True, ("ds",))
JOBS = Resource("jobs", "job", "Job", "batch/v1", True)
CRON_JOBS = Resource("cronjobs", "cronjob", "CronJob", "batch/v1", True, ("cj",))
WORKLOADS = (DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, CRON_JOBS, JOBS)
CLAIMS = Resource("persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", "v1", True, ("pvc",))
ACCOUNTS = Resource("serviceaccounts", "serviceaccount", "ServiceAccount", "v1", True, ("sa",))
PRIORITIES = Resource("priorityclasses", "priorityclass", "PriorityClass", "scheduling.k8s.io/v1", False, ("pc",))
KNOWN = (PODS, NODES, NAMESPACES, EVENTS, CONFIG_MAPS, SECRETS, CLAIMS, *WORKLOADS, ACCOUNTS, PRIORITIES)
ALL = (PODS, *WORKLOADS)
"""What ``get all`` means: discovery's category ``all``, in kubectl's order."""


def discover(client: Client) -> list[Resource]:
    """All resource types of the server (subresources left out), those of ``v1`` first.

    A group whose list can't be read is left out: one broken group must not hide the others.
    """
    versions = ["v1"]
    for group in client.get("/apis").get("groups") or ():
        preferred = group.get("preferredVersion") or (group.get("versions") or [{}])[0]
        if preferred.get("groupVersion"):
            versions.append(str(preferred["groupVersion"]))
    found: list[Resource] = []
    for version in versions:
        found += _group(client, version)
    return found


def _group(client: Client, group_version: str) -> list[Resource]:
    root = "/apis/" if "/" in group_version else "/api/"
    try:
        rows = client.get(root + group_version).get("resources") or ()
    except ApiError:
        return []
    return [
        Resource(
            str(row["name"]),
            str(row.get("singularName") or row.get("kind", "")).lower(),
            str(row.get("kind", "")),
            group_version,
            bool(row.get("namespaced")),
            tuple(row.get("shortNames") or ()),
            tuple(row.get("verbs") or ()),
        )
        for row in rows
        if "/" not in str(row.get("name", "/"))
    ]


def _match(resources: Iterable[Resource], word: str) -> Resource | None:
    name, _, group = word.lower().partition(".")
    for resource in resources:
        if name in (resource.plural, resource.singular, resource.kind.lower(), *resource.short) and (
            not group or group in (resource.group, ".".join(reversed(resource.group_version.split("/"))))
        ):
            return resource
    return None


def find(client: Client, word: str) -> Resource:
    """The type that ``word`` names: plural, singular, short or ``plural.group``. Raises CliError if there is none."""
    resource = _match(KNOWN, word) or _match(discover(client), word)
    if resource is None:
        raise CliError(f'the server doesn\'t have a resource type "{word}"')
    return resource


def for_kind(client: Client, group_version: str, kind: str, origin: str) -> Resource:
    """The type of a manifest's ``apiVersion`` and ``kind``. Raises CliError that names ``origin`` if there is none."""
    for resource in KNOWN:
        if resource.kind == kind and resource.group_version == group_version:
            return resource
    for resource in _group(client, group_version):
        if resource.kind == kind:
            return resource
    raise CliError(
        f'resource mapping not found in "{origin}": no matches for kind "{kind}" in version "{group_version}"'
    )


class Target(NamedTuple):
    """What a command line names: a type, and the names (none: all of the type)."""

    resource: Resource
    names: tuple[str, ...]


def parse_targets(client: Client, args: Sequence[str]) -> list[Target]:
    """Read ``pods``, ``pods a b``, ``pods,nodes``, ``pod/a node/b``. Raises CliError for a mixture of the two forms."""
    if not args:
        raise CliError("you must specify the type of resource; 'podrt api-resources' lists them")
    if any("/" in arg for arg in args):
        return _slash_targets(client, args)
    words = [word for word in args[0].split(",") if word]
    if args[0] == "all":
        words = [resource.plural for resource in ALL]
    targets = [Target(find(client, word), tuple(args[1:])) for word in words]
    if not targets:
        raise CliError("you must specify the type of resource; 'podrt api-resources' lists them")
    return targets


def _slash_targets(client: Client, args: Sequence[str]) -> list[Target]:
    targets: list[Target] = []
    for arg in args:
        word, slash, name = arg.partition("/")
        if not slash:
            raise CliError(
                "there is no need to specify a resource type as a separate argument when passing arguments in "
                f"resource/name form ('podrt get {word}/NAME' instead of 'podrt get {word} {word}/NAME')"
            )
        if not word or not name or "/" in name:
            raise CliError(f'arguments in resource/name form must have a single resource and name, not "{arg}"')
        targets.append(Target(find(client, word), (name,)))
    return targets


def pod_of(client: Client, namespace: str, arg: str) -> str:
    """The name of the Pod that ``NAME``, ``pod/NAME`` or ``deployment/NAME`` means: of a workload's Pods the one that
    has been ready for longest. Says on stderr which it took of several. Raises CliError if there is none.
    """
    word, slash, name = arg.partition("/")
    resource = find(client, word) if slash and name and _match((PODS,), word) is None else PODS
    if resource not in WORKLOADS or resource == CRON_JOBS:
        return pod_name(arg)
    from podrt.cli.describe_workload import selector_text

    selector = selector_text((client.get(resource.item(namespace, name)).get("spec") or {}).get("selector"))
    found = client.get(PODS.collection(namespace), {"labelSelector": selector}).get("items") or []
    if not found:
        raise CliError(f"{arg} has no pods")

    def rank(pod: dict[str, Any]) -> tuple[bool, bool, str]:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        ready = next((one for one in conditions if one.get("type") == "Ready" and one.get("status") == "True"), None)
        since = (ready or {}).get("lastTransitionTime") or pod["metadata"].get("creationTimestamp", "")
        return ready is None, "deletionTimestamp" in pod["metadata"], str(since)

    chosen = str(min(found, key=rank)["metadata"]["name"])
    if len(found) > 1:
        from podrt.cli.session import err

        err(f"Found {len(found)} pods, using pod/{chosen}")
    return chosen


def pod_name(arg: str) -> str:
    """The name of ``NAME`` or ``pod/NAME``. Raises CliError for another type."""
    word, slash, name = arg.partition("/")
    if not slash:
        return arg
    if _match((PODS,), word) is None or not name or "/" in name:
        raise CliError(f"{arg}: only pods are understood here (NAME or pod/NAME)")
    return name
