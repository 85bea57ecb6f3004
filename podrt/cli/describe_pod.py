"""``podrt describe pod``: kubectl's layout."""

from __future__ import annotations

from typing import Any

from podrt.cli.describe_common import Object, map_lines, metadata_lines
from podrt.cli.times import local_time

_VOLUME_HELP = {
    "emptyDir": "EmptyDir (a temporary directory that shares a pod's lifetime)",
    "hostPath": "HostPath (bare host directory volume)",
    "configMap": "ConfigMap (a volume populated by a ConfigMap)",
    "secret": "Secret (a volume populated by a Secret)",
    "projected": "Projected (a volume that contains injected data from multiple sources)",
    "downwardAPI": "DownwardAPI (a volume populated by information about the pod)",
    "persistentVolumeClaim": "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
    "image": "Image (a container image or OCI artifact)",
}


def describe_pod(pod: Object) -> list[str]:
    """Lines with tabs, without the events."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    lines = [
        f"Name:\t{metadata.get('name', '')}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        f"Priority:\t{spec.get('priority', 0)}",
    ]
    if spec.get("serviceAccountName"):
        lines.append(f"Service Account:\t{spec['serviceAccountName']}")
    lines.append(f"Node:\t{_node(spec, status)}")
    if status.get("startTime"):
        lines.append(f"Start Time:\t{local_time(status['startTime'])}")
    lines += metadata_lines(pod)
    lines += _status(metadata, spec, status)
    lines += container_lines("Init Containers", spec.get("initContainers"), status.get("initContainerStatuses"))
    lines += container_lines("Containers", spec.get("containers"), status.get("containerStatuses"))
    lines += container_lines(
        "Ephemeral Containers", spec.get("ephemeralContainers"), status.get("ephemeralContainerStatuses")
    )
    conditions = status.get("conditions") or ()
    if conditions:
        lines += ["Conditions:", "  Type\tStatus"]
        lines += [f"  {item.get('type')} \t{item.get('status')} " for item in conditions]
    lines += volume_lines(spec.get("volumes") or [])
    lines.append(f"QoS Class:\t{status.get('qosClass', '<none>')}")
    lines += map_lines("Node-Selectors", spec.get("nodeSelector"))
    lines += toleration_lines(spec.get("tolerations") or [])
    return lines


def _node(spec: Object, status: Object) -> str:
    name = spec.get("nodeName") or "<none>"
    return f"{name}/{status['hostIP']}" if status.get("hostIP") else str(name)


def _status(metadata: Object, spec: Object, status: Object) -> list[str]:
    lines = []
    if metadata.get("deletionTimestamp"):
        lines.append(f"Status:\tTerminating (since {local_time(metadata['deletionTimestamp'])})")
        lines.append(f"Termination Grace Period:\t{metadata.get('deletionGracePeriodSeconds', 0)}s")
    else:
        lines.append(f"Status:\t{status.get('phase', '')}")
    for key in ("reason", "message"):
        if status.get(key):
            lines.append(f"{key.capitalize()}:\t{status[key]}")
    lines.append(f"IP:\t{status.get('podIP', '')}")
    addresses = status.get("podIPs") or []
    lines += ["IPs:"] + [f"  IP:\t{item.get('ip')}" for item in addresses] if addresses else ["IPs:\t<none>"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            lines.append(f"Controlled By:\t{owner.get('kind')}/{owner.get('name')}")
    if spec.get("hostNetwork"):
        lines.append("Host Network:\ttrue")
    return lines


def container_lines(title: str, containers: list[Object] | None, statuses: list[Object] | None) -> list[str]:
    if not containers:
        return []
    by_name = {item.get("name"): item for item in statuses or ()}
    lines = [f"{title}:"]
    for container in containers:
        lines += _container(container, by_name.get(container.get("name")) or {})
    return lines


def _container(container: Object, status: Object) -> list[str]:
    ports = container.get("ports") or []
    plural = "s" if len(ports) > 1 else ""
    lines = [
        f"  {container.get('name')}:",
        f"    Container ID:\t{status.get('containerID', '')}",
        f"    Image:\t{container.get('image', '')}",
        f"    Image ID:\t{status.get('imageID', '')}",
        f"    Port{plural}:\t{_ports(ports, 'containerPort')}",
        f"    Host Port{plural}:\t{_ports(ports, 'hostPort')}",
    ]
    for title, key in (("Command", "command"), ("Args", "args")):
        if container.get(key):
            lines.append(f"    {title}:")
            lines += [f"      {line}" for word in container[key] for line in str(word).split("\n")]
    if status:
        lines += _state("State", status.get("state") or {})
        if status.get("lastState"):
            lines += _state("Last State", status["lastState"])
        lines.append(f"    Ready:\t{status.get('ready', False)}")
        lines.append(f"    Restart Count:\t{status.get('restartCount', 0)}")
    resources = container.get("resources") or {}
    for title, key in (("Limits", "limits"), ("Requests", "requests")):
        if resources.get(key):
            lines.append(f"    {title}:")
            lines += [f"      {name}:\t{value}" for name, value in sorted(resources[key].items())]
    for title, key in (("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")):
        if container.get(key):
            lines.append(f"    {title}:\t{_probe(container[key])}")
    lines += _environment(container)
    lines += _mounts(container)
    return lines


def _ports(ports: list[Object], key: str) -> str:
    return ", ".join(f"{port.get(key, 0)}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _state(title: str, state: Object) -> list[str]:
    if "running" in state:
        return [f"    {title}:\tRunning", f"      Started:\t{local_time((state['running'] or {}).get('startedAt'))}"]
    kind = "terminated" if "terminated" in state else "waiting"
    detail = state.get(kind) or {}
    lines = [f"    {title}:\t{kind.capitalize()}"]
    if detail.get("reason"):
        lines.append(f"      Reason:\t{detail['reason']}")
    if detail.get("message"):
        lines.append(f"      Message:\t{str(detail['message']).strip()}")
    if kind == "terminated":
        lines.append(f"      Exit Code:\t{detail.get('exitCode', 0)}")
        if detail.get("signal"):
            lines.append(f"      Signal:\t{detail['signal']}")
        lines.append(f"      Started:\t{local_time(detail.get('startedAt'))}")
        lines.append(f"      Finished:\t{local_time(detail.get('finishedAt'))}")
    return lines


def _probe(probe: Object) -> str:
    times = (
        f"delay={probe.get('initialDelaySeconds', 0)}s timeout={probe.get('timeoutSeconds', 1)}s "
        f"period={probe.get('periodSeconds', 10)}s #success={probe.get('successThreshold', 1)} "
        f"#failure={probe.get('failureThreshold', 3)}"
    )
    if "exec" in probe:
        what = f"exec [{' '.join(probe['exec'].get('command') or ())}]"
    elif "httpGet" in probe:
        get = probe["httpGet"]
        scheme = str(get.get("scheme", "HTTP")).lower()
        what = f"http-get {scheme}://{get.get('host', '')}:{get.get('port', '')}{get.get('path', '/')}"
    elif "tcpSocket" in probe:
        what = f"tcp-socket {probe['tcpSocket'].get('host', '')}:{probe['tcpSocket'].get('port', '')}"
    elif "grpc" in probe:
        what = f"grpc <pod>:{probe['grpc'].get('port', '')} {probe['grpc'].get('service', '')}".rstrip()
    else:
        what = "unknown"
    return f"{what} {times}"


def _environment(container: Object) -> list[str]:
    lines: list[str] = []
    sources = container.get("envFrom") or []
    if sources:
        lines.append("    Environment Variables from:")
        for source in sources:
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    reference = source[key]
                    optional = str(reference.get("optional", False)).lower()
                    lines.append(f"      {reference.get('name')}\t{kind}\tOptional: {optional}")
    env = container.get("env") or []
    if not env:
        return [*lines, "    Environment:\t<none>"]
    return [*lines, "    Environment:"] + [f"      {item.get('name')}:\t{_value(item)}" for item in env]


def _value(item: Object) -> str:
    source = item.get("valueFrom")
    if not source:
        return str(item.get("value", "")).replace("\n", "\n      \t")
    if "fieldRef" in source:
        return f" ({source['fieldRef'].get('apiVersion', 'v1')}:{source['fieldRef'].get('fieldPath')})"
    if "resourceFieldRef" in source:
        reference = source["resourceFieldRef"]
        return f"{reference.get('containerName', '')} ({reference.get('resource')})"
    for key, kind in (("configMapKeyRef", "config map"), ("secretKeyRef", "secret")):
        if key in source:
            reference = source[key]
            optional = str(reference.get("optional", False)).lower()
            return (
                f"<set to the key '{reference.get('key')}' of {kind} '{reference.get('name')}'>\tOptional: {optional}"
            )
    return "<unknown>"


def _mounts(container: Object) -> list[str]:
    mounts = container.get("volumeMounts") or []
    if not mounts:
        return ["    Mounts:\t<none>"]
    lines = ["    Mounts:"]
    for mount in sorted(mounts, key=lambda item: str(item.get("mountPath"))):
        flags = ["ro" if mount.get("readOnly") else "rw"]
        if mount.get("subPath"):
            flags.append(f'path="{mount["subPath"]}"')
        lines.append(f"      {mount.get('mountPath')} from {mount.get('name')} ({','.join(flags)})")
    return lines


def volume_lines(volumes: list[Object]) -> list[str]:
    if not volumes:
        return ["Volumes:\t<none>"]
    lines = ["Volumes:"]
    for volume in volumes:
        kind = next((key for key in volume if key != "name"), "")
        source = volume.get(kind) or {}
        lines.append(f"  {volume.get('name')}:")
        lines.append(f"    Type:\t{_VOLUME_HELP.get(kind, kind or '<unknown>')}")
        if kind == "emptyDir":
            lines.append(f"    Medium:\t{source.get('medium', '')}")
            lines.append(f"    SizeLimit:\t{source.get('sizeLimit', '<unset>')}")
            continue
        lines += [f"    {_words(key)}:\t{_short(value)}" for key, value in source.items()]
    return lines


def _words(key: str) -> str:
    return key[:1].upper() + key[1:]


def _short(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def toleration_lines(tolerations: list[Object]) -> list[str]:
    texts = []
    for item in tolerations:
        text = str(item.get("key", ""))
        if item.get("value"):
            text += f"={item['value']}"
        if item.get("effect"):
            text += f":{item['effect']}"
        if item.get("operator") == "Exists":
            text += " op=Exists" if text else "op=Exists"
        if "tolerationSeconds" in item:
            text += f" for {item['tolerationSeconds']}s"
        texts.append(text)
    texts = texts or ["<none>"]
    return [f"Tolerations:\t{texts[0]}"] + [f"\t{text}" for text in texts[1:]]
