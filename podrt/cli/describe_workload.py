"""``podrt describe`` of deployments and their kind, jobs and cronjobs: kubectl's layout."""

from __future__ import annotations

from typing import Any

from podrt.cli.describe_common import Object, map_lines, metadata_lines
from podrt.cli.describe_pod import container_lines, toleration_lines, volume_lines
from podrt.cli.times import human_duration, local_time, parse_time

KINDS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob")


def selector_text(selector: Object | None) -> str:
    parts = [f"{key}={value}" for key, value in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for entry in (selector or {}).get("matchExpressions") or ():
        values = ",".join(sorted(entry.get("values") or ()))
        shown = {
            "In": f"{entry['key']} in ({values})",
            "NotIn": f"{entry['key']} notin ({values})",
            "Exists": entry["key"],
            "DoesNotExist": f"!{entry['key']}",
        }
        parts.append(shown.get(entry.get("operator", ""), ""))
    return ",".join(parts) or "<none>"


def template_lines(template: Object) -> list[str]:
    """``Pod Template:`` and all below it."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    lines = ["Pod Template:", *map_lines("Labels", metadata.get("labels"), "  ")]
    if metadata.get("annotations"):
        lines += map_lines("Annotations", metadata["annotations"], "  ", ": ")
    if spec.get("serviceAccountName"):
        lines.append(f"  Service Account:\t{spec['serviceAccountName']}")
    lines = [line[2:] if line.startswith("  \t") else line for line in lines]
    inner = container_lines("Init Containers", spec.get("initContainers"), None)
    inner += container_lines("Containers", spec.get("containers"), None)
    inner += volume_lines(spec.get("volumes") or [])
    inner += map_lines("Node-Selectors", spec.get("nodeSelector"))
    inner += toleration_lines(spec.get("tolerations") or [])
    return lines + [_indented(line) for line in inner if "Container ID:" not in line and "Image ID:" not in line]


def _indented(line: str) -> str:
    """kubectl puts titles in by two, names by three, and leaves what is below them."""
    if line.startswith("    "):
        return line
    return f" {line}" if line.startswith("  ") else f"  {line}"


def describe_workload(value: Object, kind: str, related: list[Object]) -> list[str]:
    """Lines with tabs, without the events. ``related``: the Pods, or of a deployment the ReplicaSets, that it owns."""
    metadata = value.get("metadata") or {}
    head = [f"Name:\t{metadata.get('name', '')}", f"Namespace:\t{metadata.get('namespace', '')}"]
    body = {
        "Deployment": _deployment,
        "ReplicaSet": _replica_set,
        "StatefulSet": _stateful_set,
        "DaemonSet": _daemon_set,
        "Job": _job,
        "CronJob": _cron_job,
    }[kind]
    return [*head, *body(value, related)]


def _created(value: Object) -> str:
    return f"CreationTimestamp:\t{local_time((value.get('metadata') or {}).get('creationTimestamp'))}"


def _controlled_by(value: Object) -> list[str]:
    owners = (value.get("metadata") or {}).get("ownerReferences") or ()
    return [f"Controlled By:\t{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")]


def _conditions(value: Object, *, reason: bool = True) -> list[str]:
    conditions = (value.get("status") or {}).get("conditions") or ()
    if not conditions:
        return []
    lines = ["Conditions:", "  Type\tStatus\tReason", "  ----\t------\t------"]
    return lines + [f"  {item.get('type')}\t{item.get('status')}\t{item.get('reason', '')}" for item in conditions]


def _phases(pods: list[Object]) -> str:
    counts = dict.fromkeys(("Running", "Pending", "Succeeded", "Failed"), 0)
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "")
        if phase in counts:
            counts[phase] += 1
    words = {"Running": "Running", "Pending": "Waiting", "Succeeded": "Succeeded", "Failed": "Failed"}
    return " / ".join(f"{count} {words[phase]}" for phase, count in counts.items())


def _deployment(value: Object, sets: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    strategy = spec.get("strategy") or {}
    lines = [_created(value), *metadata_lines(value), f"Selector:\t{selector_text(spec.get('selector'))}"]
    lines.append(
        f"Replicas:\t{spec.get('replicas', 0)} desired | {status.get('updatedReplicas', 0)} updated | "
        f"{status.get('replicas', 0)} total | {status.get('availableReplicas', 0)} available | "
        f"{status.get('unavailableReplicas', 0)} unavailable"
    )
    lines.append(f"StrategyType:\t{strategy.get('type', '')}")
    lines.append(f"MinReadySeconds:\t{spec.get('minReadySeconds', 0)}")
    if rolling := strategy.get("rollingUpdate"):
        lines.append(
            f"RollingUpdateStrategy:\t{rolling.get('maxUnavailable')} max unavailable, "
            f"{rolling.get('maxSurge')} max surge"
        )
    lines += template_lines(spec.get("template") or {})
    lines += _conditions(value)
    revision = ((value.get("metadata") or {}).get("annotations") or {}).get("deployment.kubernetes.io/revision")

    def number(item: Object) -> str:
        return str(((item.get("metadata") or {}).get("annotations") or {}).get("deployment.kubernetes.io/revision"))

    def shown(items: list[Object]) -> str:
        texts = [
            f"{item['metadata']['name']} ({(item.get('status') or {}).get('replicas', 0)}/"
            f"{(item.get('spec') or {}).get('replicas', 0)} replicas created)"
            for item in items
        ]
        return ", ".join(texts) or "<none>"

    lines.append(f"OldReplicaSets:\t{shown([item for item in sets if number(item) != revision])}")
    lines.append(f"NewReplicaSet:\t{shown([item for item in sets if number(item) == revision])}")
    return lines


def _replica_set(value: Object, pods: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    lines = [f"Selector:\t{selector_text(spec.get('selector'))}", *metadata_lines(value), *_controlled_by(value)]
    lines.append(f"Replicas:\t{status.get('replicas', 0)} current / {spec.get('replicas', 0)} desired")
    lines.append(f"Pods Status:\t{_phases(pods)}")
    return lines + template_lines(spec.get("template") or {}) + _conditions(value)


def _stateful_set(value: Object, pods: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    lines = [_created(value), f"Selector:\t{selector_text(spec.get('selector'))}", *metadata_lines(value)]
    if spec.get("serviceName"):
        lines.append(f"Service Name:\t{spec['serviceName']}")
    lines.append(f"Pod Management Policy:\t{spec.get('podManagementPolicy', '')}")
    lines.append(f"Replicas:\t{spec.get('replicas', 0)} desired | {status.get('replicas', 0)} total")
    strategy = spec.get("updateStrategy") or {}
    lines.append(f"Update Strategy:\t{strategy.get('type', '')}")
    if rolling := strategy.get("rollingUpdate"):
        lines.append(f"  Partition:\t{rolling.get('partition', 0)}")
    if retention := spec.get("persistentVolumeClaimRetentionPolicy"):
        lines.append("Persistent Volume Claim Retention Policy:")
        lines.append(f"  WhenDeleted:\t{retention.get('whenDeleted', '')}")
        lines.append(f"  WhenScaled:\t{retention.get('whenScaled', '')}")
    lines.append(f"Pods Status:\t{_phases(pods)}")
    lines += template_lines(spec.get("template") or {})
    claims = spec.get("volumeClaimTemplates") or ()
    lines.append("Volume Claims:" if claims else "Volume Claims:\t<none>")
    for claim in claims:
        inner = claim.get("spec") or {}
        size = ((inner.get("resources") or {}).get("requests") or {}).get("storage", "<default>")
        lines += [
            f"  Name:\t{(claim.get('metadata') or {}).get('name')}",
            f"  StorageClass:\t{inner.get('storageClassName', '')}",
            f"  Capacity:\t{size}",
            f"  Access Modes:\t[{' '.join(inner.get('accessModes') or ())}]",
        ]
    return lines


def _daemon_set(value: Object, pods: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    node = map_lines("Node-Selector", (spec.get("template") or {}).get("spec", {}).get("nodeSelector"))
    lines = [f"Selector:\t{selector_text(spec.get('selector'))}", *node, *metadata_lines(value)]
    for title, key in (
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ):
        lines.append(f"{title}: {status.get(key, 0)}")
    lines.append(f"Pods Status:\t{_phases(pods)}")
    return lines + template_lines(spec.get("template") or {})


def _span(start: Any, end: Any) -> str:
    first, last = parse_time(start), parse_time(end)
    return human_duration((last - first).total_seconds()) if first and last else "<unknown>"


def _job(value: Object, pods: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    lines = [f"Selector:\t{selector_text(spec.get('selector'))}", *metadata_lines(value), *_controlled_by(value)]
    lines.append(f"Parallelism:\t{spec.get('parallelism', '<unset>')}")
    lines.append(f"Completions:\t{spec.get('completions', '<unset>')}")
    lines.append(f"Completion Mode:\t{spec.get('completionMode', 'NonIndexed')}")
    lines.append(f"Suspend:\t{str(spec.get('suspend', False)).lower()}")
    lines.append(f"Backoff Limit:\t{spec.get('backoffLimit', 6)}")
    if "ttlSecondsAfterFinished" in spec:
        lines.append(f"TTL Seconds After Finished:\t{spec['ttlSecondsAfterFinished']}")
    if status.get("startTime"):
        lines.append(f"Start Time:\t{local_time(status['startTime'])}")
    if status.get("completionTime"):
        lines.append(f"Completed At:\t{local_time(status['completionTime'])}")
        lines.append(f"Duration:\t{_span(status.get('startTime'), status['completionTime'])}")
    if "activeDeadlineSeconds" in spec:
        lines.append(f"Active Deadline Seconds:\t{spec['activeDeadlineSeconds']}s")
    ready = f" ({status['ready']} Ready)" if "ready" in status else ""
    counts = f"{status.get('succeeded', 0)} Succeeded / {status.get('failed', 0)} Failed"
    lines.append(f"Pods Statuses:\t{status.get('active', 0)} Active{ready} / {counts}")
    if spec.get("completionMode") == "Indexed":
        lines.append(f"Completed Indexes:\t{status.get('completedIndexes') or '<none>'}")
    return lines + template_lines(spec.get("template") or {})


def _cron_job(value: Object, jobs: list[Object]) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    lines = [*metadata_lines(value), f"Schedule:\t{spec.get('schedule', '')}"]
    lines.append(f"Concurrency Policy:\t{spec.get('concurrencyPolicy', '')}")
    lines.append(f"Suspend:\t{spec.get('suspend', False)}")
    lines.append(f"Time Zone:\t{spec.get('timeZone') or '<unset>'}")
    for title, key in (
        ("Successful Job History Limit", "successfulJobsHistoryLimit"),
        ("Failed Job History Limit", "failedJobsHistoryLimit"),
    ):
        lines.append(f"{title}:\t{spec.get(key, '<unset>')}")
    deadline = spec.get("startingDeadlineSeconds")
    lines.append(f"Starting Deadline Seconds:\t{'<unset>' if deadline is None else f'{deadline}s'}")
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    lines.append(f"Selector:\t{'<unset>' if not inner.get('selector') else selector_text(inner['selector'])}")
    lines.append(f"Parallelism:\t{inner.get('parallelism', '<unset>')}")
    lines.append(f"Completions:\t{inner.get('completions', '<unset>')}")
    lines += template_lines(inner.get("template") or {})
    last = status.get("lastScheduleTime")
    lines.append(f"Last Schedule Time:\t{local_time(last) if last else '<unset>'}")
    active = ", ".join(item.get("name", "") for item in status.get("active") or ())
    return [*lines, f"Active Jobs:\t{active or '<none>'}"]
