"""What all workload kinds have in common: a Pod template, and where it is."""

from __future__ import annotations

from podrt.model.apps import DaemonSet, Deployment, ReplicaSet, StatefulSet
from podrt.model.batch import CronJob, Job
from podrt.model.kinds import Object
from podrt.model.pod import PodTemplateSpec

Workload = Deployment | ReplicaSet | StatefulSet | DaemonSet | Job
WORKLOADS = (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job)
SCALABLE = (Deployment, ReplicaSet, StatefulSet)


def template_of(obj: Object) -> tuple[str, PodTemplateSpec] | None:
    """``(path, template)`` of a workload, None for other kinds."""
    if isinstance(obj, CronJob):
        return "spec.jobTemplate.spec.template", obj.spec.job_template.spec.template
    if isinstance(obj, WORKLOADS):
        return "spec.template", obj.spec.template
    return None
