"""``podrt describe`` of nodes, namespaces, and any other kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podrt.cli.describe_common import Object, metadata_lines
from podrt.cli.times import age, local_time, quantity


def describe_node(node: Object, pods: Iterable[Object]) -> list[str]:
    """``pods``: those that run on the node."""
    metadata, spec, status = node.get("metadata") or {}, node.get("spec") or {}, node.get("status") or {}
    labels = metadata.get("labels") or {}
    roles = sorted(key.partition("/")[2] for key in labels if key.startswith("node-role.kubernetes.io/"))
    lines = [f"Name:\t{metadata.get('name', '')}", f"Roles:\t{','.join(roles) or '<none>'}"]
    lines += metadata_lines(node)
    lines.append(f"CreationTimestamp:\t{local_time(metadata.get('creationTimestamp'))}")
    taints = [f"{t.get('key')}={t.get('value', '')}:{t.get('effect')}" for t in spec.get("taints") or ()]
    lines += [f"Taints:\t{(taints or ['<none>'])[0]}"] + [f"\t{taint}" for taint in taints[1:]]
    lines.append(f"Unschedulable:\t{str(spec.get('unschedulable', False)).lower()}")
    lines += _conditions(status.get("conditions") or [])
    lines += ["Addresses:"] + [
        f"  {item.get('type')}:\t{item.get('address')}" for item in status.get("addresses") or ()
    ]
    for title, key in (("Capacity", "capacity"), ("Allocatable", "allocatable")):
        lines += [f"{title}:"] + [f"  {name}:\t{value}" for name, value in sorted((status.get(key) or {}).items())]
    lines.append("System Info:")
    lines += [f"  {_title(key)}:\t{value}" for key, value in (status.get("nodeInfo") or {}).items()]
    return lines + _pods(list(pods), status.get("allocatable") or {})


def _title(key: str) -> str:
    special = {
        "machineID": "Machine ID",
        "systemUUID": "System UUID",
        "bootID": "Boot ID",
        "osImage": "OS Image",
        "containerRuntimeVersion": "Container Runtime Version",
    }
    if key in special:
        return special[key]
    return (
        "".join(f" {char}" if char.isupper() else char for char in key)
        .strip()
        .title()
        .replace("Kube Proxy", "Kube-Proxy")
    )


def _conditions(conditions: list[Object]) -> list[str]:
    if not conditions:
        return []
    lines = [
        "Conditions:",
        "  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage",
        "  ----\t------\t-----------------\t------------------\t------\t-------",
    ]
    for item in conditions:
        beat, change = local_time(item.get("lastHeartbeatTime")), local_time(item.get("lastTransitionTime"))
        cells = (item.get("type"), item.get("status"), beat, change, item.get("reason", ""), item.get("message", ""))
        lines.append("  " + "\t".join(str(cell) for cell in cells))
    return lines


def _pods(pods: list[Object], allocatable: Object) -> list[str]:
    columns = [("requests", "cpu"), ("limits", "cpu"), ("requests", "memory"), ("limits", "memory")]
    lines = [
        f"Non-terminated Pods:\t({len(pods)} in total)",
        "  Namespace\tName\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge",
        "  ---------\t----\t------------\t----------\t---------------\t-------------\t---",
    ]
    totals: dict[tuple[str, str], float] = dict.fromkeys(columns, 0.0)
    for pod in pods:
        metadata = pod.get("metadata") or {}
        cells = [str(metadata.get("namespace", "")), str(metadata.get("name", ""))]
        for column in columns:
            amount = _sum(pod, *column)
            totals[column] += amount
            cells.append(_amount(column[1], amount, allocatable))
        lines.append("  " + "\t".join([*cells, age(metadata.get("creationTimestamp"))]))
    lines += ["Allocated resources:", "  (Total limits may be over 100 percent, i.e., overcommitted.)"]
    lines += ["  Resource\tRequests\tLimits", "  --------\t--------\t------"]
    for name in ("cpu", "memory"):
        texts = [_amount(name, totals[(kind, name)], allocatable) for kind in ("requests", "limits")]
        lines.append("  " + "\t".join([name, *texts]))
    return lines


def _sum(pod: Object, kind: str, name: str) -> float:
    total = 0.0
    for container in (pod.get("spec") or {}).get("containers") or ():
        value = ((container.get("resources") or {}).get(kind) or {}).get(name)
        total += quantity(value) if value is not None else 0.0
    return total


def _amount(name: str, amount: float, allocatable: Object) -> str:
    whole = quantity(allocatable[name]) if allocatable.get(name) else 0.0
    percent = int(amount * 100 / whole) if whole else 0
    if name == "cpu":
        text = f"{round(amount * 1000)}m" if amount % 1 else f"{int(amount)}"
    else:
        text = f"{int(amount) >> 20}Mi" if amount and amount % (1 << 20) == 0 else f"{int(amount)}"
    return f"{text} ({percent}%)"


def describe_namespace(namespace: Object, quotas: Iterable[Object] = (), ranges: Iterable[Object] = ()) -> list[str]:
    """``quotas`` and ``ranges``: the ResourceQuotas and LimitRanges in it."""
    from podrt.cli.describe_config import limit_lines, quota_lines

    lines = [f"Name:\t{(namespace.get('metadata') or {}).get('name', '')}"]
    lines += metadata_lines(namespace)
    lines.append(f"Status:\t{(namespace.get('status') or {}).get('phase', '')}")
    told = [["", f"  Name:\t{_name(one)}", *(f"  {line}" for line in quota_lines(one))] for one in quotas]
    lines += (
        ["", "Resource Quotas", *(line for block in told for line in block)] if told else ["", "No resource quota."]
    )
    rows = [line for one in ranges for line in limit_lines(one)]
    return lines + (["", "Resource Limits", *rows] if rows else ["", "No LimitRange resource."])


def _name(value: Object) -> str:
    return str((value.get("metadata") or {}).get("name", ""))


def describe_any(value: Object) -> list[str]:
    """Name, labels, and then the object's own fields, indented."""
    metadata = value.get("metadata") or {}
    lines = [f"Name:\t{metadata.get('name', '')}"]
    if metadata.get("namespace"):
        lines.append(f"Namespace:\t{metadata['namespace']}")
    lines += metadata_lines(value)
    lines += [f"API Version:\t{value.get('apiVersion', '')}", f"Kind:\t{value.get('kind', '')}"]
    rest = {key: item for key, item in value.items() if key not in ("metadata", "apiVersion", "kind")}
    return lines + _fields(rest, "")


def _fields(value: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in sorted(value.items()):
        title = key[:1].upper() + key[1:]
        if isinstance(item, dict):
            lines += [f"{indent}{title}:", *_fields(item, indent + "  ")]
        elif isinstance(item, list):
            lines.append(f"{indent}{title}:")
            for element in item:
                if isinstance(element, dict):
                    lines += _fields(element, indent + "    ")
                else:
                    lines.append(f"{indent}  {element}")
        else:
            lines.append(f"{indent}{title}:\t{item}")
    return lines
