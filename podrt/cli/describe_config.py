"""``podrt describe`` of ConfigMaps, Secrets, claims, LimitRanges and ResourceQuotas. Secret values stay hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from podrt.cli.describe_common import Object, metadata_lines
from podrt.cli.times import local_time

_NONE = "<none>"


def head(value: Object) -> list[str]:
    metadata = value.get("metadata") or {}
    lines = [f"Name:\t{metadata.get('name', '')}"]
    if metadata.get("namespace"):
        lines.append(f"Namespace:\t{metadata['namespace']}")
    return lines


def describe_config_map(value: Object) -> list[str]:
    lines = [*head(value), *metadata_lines(value), "", "Data", "===="]
    for key, text in sorted((value.get("data") or {}).items()):
        lines += [f"{key}:", "----", *str(text).expandtabs().split("\n"), ""]
    lines += ["", "BinaryData", "===="]
    lines += [f"{key}: {_size(text)} bytes" for key, text in sorted((value.get("binaryData") or {}).items())]
    return lines


def describe_secret(value: Object) -> list[str]:
    lines = [*head(value), *metadata_lines(value), "", f"Type:\t{value.get('type', '')}", "", "Data", "===="]
    return lines + [f"{key}:\t{_size(text)} bytes" for key, text in sorted((value.get("data") or {}).items())]


def _size(text: object) -> int:
    """Bytes that base64 text stands for."""
    plain = str(text)
    return len(plain) * 3 // 4 - plain[-2:].count("=")


def describe_claim(value: Object, pods: Iterable[Object]) -> list[str]:
    """``pods``: all of the namespace."""
    spec, status = value.get("spec") or {}, value.get("status") or {}
    name = (value.get("metadata") or {}).get("name", "")
    users = [
        str((pod.get("metadata") or {}).get("name", ""))
        for pod in pods
        if any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == name
            or ("ephemeral" in volume and f"{(pod.get('metadata') or {}).get('name')}-{volume.get('name')}" == name)
            for volume in (pod.get("spec") or {}).get("volumes") or ()
        )
    ]
    lines = head(value)
    lines.append(f"StorageClass:\t{spec.get('storageClassName') or ''}")
    lines.append(f"Status:\t{status.get('phase', '')}")
    lines.append(f"Volume:\t{spec.get('volumeName', '')}")
    lines += metadata_lines(value)
    lines.append(f"Finalizers:\t[{' '.join((value.get('metadata') or {}).get('finalizers') or ())}]")
    lines.append(f"Capacity:\t{(status.get('capacity') or {}).get('storage', '')}")
    lines.append(f"Access Modes:\t{','.join(status.get('accessModes') or ())}")
    lines.append(f"VolumeMode:\t{spec.get('volumeMode', '')}")
    return [*lines, f"Used By:\t{(users or [_NONE])[0]}", *(f"\t{user}" for user in users[1:])]


def describe_quota(value: Object) -> list[str]:
    scopes = (value.get("spec") or {}).get("scopes") or ()
    lines = head(value) + ([f"Scopes:\t{', '.join(scopes)}"] if scopes else [])
    return lines + quota_lines(value)


def quota_lines(value: Object) -> list[str]:
    """The table of what is used of a quota."""
    status = value.get("status") or {}
    hard, used = status.get("hard") or (value.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    rows = [f"{name}\t{used.get(name, '0')}\t{hard[name]}" for name in sorted(hard)]
    return ["Resource\tUsed\tHard", "--------\t----\t----", *rows]


def describe_limit_range(value: Object) -> list[str]:
    return head(value) + limit_lines(value)


def limit_lines(value: Object) -> list[str]:
    """The table of a LimitRange."""
    columns = ("min", "max", "defaultRequest", "default", "maxLimitRequestRatio")
    lines = [
        "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio",
        "----\t--------\t---\t---\t---------------\t-------------\t-----------------------",
    ]
    for item in (value.get("spec") or {}).get("limits") or ():
        parts: list[Mapping[str, str]] = [item.get(column) or {} for column in columns]
        for name in sorted(set().union(*parts)):
            cells = "\t".join(part.get(name, "-") for part in parts)
            lines.append(f"{item.get('type', '')}\t{name}\t{cells}")
    return lines


def describe_volume(value: Object) -> list[str]:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    about = spec.get("claimRef") or {}
    lines = [*head(value), *metadata_lines(value)]
    lines.append(f"StorageClass:\t{spec.get('storageClassName', '')}")
    lines.append(f"Status:\t{status.get('phase', '')}")
    lines.append(f"Claim:\t{about.get('namespace', '')}/{about.get('name', '')}" if about else "Claim:\t")
    lines.append(f"Reclaim Policy:\t{spec.get('persistentVolumeReclaimPolicy', '')}")
    lines.append(f"Access Modes:\t{','.join(spec.get('accessModes') or ())}")
    lines.append(f"Capacity:\t{(spec.get('capacity') or {}).get('storage', '')}")
    lines.append(f"Message:\t{status.get('message', '')}")
    lines.append("Source:")
    for kind, title in (("local", "LocalVolume"), ("hostPath", "HostPath"), ("nfs", "NFS")):
        if kind in spec:
            lines.append(f"    Type:\t{title}")
            lines += [f"    {key.capitalize()}:\t{text}" for key, text in spec[kind].items()]
    created = local_time((value.get("metadata") or {}).get("creationTimestamp"))
    return [*lines, f"CreationTimestamp:\t{created}"]
