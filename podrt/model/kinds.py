"""The resources this server has: plural name, kind, type and scope, in one table.

The store, the API's paths and discovery read it; a new kind is added here.
"""

from __future__ import annotations

from dataclasses import dataclass

from podrt.errors import NotFoundError
from podrt.model.apps import (
    ControllerRevision,
    ControllerRevisionList,
    DaemonSet,
    DaemonSetList,
    Deployment,
    DeploymentList,
    ReplicaSet,
    ReplicaSetList,
    StatefulSet,
    StatefulSetList,
)
from podrt.model.base import Struct
from podrt.model.batch import CronJob, CronJobList, Job, JobList
from podrt.model.classes import PriorityClass, PriorityClassList, RuntimeClass, RuntimeClassList
from podrt.model.configuration import (
    ConfigMap,
    ConfigMapList,
    Secret,
    SecretList,
    ServiceAccount,
    ServiceAccountList,
)
from podrt.model.csi import CSIDriver, CSIDriverList
from podrt.model.event import Event, EventList
from podrt.model.namespace import Namespace, NamespaceList
from podrt.model.node import Node, NodeList
from podrt.model.pod import Pod, PodList
from podrt.model.policy import LimitRange, LimitRangeList, ResourceQuota, ResourceQuotaList
from podrt.model.storage import (
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimList,
    PersistentVolumeList,
    StorageClass,
    StorageClassList,
)

Object = (
    Pod
    | Namespace
    | Node
    | Event
    | ConfigMap
    | Secret
    | ServiceAccount
    | LimitRange
    | ResourceQuota
    | PersistentVolume
    | PersistentVolumeClaim
    | StorageClass
    | Deployment
    | ReplicaSet
    | StatefulSet
    | DaemonSet
    | ControllerRevision
    | Job
    | CronJob
    | PriorityClass
    | RuntimeClass
    | CSIDriver
)
"""Any object that can be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of the API. ``api_version`` is ``v1`` for the core group, else ``group/version``."""

    name: str
    singular: str
    kind: str
    struct: type[Object]
    list_struct: type[Struct]
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    api_version: str = "v1"
    generation: bool = False
    """Whether metadata.generation counts the changes of its spec."""

    @property
    def group(self) -> str:
        """ "" for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def qualified(self) -> str:
        """As messages name it: ``pods``, ``deployments.apps``."""
        return f"{self.name}.{self.group}" if self.group else self.name


RESOURCES: tuple[Resource, ...] = (
    Resource(
        name="namespaces",
        singular="namespace",
        kind="Namespace",
        struct=Namespace,
        list_struct=NamespaceList,
        namespaced=False,
        short_names=("ns",),
        subresources=("status",),
    ),
    Resource(
        name="nodes",
        singular="node",
        kind="Node",
        struct=Node,
        list_struct=NodeList,
        namespaced=False,
        short_names=("no",),
        subresources=("status",),
    ),
    Resource(
        name="pods",
        singular="pod",
        kind="Pod",
        struct=Pod,
        list_struct=PodList,
        short_names=("po",),
        categories=("all",),
        subresources=("status", "ephemeralcontainers", "resize", "binding", "log", "exec", "attach", "portforward"),
        generation=True,
    ),
    Resource(
        name="events",
        singular="event",
        kind="Event",
        struct=Event,
        list_struct=EventList,
        short_names=("ev",),
    ),
    Resource(
        name="configmaps",
        singular="configmap",
        kind="ConfigMap",
        struct=ConfigMap,
        list_struct=ConfigMapList,
        short_names=("cm",),
    ),
    Resource(
        name="secrets",
        singular="secret",
        kind="Secret",
        struct=Secret,
        list_struct=SecretList,
    ),
    Resource(
        name="serviceaccounts",
        singular="serviceaccount",
        kind="ServiceAccount",
        struct=ServiceAccount,
        list_struct=ServiceAccountList,
        short_names=("sa",),
        subresources=("token",),
    ),
    Resource(
        name="limitranges",
        singular="limitrange",
        kind="LimitRange",
        struct=LimitRange,
        list_struct=LimitRangeList,
        short_names=("limits",),
    ),
    Resource(
        name="resourcequotas",
        singular="resourcequota",
        kind="ResourceQuota",
        struct=ResourceQuota,
        list_struct=ResourceQuotaList,
        short_names=("quota",),
        subresources=("status",),
    ),
    Resource(
        name="persistentvolumeclaims",
        singular="persistentvolumeclaim",
        kind="PersistentVolumeClaim",
        struct=PersistentVolumeClaim,
        list_struct=PersistentVolumeClaimList,
        short_names=("pvc",),
        subresources=("status",),
    ),
    Resource(
        name="persistentvolumes",
        singular="persistentvolume",
        kind="PersistentVolume",
        struct=PersistentVolume,
        list_struct=PersistentVolumeList,
        namespaced=False,
        short_names=("pv",),
        subresources=("status",),
    ),
    Resource(
        name="storageclasses",
        singular="storageclass",
        kind="StorageClass",
        struct=StorageClass,
        list_struct=StorageClassList,
        namespaced=False,
        short_names=("sc",),
        api_version="storage.k8s.io/v1",
    ),
    Resource(
        name="controllerrevisions",
        singular="controllerrevision",
        kind="ControllerRevision",
        struct=ControllerRevision,
        list_struct=ControllerRevisionList,
        api_version="apps/v1",
    ),
    Resource(
        name="daemonsets",
        singular="daemonset",
        kind="DaemonSet",
        struct=DaemonSet,
        list_struct=DaemonSetList,
        short_names=("ds",),
        categories=("all",),
        subresources=("status",),
        api_version="apps/v1",
        generation=True,
    ),
    Resource(
        name="deployments",
        singular="deployment",
        kind="Deployment",
        struct=Deployment,
        list_struct=DeploymentList,
        short_names=("deploy",),
        categories=("all",),
        subresources=("status", "scale"),
        api_version="apps/v1",
        generation=True,
    ),
    Resource(
        name="replicasets",
        singular="replicaset",
        kind="ReplicaSet",
        struct=ReplicaSet,
        list_struct=ReplicaSetList,
        short_names=("rs",),
        categories=("all",),
        subresources=("status", "scale"),
        api_version="apps/v1",
        generation=True,
    ),
    Resource(
        name="statefulsets",
        singular="statefulset",
        kind="StatefulSet",
        struct=StatefulSet,
        list_struct=StatefulSetList,
        short_names=("sts",),
        categories=("all",),
        subresources=("status", "scale"),
        api_version="apps/v1",
        generation=True,
    ),
    Resource(
        name="cronjobs",
        singular="cronjob",
        kind="CronJob",
        struct=CronJob,
        list_struct=CronJobList,
        short_names=("cj",),
        categories=("all",),
        subresources=("status",),
        api_version="batch/v1",
        generation=True,
    ),
    Resource(
        name="jobs",
        singular="job",
        kind="Job",
        struct=Job,
        list_struct=JobList,
        categories=("all",),
        subresources=("status",),
        api_version="batch/v1",
        generation=True,
    ),
    Resource(
        name="priorityclasses",
        singular="priorityclass",
        kind="PriorityClass",
        struct=PriorityClass,
        list_struct=PriorityClassList,
        namespaced=False,
        short_names=("pc",),
        api_version="scheduling.k8s.io/v1",
        generation=True,
    ),
    Resource(
        name="runtimeclasses",
        singular="runtimeclass",
        kind="RuntimeClass",
        struct=RuntimeClass,
        list_struct=RuntimeClassList,
        namespaced=False,
        api_version="node.k8s.io/v1",
    ),
    Resource(
        name="csidrivers",
        singular="csidriver",
        kind="CSIDriver",
        struct=CSIDriver,
        list_struct=CSIDriverList,
        namespaced=False,
        api_version="storage.k8s.io/v1",
    ),
)

BY_NAME: dict[str, Resource] = {resource.name: resource for resource in RESOURCES}
BY_KIND: dict[tuple[str, str], Resource] = {(resource.api_version, resource.kind): resource for resource in RESOURCES}


def resource_named(name: str) -> Resource:
    """The resource of a plural name. Raises NotFoundError."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise NotFoundError(f"the server doesn't have a resource type {name!r}") from None


def resource_of(obj: Object) -> Resource:
    """The resource that an object belongs to."""
    return BY_KIND[(obj.api_version, obj.kind)]


BY_STRUCT: dict[type[Object], Resource] = {resource.struct: resource for resource in RESOURCES}


def resource_of_struct(struct: type[Object]) -> Resource:
    """The resource whose objects are of this struct."""
    return BY_STRUCT[struct]
