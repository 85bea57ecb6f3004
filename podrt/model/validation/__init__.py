"""Validation: what is wrong with an object, as a list of causes with Kubernetes' field paths, reasons and words.

Objects must have their defaults. Everything that is wrong is found, not only the first. The themes have a file each;
what this version can't do *yet* is another question, answered by :mod:`podrt.model.support`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podrt.errors import Cause
from podrt.model.apps import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from podrt.model.batch import CronJob, Job
from podrt.model.classes import PriorityClass, RuntimeClass
from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.csi import CSIDriver
from podrt.model.event import Event
from podrt.model.kinds import Object
from podrt.model.meta import DeleteOptions
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.policy import LimitRange, ResourceQuota
from podrt.model.scheduling import Binding
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim, StorageClass
from podrt.model.validation import apps, batch, classes, configuration, policy, storage
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import delete_options, object_meta_update
from podrt.model.validation.others import event, namespace, node, pod_binding
from podrt.model.validation.pod import pod
from podrt.model.validation.resize import resize_update
from podrt.model.validation.update import ephemeral_containers_update, pod_update

__all__ = [
    "Causes",
    "validate",
    "validate_binding",
    "validate_delete_options",
    "validate_ephemeral_containers",
    "validate_resize",
    "validate_update",
]


_RULES: dict[type[Object], Callable[[Any], Causes]] = {
    Pod: pod,
    Namespace: namespace,
    Node: node,
    Event: event,
    ConfigMap: configuration.config_map,
    Secret: configuration.secret,
    ServiceAccount: configuration.service_account,
    LimitRange: policy.limit_range,
    ResourceQuota: policy.resource_quota,
    PersistentVolume: storage.volume,
    PersistentVolumeClaim: storage.claim,
    StorageClass: storage.storage_class,
    CSIDriver: storage.csi_driver,
    Deployment: apps.deployment,
    ReplicaSet: apps.replica_set,
    StatefulSet: apps.stateful_set,
    DaemonSet: apps.daemon_set,
    ControllerRevision: apps.controller_revision,
    Job: batch.job,
    CronJob: batch.cron_job,
    PriorityClass: classes.priority_class,
    RuntimeClass: classes.runtime_class,
}
_UPDATE_RULES: dict[type[Object], Callable[[Causes, Any, Any], None]] = {
    ConfigMap: configuration.config_map_update,
    Secret: configuration.secret_update,
    PersistentVolume: storage.volume_update,
    PersistentVolumeClaim: storage.claim_update,
    StorageClass: storage.storage_class_update,
    CSIDriver: storage.csi_driver_update,
    Deployment: apps.deployment_update,
    ReplicaSet: apps.replica_set_update,
    StatefulSet: apps.stateful_set_update,
    DaemonSet: apps.daemon_set_update,
    ControllerRevision: apps.controller_revision_update,
    Job: batch.job_update,
    PriorityClass: classes.priority_class_update,
    RuntimeClass: classes.runtime_class_update,
}


def validate(obj: Object) -> list[Cause]:
    """Everything that is wrong with an object that is about to be created."""
    return _RULES[type(obj)](obj)


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Everything that is wrong with replacing ``old`` by ``new``."""
    if isinstance(new, Pod) and isinstance(old, Pod):
        return pod_update(new, old)
    causes = Causes(validate(new))
    object_meta_update(causes, new.metadata, old.metadata)
    rule = _UPDATE_RULES.get(type(new))
    if rule is not None:
        rule(causes, new, old)
    return causes


def validate_ephemeral_containers(new: Pod, old: Pod) -> list[Cause]:
    """Everything that is wrong with the ephemeral containers that ``new`` gives to the Pod ``old``."""
    return ephemeral_containers_update(new, old)


def validate_binding(binding: Binding, pod: Pod) -> list[Cause]:
    """Everything that is wrong with a scheduler's choice."""
    return pod_binding(binding, pod)


def validate_resize(new: Pod, old: Pod) -> list[Cause]:
    """Everything that is wrong with the resources that ``new`` gives to the containers of the Pod ``old``."""
    return resize_update(new, old)


def validate_delete_options(options: DeleteOptions) -> list[Cause]:
    return delete_options(options)
