"""What this version does with each field of a Pod: one table, to refuse by, to generate documents from, and to flip as
work goes on.

A field is SUPPORTED, ACCEPTED (read, kept and reported, but nothing depends on it on one machine; the note says why
that is harmless) or REFUSED (a Pod that uses it is refused by the field's name). A field is never dropped in silence:
a test sees to it that none is missing from the table. ``values`` narrows a supported field to the values that work.

Init and ephemeral containers have the fields of ``spec.containers[]``, and are themselves entries of the table.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from podrt.errors import Cause
from podrt.model.kinds import Object
from podrt.model.pod import Pod, PodSpec
from podrt.model.security import SELinuxOptions
from podrt.model.status import ContainerStatus, PodStatus
from podrt.model.volume import REMOVED_SOURCES, Volume
from podrt.model.workloads import template_of


class State(enum.Enum):
    SUPPORTED = "supported"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Support(NamedTuple):
    """What is done with one field. ``values``: only these of its values are supported, if there are any."""

    state: State
    note: str = ""
    values: tuple[str, ...] = ()


YES = Support(State.SUPPORTED)
NO = Support(State.REFUSED)


def _accepted(note: str) -> Support:
    return Support(State.ACCEPTED, note)


def _no(note: str) -> Support:
    return Support(State.REFUSED, note)


def _only(*values: str) -> Support:
    return Support(State.SUPPORTED, values=values)


POD: dict[str, Support] = {
    "volumes": YES,
    "initContainers": YES,
    "containers": YES,
    "ephemeralContainers": YES,
    "restartPolicy": YES,
    "terminationGracePeriodSeconds": YES,
    "activeDeadlineSeconds": YES,
    "dnsPolicy": YES,
    "nodeSelector": YES,
    "serviceAccountName": YES,
    "serviceAccount": Support(State.SUPPORTED, "the old name of serviceAccountName: each is set to the other"),
    "automountServiceAccountToken": Support(
        State.SUPPORTED, "mounted where it is true, here or in the account: Pods can't reach the API"
    ),
    "nodeName": YES,
    "hostNetwork": YES,
    "hostPID": YES,
    "hostIPC": YES,
    "shareProcessNamespace": YES,
    "securityContext": YES,
    "imagePullSecrets": YES,
    "hostname": YES,
    "subdomain": YES,
    "affinity": Support(State.SUPPORTED, "preferences choose between nodes: with one they have no effect"),
    "schedulerName": Support(State.SUPPORTED, "a Pod of another scheduler waits until that one binds it"),
    "tolerations": YES,
    "hostAliases": YES,
    "priorityClassName": YES,
    "priority": YES,
    "dnsConfig": YES,
    "readinessGates": YES,
    "runtimeClassName": Support(State.SUPPORTED, "the handlers are `podrt`, and `podrt-userns` for a user namespace"),
    "enableServiceLinks": _accepted("there are no Services, so there are no variables of them"),
    "preemptionPolicy": YES,
    "overhead": YES,
    "topologySpreadConstraints": YES,
    "setHostnameAsFQDN": YES,
    "os": Support(State.SUPPORTED, "linux; another is refused"),
    "hostUsers": YES,
    "schedulingGates": YES,
    "resourceClaims": _no("there are no device drivers (DRA) on one machine: devices come by hostPath"),
    "resources": YES,
    "hostnameOverride": YES,
    "schedulingGroup": _no("alpha in Kubernetes, and there is one node: nothing to place a group on"),
}

_NO_EFFECT_ON_LINUX = Support(State.SUPPORTED, "no Linux node looks at them; refused where spec.os.name is linux")
_SELINUX = Support(State.SUPPORTED, "where the kernel has SELinux; refused elsewhere")
_NO_SELINUX = "this machine's kernel has no SELinux: leave the field out"

POD_SECURITY: dict[str, Support] = {
    "seLinuxOptions": _SELINUX,
    "windowsOptions": _NO_EFFECT_ON_LINUX,
    "runAsUser": YES,
    "runAsGroup": YES,
    "runAsNonRoot": YES,
    "supplementalGroups": YES,
    "supplementalGroupsPolicy": YES,
    "fsGroup": YES,
    "sysctls": YES,
    "fsGroupChangePolicy": YES,
    "seccompProfile": YES,
    "seccompProfile.type": _only("RuntimeDefault", "Unconfined", "Localhost"),
    "seccompProfile.localhostProfile": Support(State.SUPPORTED, "below seccomp_root of the daemon's configuration"),
    "appArmorProfile": YES,
    "seLinuxChangePolicy": _SELINUX,
}

CONTAINER: dict[str, Support] = {
    "name": YES,
    "image": YES,
    "command": YES,
    "args": YES,
    "workingDir": YES,
    "ports": YES,
    "ports[].protocol": _only("TCP", "UDP"),
    "envFrom": YES,
    "env": YES,
    "env[].valueFrom": YES,
    "env[].valueFrom.fieldRef": YES,
    "env[].valueFrom.resourceFieldRef": YES,
    "env[].valueFrom.configMapKeyRef": YES,
    "env[].valueFrom.secretKeyRef": YES,
    "env[].valueFrom.fileKeyRef": YES,
    "resources": YES,
    "resources.claims": _no("there are no device drivers (DRA) on one machine: devices come by hostPath"),
    "resizePolicy": YES,
    "restartPolicy": YES,
    "restartPolicyRules": YES,
    "restartPolicyRules[].action": _only("Restart"),
    "volumeMounts": YES,
    "volumeMounts[].name": YES,
    "volumeMounts[].readOnly": YES,
    "volumeMounts[].recursiveReadOnly": YES,
    "volumeMounts[].mountPath": YES,
    "volumeMounts[].subPath": YES,
    "volumeMounts[].mountPropagation": YES,
    "volumeMounts[].subPathExpr": YES,
    "volumeDevices": YES,
    "livenessProbe": YES,
    "readinessProbe": YES,
    "startupProbe": YES,
    "lifecycle": YES,
    "terminationMessagePath": YES,
    "terminationMessagePolicy": YES,
    "imagePullPolicy": YES,
    "securityContext": YES,
    "stdin": YES,
    "stdinOnce": YES,
    "tty": YES,
    "targetContainerName": YES,
}

PROBE: dict[str, Support] = dict.fromkeys(
    (
        "exec",
        "httpGet",
        "tcpSocket",
        "grpc",
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ),
    YES,
)

_TCP_HOOK = Support(State.SUPPORTED, "fails when it is run, as under a kubelet: none has ever had it")

LIFECYCLE: dict[str, Support] = dict.fromkeys(("postStart", "preStop", "stopSignal"), YES) | {
    f"{hook}.{handler}": _TCP_HOOK if handler == "tcpSocket" else YES
    for hook in ("postStart", "preStop")
    for handler in ("exec", "httpGet", "tcpSocket", "sleep")
}

CONTAINER_SECURITY: dict[str, Support] = {
    "capabilities": YES,
    "privileged": YES,
    "seLinuxOptions": _SELINUX,
    "windowsOptions": _NO_EFFECT_ON_LINUX,
    "runAsUser": YES,
    "runAsGroup": YES,
    "runAsNonRoot": YES,
    "readOnlyRootFilesystem": YES,
    "allowPrivilegeEscalation": YES,
    "procMount": YES,
    "seccompProfile": YES,
    "seccompProfile.type": _only("RuntimeDefault", "Unconfined", "Localhost"),
    "seccompProfile.localhostProfile": Support(State.SUPPORTED, "below seccomp_root of the daemon's configuration"),
    "appArmorProfile": YES,
}

_REMOVED = _no("a deprecated driver that Kubernetes itself has given up: use hostPath or emptyDir")

VOLUME: dict[str, Support] = {
    "name": YES,
    "hostPath": YES,
    "emptyDir": YES,
    "emptyDir.medium": YES,
    "secret": YES,
    "configMap": YES,
    "downwardAPI": YES,
    "projected": YES,
    "projected.sources[].clusterTrustBundle": _no("there are no cluster trust bundles on one machine"),
    "projected.sources[].podCertificate": _no("there is no signer of Pod certificates on one machine"),
    "image": YES,
    "persistentVolumeClaim": YES,
    "ephemeral": YES,
    "nfs": YES,
    "iscsi": _no("no iSCSI initiator: mount the disk on the host and use hostPath or a local PersistentVolume"),
    "fc": _no("no Fibre Channel: mount the disk on the host and use hostPath or a local PersistentVolume"),
    "csi": Support(State.SUPPORTED, "of drivers that are registered in `plugins_registry` of `state_dir`"),
} | {
    wire: _REMOVED
    for attribute, wire in zip(Volume.__struct_fields__, Volume.__struct_encode_fields__, strict=True)
    if attribute in REMOVED_SOURCES
}


def _join(prefix: str, table: dict[str, Support]) -> dict[str, Support]:
    return {f"{prefix}.{name}": support for name, support in table.items()}


TABLE: dict[str, Support] = {
    **_join("spec", POD),
    **_join("spec.securityContext", POD_SECURITY),
    **_join("spec.volumes[]", VOLUME),
    **_join("spec.containers[]", CONTAINER),
    **_join("spec.containers[].securityContext", CONTAINER_SECURITY),
    **_join("spec.containers[].livenessProbe", PROBE),
    **_join("spec.containers[].readinessProbe", PROBE),
    **_join("spec.containers[].startupProbe", PROBE),
    **_join("spec.containers[].lifecycle", LIFECYCLE),
}
"""Path pattern (``[]`` for any index) to what is done with the field. A field below one that is in the table need
not be.
"""

_NEVER_SET = "never set: "
_NO_DRA = _accepted(_NEVER_SET + "there are no device drivers (DRA) on one machine")

STATUS: dict[str, Support] = {
    **dict.fromkeys((f"status.{name}" for name in PodStatus.__struct_encode_fields__), YES),
    **dict.fromkeys((f"status.containerStatuses[].{name}" for name in ContainerStatus.__struct_encode_fields__), YES),
    "status.resize": Support(
        State.SUPPORTED,
        "deprecated: as under a kubelet since 1.33 the conditions PodResizePending and PodResizeInProgress tell it",
    ),
    "status.resourceClaimStatuses": _NO_DRA,
    "status.extendedResourceClaimStatus": _NO_DRA,
    "status.nodeAllocatableResourceClaimStatuses": _NO_DRA,
    "status.containerStatuses[].allocatedResourcesStatus": _NO_DRA,
}
"""The same of what podrt writes itself; here SUPPORTED means that it is told as a kubelet tells it."""

SYSCTLS = frozenset({"kernel.sem"})
SYSCTL_PREFIXES = ("kernel.shm", "kernel.msg", "fs.mqueue.", "net.")
"""What the kernel keeps per IPC or network namespace (sysctl(8), ipc_namespaces(7))."""

_SAME = {"spec.initContainers[]": "spec.containers[]", "spec.ephemeralContainers[]": "spec.containers[]"}
_BRANCHES = frozenset(".".join(name.split(".")[:depth]) for name in TABLE for depth in range(1, name.count(".") + 1))
"""What has entries of the table below it, at any depth."""


def unsupported(spec: PodSpec, *, selinux: bool = False) -> list[Cause]:
    """The fields of a valid spec that this version refuses, each with its path; ``selinux``: the kernel has it."""
    return [*_walk(spec, "spec", "spec"), *_sysctls(spec), *([] if selinux else _labels(spec))]


def unsupported_in(obj: Object, *, selinux: bool = False) -> list[Cause]:
    """The same of any object: of a Pod, or of the Pods that a workload's template makes."""
    if isinstance(obj, Pod):
        return unsupported(obj.spec, selinux=selinux)
    found = template_of(obj)
    if found is None:
        return []
    path, template = found
    return [cause._replace(field=f"{path}.{cause.field}") for cause in unsupported(template.spec, selinux=selinux)]


def _labels(spec: PodSpec) -> Iterator[Cause]:
    """What only an SELinux kernel can give."""
    shared = spec.security_context
    if shared is not None and shared.se_linux_options not in (None, SELinuxOptions()):
        yield Cause("spec.securityContext.seLinuxOptions", _refusal(_NO_SELINUX), "FieldValueForbidden")
    if shared is not None and shared.se_linux_change_policy:
        yield Cause("spec.securityContext.seLinuxChangePolicy", _refusal(_NO_SELINUX), "FieldValueForbidden")
    for kind, found in (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    ):
        for index, one in enumerate(found):
            own = one.security_context
            if own is not None and own.se_linux_options not in (None, SELinuxOptions()):
                path = f"spec.{kind}[{index}].securityContext.seLinuxOptions"
                yield Cause(path, _refusal(_NO_SELINUX), "FieldValueForbidden")


def _sysctls(spec: PodSpec) -> Iterator[Cause]:
    """A sysctl that the kernel doesn't keep per namespace would change the host (CVE-2022-0811 was led in this way)."""
    for index, sysctl in enumerate(spec.security_context.sysctls if spec.security_context is not None else ()):
        dotted = sysctl.name if "/" not in sysctl.name.partition(".")[0] else sysctl.name.replace("/", ".")
        if dotted not in SYSCTLS and not dotted.startswith(SYSCTL_PREFIXES):
            message = "Forbidden: not a sysctl of a namespace: setting it would change the host"
            yield Cause(f"spec.securityContext.sysctls[{index}].name", message, "FieldValueForbidden")


def _walk(value: Any, path: str, pattern: str) -> Iterator[Cause]:
    pattern = _SAME.get(pattern, pattern)
    if pattern not in _BRANCHES:
        return
    for attribute, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        entry = getattr(value, attribute)
        # What is absent or has its zero value asks for nothing.
        if entry is None or entry == "" or entry is False or entry == () or entry == {}:
            continue
        yield from _judge(entry, f"{path}.{name}", f"{pattern}.{name}")


def _judge(entry: Any, path: str, pattern: str) -> Iterator[Cause]:
    support = TABLE.get(pattern)
    if support is not None:
        if support.state is State.REFUSED:
            yield Cause(path, _refusal(support.note), "FieldValueForbidden")
            return
        if support.values and isinstance(entry, str) and entry not in support.values:
            known = " or ".join(f'"{value}"' for value in support.values if value)
            message = f'Forbidden: "{entry}" is not supported yet by podrt, only {known}'
            yield Cause(path, message, "FieldValueForbidden")
            return
        if support.state is State.ACCEPTED:
            return
    if isinstance(entry, tuple):
        for index, item in enumerate(entry):
            if isinstance(item, msgspec.Struct):
                yield from _walk(item, f"{path}[{index}]", f"{pattern}[]")
    elif isinstance(entry, msgspec.Struct):
        yield from _walk(entry, path, pattern)


def _refusal(note: str) -> str:
    return "Forbidden: not supported yet by podrt" if not note else f"Forbidden: not supported by podrt: {note}"
