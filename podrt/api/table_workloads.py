"""Columns of the workload kinds, as kubectl prints them. See ``table`` for the frame."""

from __future__ import annotations

from typing import Any

from podrt.api.humantime import age, human_duration
from podrt.api.scale import selector_text
from podrt.model.apps import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from podrt.model.base import parse_time
from podrt.model.batch import CronJob, Job
from podrt.model.pod import PodTemplateSpec

NONE = "<none>"


def _containers(template: PodTemplateSpec) -> list[str]:
    containers = template.spec.containers
    return [",".join(entry.name for entry in containers), ",".join(entry.image for entry in containers)]


def deployment(value: Deployment, now: float) -> list[Any]:
    status = value.status
    return [
        value.metadata.name,
        f"{status.ready_replicas}/{value.spec.replicas or 0}",
        status.updated_replicas,
        status.available_replicas,
        age(value.metadata.creation_timestamp, now),
        *_containers(value.spec.template),
        selector_text(value.spec.selector),
    ]


def replica_set(value: ReplicaSet, now: float) -> list[Any]:
    return [
        value.metadata.name,
        value.spec.replicas or 0,
        value.status.replicas,
        value.status.ready_replicas,
        age(value.metadata.creation_timestamp, now),
        *_containers(value.spec.template),
        selector_text(value.spec.selector),
    ]


def stateful_set(value: StatefulSet, now: float) -> list[Any]:
    return [
        value.metadata.name,
        f"{value.status.ready_replicas}/{value.spec.replicas or 0}",
        age(value.metadata.creation_timestamp, now),
        *_containers(value.spec.template),
    ]


def daemon_set(value: DaemonSet, now: float) -> list[Any]:
    status, nodes = value.status, value.spec.template.spec.node_selector
    return [
        value.metadata.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        ",".join(f"{key}={text}" for key, text in sorted(nodes.items())) or NONE,
        age(value.metadata.creation_timestamp, now),
        *_containers(value.spec.template),
        selector_text(value.spec.selector),
    ]


def controller_revision(value: ControllerRevision, now: float) -> list[Any]:
    owner = next((owner for owner in value.metadata.owner_references if owner.controller), None)
    group = owner.api_version.partition("/")[0] if owner is not None else ""
    shown = f"{owner.kind.lower()}.{group}/{owner.name}" if owner is not None else NONE
    return [value.metadata.name, shown, value.revision, age(value.metadata.creation_timestamp, now)]


def _job_state(job: Job) -> str:
    told = {condition.type for condition in job.status.conditions if condition.status == "True"}
    for kind in ("Complete", "Failed"):
        if kind in told:
            return kind
    if job.metadata.deletion_timestamp:
        return "Terminating"
    return next((kind for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if kind in told), "Running")


def job(value: Job, now: float) -> list[Any]:
    spec, status = value.spec, value.status
    if spec.completions is not None:
        completions = f"{status.succeeded}/{spec.completions}"
    elif (spec.parallelism or 0) > 1:
        completions = f"{status.succeeded}/1 of {spec.parallelism}"
    else:
        completions = f"{status.succeeded}/1"
    took = ""
    if status.start_time is not None:
        end = now if status.completion_time is None else parse_time(status.completion_time).timestamp()
        took = human_duration(end - parse_time(status.start_time).timestamp())
    return [
        value.metadata.name,
        _job_state(value),
        completions,
        took,
        age(value.metadata.creation_timestamp, now),
        *_containers(spec.template),
        selector_text(spec.selector),
    ]


def cron_job(value: CronJob, now: float) -> list[Any]:
    spec, last = value.spec, value.status.last_schedule_time
    return [
        value.metadata.name,
        spec.schedule,
        spec.time_zone or NONE,
        str(bool(spec.suspend)).capitalize(),
        len(value.status.active),
        age(last, now) if last is not None else NONE,
        age(value.metadata.creation_timestamp, now),
        *_containers(spec.job_template.spec.template),
        NONE,
    ]
