"""apps/v1: Deployment, ReplicaSet, StatefulSet, DaemonSet and ControllerRevision, all fields of Kubernetes 1.36."""

from __future__ import annotations

from typing import Any

import msgspec

from podrt.model.base import Int32, Int64, IntOrString, Struct, Time, always, made
from podrt.model.meta import LabelSelector, ListMeta, ObjectMeta
from podrt.model.pod import PodTemplateSpec
from podrt.model.storage import PersistentVolumeClaim

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
CHANGE_CAUSE = "kubernetes.io/change-cause"
TEMPLATE_HASH = "pod-template-hash"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
REVISION_HASH = "controller-revision-hash"
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class WorkloadCondition(Struct, frozen=True, kw_only=True):
    """A condition of a ReplicaSet, StatefulSet or DaemonSet."""

    type: str = always("")
    status: str = always("")
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


# ReplicaSet


class ReplicaSetSpec(Struct, frozen=True, kw_only=True):
    replicas: Int32 | None = None
    min_ready_seconds: Int32 = 0
    selector: LabelSelector | None = always(None)
    template: PodTemplateSpec = msgspec.field(default_factory=PodTemplateSpec)


class ReplicaSetStatus(Struct, frozen=True, kw_only=True):
    replicas: Int32 = always(0)
    fully_labeled_replicas: Int32 = 0
    ready_replicas: Int32 = 0
    available_replicas: Int32 = 0
    terminating_replicas: Int32 | None = None
    observed_generation: Int64 = 0
    conditions: tuple[WorkloadCondition, ...] = ()


class ReplicaSet(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("ReplicaSet")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: ReplicaSetSpec = made(ReplicaSetSpec)
    status: ReplicaSetStatus = made(ReplicaSetStatus)


class ReplicaSetList(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("ReplicaSetList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[ReplicaSet, ...] = always(())


# Deployment


class RollingUpdateDeployment(Struct, frozen=True, kw_only=True):
    max_unavailable: IntOrString | None = None
    max_surge: IntOrString | None = None


class DeploymentStrategy(Struct, frozen=True, kw_only=True):
    type: str = ""
    """RollingUpdate or Recreate."""
    rolling_update: RollingUpdateDeployment | None = None


class DeploymentSpec(Struct, frozen=True, kw_only=True):
    replicas: Int32 | None = None
    selector: LabelSelector | None = always(None)
    template: PodTemplateSpec = made(PodTemplateSpec)
    strategy: DeploymentStrategy = made(DeploymentStrategy)
    min_ready_seconds: Int32 = 0
    revision_history_limit: Int32 | None = None
    paused: bool = False
    progress_deadline_seconds: Int32 | None = None


class DeploymentCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    status: str = always("")
    last_update_time: Time | None = None
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class DeploymentStatus(Struct, frozen=True, kw_only=True):
    observed_generation: Int64 = 0
    replicas: Int32 = 0
    updated_replicas: Int32 = 0
    ready_replicas: Int32 = 0
    available_replicas: Int32 = 0
    unavailable_replicas: Int32 = 0
    terminating_replicas: Int32 | None = None
    conditions: tuple[DeploymentCondition, ...] = ()
    collision_count: Int32 | None = None


class Deployment(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("Deployment")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: DeploymentSpec = made(DeploymentSpec)
    status: DeploymentStatus = made(DeploymentStatus)


class DeploymentList(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("DeploymentList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Deployment, ...] = always(())


# StatefulSet


class RollingUpdateStatefulSet(Struct, frozen=True, kw_only=True):
    partition: Int32 | None = None
    max_unavailable: IntOrString | None = None


class StatefulSetUpdateStrategy(Struct, frozen=True, kw_only=True):
    type: str = ""
    """RollingUpdate or OnDelete."""
    rolling_update: RollingUpdateStatefulSet | None = None


class ClaimRetentionPolicy(Struct, frozen=True, kw_only=True):
    when_deleted: str = ""
    """Retain or Delete."""
    when_scaled: str = ""


class StatefulSetOrdinals(Struct, frozen=True, kw_only=True):
    start: Int32 = always(0)


class StatefulSetSpec(Struct, frozen=True, kw_only=True):
    replicas: Int32 | None = None
    selector: LabelSelector | None = always(None)
    template: PodTemplateSpec = made(PodTemplateSpec)
    volume_claim_templates: tuple[PersistentVolumeClaim, ...] = ()
    service_name: str = always("")
    pod_management_policy: str = ""
    """OrderedReady or Parallel."""
    update_strategy: StatefulSetUpdateStrategy = made(StatefulSetUpdateStrategy)
    revision_history_limit: Int32 | None = None
    min_ready_seconds: Int32 = 0
    persistent_volume_claim_retention_policy: ClaimRetentionPolicy | None = None
    ordinals: StatefulSetOrdinals | None = None


class StatefulSetStatus(Struct, frozen=True, kw_only=True):
    observed_generation: Int64 = 0
    replicas: Int32 = always(0)
    ready_replicas: Int32 = 0
    current_replicas: Int32 = 0
    updated_replicas: Int32 = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: Int32 | None = None
    conditions: tuple[WorkloadCondition, ...] = ()
    available_replicas: Int32 = always(0)


class StatefulSet(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("StatefulSet")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: StatefulSetSpec = made(StatefulSetSpec)
    status: StatefulSetStatus = made(StatefulSetStatus)


class StatefulSetList(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("StatefulSetList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[StatefulSet, ...] = always(())


# DaemonSet


class RollingUpdateDaemonSet(Struct, frozen=True, kw_only=True):
    max_unavailable: IntOrString | None = None
    max_surge: IntOrString | None = None


class DaemonSetUpdateStrategy(Struct, frozen=True, kw_only=True):
    type: str = ""
    """RollingUpdate or OnDelete."""
    rolling_update: RollingUpdateDaemonSet | None = None


class DaemonSetSpec(Struct, frozen=True, kw_only=True):
    selector: LabelSelector | None = always(None)
    template: PodTemplateSpec = made(PodTemplateSpec)
    update_strategy: DaemonSetUpdateStrategy = made(DaemonSetUpdateStrategy)
    min_ready_seconds: Int32 = 0
    revision_history_limit: Int32 | None = None


class DaemonSetStatus(Struct, frozen=True, kw_only=True):
    current_number_scheduled: Int32 = always(0)
    number_misscheduled: Int32 = always(0)
    desired_number_scheduled: Int32 = always(0)
    number_ready: Int32 = always(0)
    observed_generation: Int64 = 0
    updated_number_scheduled: Int32 = 0
    number_available: Int32 = 0
    number_unavailable: Int32 = 0
    collision_count: Int32 | None = None
    conditions: tuple[WorkloadCondition, ...] = ()


class DaemonSet(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("DaemonSet")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: DaemonSetSpec = made(DaemonSetSpec)
    status: DaemonSetStatus = made(DaemonSetStatus)


class DaemonSetList(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("DaemonSetList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[DaemonSet, ...] = always(())


# ControllerRevision


class ControllerRevision(Struct, frozen=True, kw_only=True):
    """One template of a StatefulSet or DaemonSet, as the strategic merge patch that brings it back."""

    api_version: str = always("apps/v1")
    kind: str = always("ControllerRevision")
    metadata: ObjectMeta = made(ObjectMeta)
    data: dict[str, Any] | None = None
    revision: Int64 = always(0)


class ControllerRevisionList(Struct, frozen=True, kw_only=True):
    api_version: str = always("apps/v1")
    kind: str = always("ControllerRevisionList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[ControllerRevision, ...] = always(())
