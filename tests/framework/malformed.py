"""Malformed Pods, as a table: what is sent, and the field and reason that the refusal must name.

The unit tier sends them through codec, defaults and validation, the root tier to a live daemon. Each case is one good
Pod with a few places changed; a place is a path such as ``spec/containers/0/image``, and :data:`GONE` removes it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

GONE: Any = object()
"""As a value: remove the place."""

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
UNSUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"
DUPLICATE = "FieldValueDuplicate"
NOT_FOUND = "FieldValueNotFound"
TOO_LONG = "FieldValueTooLong"
TOO_MANY = "FieldValueTooMany"

GOOD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "case", "labels": {"app": "case"}},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "main",
                "image": "localhost/podrt/busybox:latest",
                "command": ["sleep", "1000"],
                "ports": [{"name": "web", "containerPort": 80}],
                "env": [{"name": "A", "value": "1"}],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            {"name": "side", "image": "localhost/podrt/busybox:latest", "command": ["sleep", "1000"]},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}
"""A Pod that is accepted, so that each case fails for its own reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """``name``: a test id. ``field``: what the refusal must name. ``reason``: its CauseType."""

    name: str
    field: str
    reason: str
    edits: dict[str, Any] = dataclasses.field(default_factory=dict)
    raw: bytes | None = None
    """What to send as it is, where no dictionary could say it."""

    def body(self) -> dict[str, Any] | bytes:
        """The request's body: a document, or bytes to send as they are."""
        if self.raw is not None:
            return self.raw
        document = copy.deepcopy(GOOD)
        for place, value in self.edits.items():
            _edit(document, place.split("/"), value)
        return document


def _edit(document: Any, place: list[str], value: Any) -> None:
    for step in place[:-1]:
        document = document[int(step)] if isinstance(document, list) else document.setdefault(step, {})
    last = place[-1]
    if isinstance(document, list):
        if int(last) == len(document):
            document.append(value)
        else:
            document[int(last)] = value
    elif value is GONE:
        document.pop(last)
    else:
        document[last] = value


def _raw(**changes: str) -> bytes:
    text = json.dumps(GOOD)
    for old, new in changes.items():
        text = text.replace(f'"{old}": ', new, 1)
    return text.encode()


C0 = "spec/containers/0"
F0 = "spec.containers[0]"
LONG = "a" * 64


def _simple(table: dict[str, tuple[str, str, str, Any]]) -> list[Case]:
    """Cases with one edit: name -> (field, reason, place, value)."""
    return [Case(name, where, reason, {place: value}) for name, (where, reason, place, value) in table.items()]


UNKNOWN = _simple(
    {
        "unknown at the top": ("foo", INVALID, "foo", 1),
        "containers at the top": ("containers", INVALID, "containers", []),
        "image in spec": ("spec.image", INVALID, "spec/image", "x"),
        "command in spec": ("spec.command", INVALID, "spec/command", ["x"]),
        "ports in spec": ("spec.ports", INVALID, "spec/ports", []),
        "env in spec": ("spec.env", INVALID, "spec/env", []),
        "resource limits in spec": ("spec.limits", INVALID, "spec/limits", {"cpu": "1"}),
        "privileged in spec": ("spec.privileged", INVALID, "spec/privileged", True),
        "labels in spec": ("spec.labels", INVALID, "spec/labels", {}),
        "replicas of a Deployment": ("spec.replicas", INVALID, "spec/replicas", 3),
        "template of a Deployment": ("spec.template", INVALID, "spec/template", {}),
        "misspelled policy": (f"{F0}.imagePulPolicy", INVALID, f"{C0}/imagePulPolicy", "Never"),
        "wrong case": ("spec.restartpolicy", INVALID, "spec/restartpolicy", "Never"),
        "snake case": (f"{F0}.working_dir", INVALID, f"{C0}/working_dir", "/"),
        "privileged in a container": (f"{F0}.privileged", INVALID, f"{C0}/privileged", True),
        "fsGroup in a container": (f"{F0}.securityContext.fsGroup", INVALID, f"{C0}/securityContext", {"fsGroup": 1}),
        "capabilities in the Pod's context": (
            "spec.securityContext.capabilities",
            INVALID,
            "spec/securityContext",
            {"capabilities": {"add": ["NET_ADMIN"]}},
        ),
        "cpu outside limits": (f"{F0}.resources.cpu", INVALID, f"{C0}/resources/cpu", "1"),
        "unknown in a port": (f"{F0}.ports[0].port", INVALID, f"{C0}/ports/0/port", 80),
        "unknown in env": (f"{F0}.env[0].key", INVALID, f"{C0}/env/0/key", "A"),
        "unknown in a mount": (f"{F0}.volumeMounts[0].path", INVALID, f"{C0}/volumeMounts/0/path", "/x"),
        "unknown volume source": ("spec.volumes[0].bucket", INVALID, "spec/volumes/0/bucket", {}),
        "unknown in metadata": ("metadata.label", INVALID, "metadata/label", {}),
        "unknown in status": ("status.state", INVALID, "status", {"state": "x"}),
        "unknown probe field": (
            f"{F0}.livenessProbe.interval",
            INVALID,
            f"{C0}/livenessProbe",
            {"exec": {"command": ["true"]}, "interval": 3},
        ),
        "unknown in securityContext": (f"{F0}.securityContext.user", INVALID, f"{C0}/securityContext", {"user": 0}),
        "unknown in dnsConfig": ("spec.dnsConfig.nameserver", INVALID, "spec/dnsConfig", {"nameserver": "1.1.1.1"}),
    }
)

TYPES = _simple(
    {
        "metadata a list": ("metadata", INVALID, "metadata", []),
        "spec a string": ("spec", INVALID, "spec", "x"),
        "containers an object": ("spec.containers", INVALID, "spec/containers", {"name": "x"}),
        "a container a string": ("spec.containers[1]", INVALID, "spec/containers/1", "busybox"),
        "image a number": (f"{F0}.image", INVALID, f"{C0}/image", 5),
        "name a list": (f"{F0}.name", INVALID, f"{C0}/name", ["x"]),
        "command a string": (f"{F0}.command", INVALID, f"{C0}/command", "sleep 1"),
        "args with a number": (f"{F0}.args[1]", INVALID, f"{C0}/args", ["-c", 5]),
        "env value a number": (f"{F0}.env[0].value", INVALID, f"{C0}/env/0/value", 1),
        "env value a bool": (f"{F0}.env[0].value", INVALID, f"{C0}/env/0/value", True),
        "env an object": (f"{F0}.env", INVALID, f"{C0}/env", {"A": "1"}),
        "port a string": (f"{F0}.ports[0].containerPort", INVALID, f"{C0}/ports/0/containerPort", "80"),
        "port a fraction": (f"{F0}.ports[0].containerPort", INVALID, f"{C0}/ports/0/containerPort", 80.5),
        "port past int32": (f"{F0}.ports[0].containerPort", INVALID, f"{C0}/ports/0/containerPort", 2**31),
        "uid past int64": (f"{F0}.securityContext.runAsUser", INVALID, f"{C0}/securityContext", {"runAsUser": 2**63}),
        "uid a name": (f"{F0}.securityContext.runAsUser", INVALID, f"{C0}/securityContext", {"runAsUser": "root"}),
        "tty a string": (f"{F0}.tty", INVALID, f"{C0}/tty", "true"),
        "hostNetwork a number": ("spec.hostNetwork", INVALID, "spec/hostNetwork", 1),
        "grace a string": ("spec.terminationGracePeriodSeconds", INVALID, "spec/terminationGracePeriodSeconds", "30s"),
        "labels a list": ("metadata.labels", INVALID, "metadata/labels", ["a=b"]),
        "label a number": ("metadata.labels.app", INVALID, "metadata/labels/app", 5),
        "annotation a bool": ("metadata.annotations.a", INVALID, "metadata/annotations", {"a": True}),
        "limits a list": (f"{F0}.resources.limits", INVALID, f"{C0}/resources/limits", ["1"]),
        "quantity a list": (f"{F0}.resources.limits.cpu", INVALID, f"{C0}/resources/limits/cpu", [1]),
        "quantity a bool": (f"{F0}.resources.limits.cpu", INVALID, f"{C0}/resources/limits/cpu", True),
        "emptyDir a string": ("spec.volumes[0].emptyDir", INVALID, "spec/volumes/0/emptyDir", "yes"),
        "time that is none": ("metadata.creationTimestamp", INVALID, "metadata/creationTimestamp", "yesterday"),
        "half a surrogate pair": (f"{F0}.env[0].value", INVALID, f"{C0}/env/0/value", "\ud800"),
    }
)

QUANTITIES = [
    Case(f"quantity {text!r}", f"{F0}.resources.limits.memory", INVALID, {f"{C0}/resources/limits/memory": text})
    for text in ("lots", "1GB", "64mi", "1.2.3", "", " 1", "1e", "0x10", "1Ki1", "--1", "1e99", "½")
] + _simple(
    {
        "negative memory": (f"{F0}.resources.limits.memory", INVALID, f"{C0}/resources/limits/memory", "-1"),
        "negative cpu": (f"{F0}.resources.limits.cpu", INVALID, f"{C0}/resources/limits/cpu", "-100m"),
        "request above limit": (f"{F0}.resources.requests", INVALID, f"{C0}/resources/requests/cpu", "2"),
        "unknown resource": (f"{F0}.resources.limits.disk", INVALID, f"{C0}/resources/limits/disk", "1"),
        "negative sizeLimit": (
            "spec.volumes[0].emptyDir.sizeLimit",
            INVALID,
            "spec/volumes/0/emptyDir/sizeLimit",
            "-1",
        ),
        "bad sizeLimit": ("spec.volumes[0].emptyDir.sizeLimit", INVALID, "spec/volumes/0/emptyDir/sizeLimit", "big"),
        "hugepages with a request alone": (
            f"{F0}.resources.limits",
            REQUIRED,
            f"{C0}/resources/requests",
            {"hugepages-2Mi": "4Mi"},
        ),
        "unknown claim": (f"{F0}.resources.claims[0]", NOT_FOUND, f"{C0}/resources/claims", [{"name": "gpu"}]),
    }
)

NAMES = _simple(
    {
        "no name": ("metadata.name", REQUIRED, "metadata/name", ""),
        "upper case name": ("metadata.name", INVALID, "metadata/name", "Web"),
        "name with a blank": ("metadata.name", INVALID, "metadata/name", "a b"),
        "name with a slash": ("metadata.name", INVALID, "metadata/name", "../etc"),
        "name with a line break": ("metadata.name", INVALID, "metadata/name", "a\n"),
        "name too long": ("metadata.name", INVALID, "metadata/name", "a" * 254),
        "generateName with an underscore": (
            "metadata.generateName",
            INVALID,
            "metadata",
            {"generateName": "a_b-"},
        ),
        "label key with a blank": ("metadata.labels", INVALID, "metadata/labels", {"a b": "c"}),
        "label key of two slashes": ("metadata.labels", INVALID, "metadata/labels", {"a/b/c": "d"}),
        "label value too long": ("metadata.labels", INVALID, "metadata/labels", {"a": LONG}),
        "label value with a colon": ("metadata.labels", INVALID, "metadata/labels", {"a": "b:c"}),
        "annotation key empty": ("metadata.annotations", INVALID, "metadata/annotations", {"": "x"}),
        "annotations too large": ("metadata.annotations", TOO_LONG, "metadata/annotations", {"a": "x" * 262145}),
        "unqualified finalizer": ("metadata.finalizers", INVALID, "metadata/finalizers", ["mine"]),
        "owner without uid": (
            "metadata.ownerReferences[0].uid",
            INVALID,
            "metadata/ownerReferences",
            [{"apiVersion": "v1", "kind": "Pod", "name": "x"}],
        ),
        "resourceVersion on create": ("metadata.resourceVersion", FORBIDDEN, "metadata/resourceVersion", "5"),
        "container without name": (f"{F0}.name", REQUIRED, f"{C0}/name", GONE),
        "container name upper case": (f"{F0}.name", INVALID, f"{C0}/name", "Main"),
        "container name with a dot": (f"{F0}.name", INVALID, f"{C0}/name", "a.b"),
        "container name with a slash": (f"{F0}.name", INVALID, f"{C0}/name", "../../x"),
        "container name too long": (f"{F0}.name", INVALID, f"{C0}/name", LONG),
        "two containers of one name": ("spec.containers[1].name", DUPLICATE, "spec/containers/1/name", "main"),
        "volume name upper case": ("spec.volumes[0].name", INVALID, "spec/volumes/0/name", "Data"),
        "volume without name": ("spec.volumes[0].name", REQUIRED, "spec/volumes/0/name", GONE),
        "two volumes of one name": ("spec.volumes[1].name", DUPLICATE, "spec/volumes/1", {"name": "data"}),
        "env without name": (f"{F0}.env[0].name", REQUIRED, f"{C0}/env/0/name", GONE),
        "env name with =": (f"{F0}.env[0].name", INVALID, f"{C0}/env/0/name", "A=B"),
        "env name with a zero byte": (f"{F0}.env[0].name", INVALID, f"{C0}/env/0/name", "A\0"),
        "hostname with a dot": ("spec.hostname", INVALID, "spec/hostname", "a.b"),
        "hostname too long": ("spec.hostname", INVALID, "spec/hostname", LONG),
        "subdomain upper case": ("spec.subdomain", INVALID, "spec/subdomain", "A"),
        "node name with a blank": ("spec.nodeName", INVALID, "spec/nodeName", "a b"),
        "node selector key": ("spec.nodeSelector", INVALID, "spec/nodeSelector", {"a b": "c"}),
        "service account name": ("spec.serviceAccountName", INVALID, "spec/serviceAccountName", "a/b"),
    }
)

CONTAINERS = _simple(
    {
        "no containers": ("spec.containers", REQUIRED, "spec/containers", []),
        "no image": (f"{F0}.image", REQUIRED, f"{C0}/image", GONE),
        "image with blanks": (f"{F0}.image", INVALID, f"{C0}/image", " busybox "),
        "zero byte in command": (f"{F0}.command[0]", INVALID, f"{C0}/command", ["a\0b"]),
        "zero byte in args": (f"{F0}.args[0]", INVALID, f"{C0}/args", ["\0"]),
        "zero byte in env": (f"{F0}.env[0].value", INVALID, f"{C0}/env/0/value", "\0"),
        "pull policy": (f"{F0}.imagePullPolicy", UNSUPPORTED, f"{C0}/imagePullPolicy", "Sometimes"),
        "message policy": (f"{F0}.terminationMessagePolicy", UNSUPPORTED, f"{C0}/terminationMessagePolicy", "Log"),
        "relative message path": (f"{F0}.terminationMessagePath", INVALID, f"{C0}/terminationMessagePath", "log"),
        "restart policy": ("spec.restartPolicy", UNSUPPORTED, "spec/restartPolicy", "Sometimes"),
        "negative grace": ("spec.terminationGracePeriodSeconds", INVALID, "spec/terminationGracePeriodSeconds", -1),
        "deadline of nothing": ("spec.activeDeadlineSeconds", INVALID, "spec/activeDeadlineSeconds", 0),
        "port 0": (f"{F0}.ports[0].containerPort", REQUIRED, f"{C0}/ports/0/containerPort", 0),
        "port 65536": (f"{F0}.ports[0].containerPort", INVALID, f"{C0}/ports/0/containerPort", 65536),
        "negative port": (f"{F0}.ports[0].containerPort", INVALID, f"{C0}/ports/0/containerPort", -1),
        "host port 70000": (f"{F0}.ports[0].hostPort", INVALID, f"{C0}/ports/0/hostPort", 70000),
        "protocol": (f"{F0}.ports[0].protocol", UNSUPPORTED, f"{C0}/ports/0/protocol", "ICMP"),
        "protocol in lower case": (f"{F0}.ports[0].protocol", UNSUPPORTED, f"{C0}/ports/0/protocol", "tcp"),
        "host IP": (f"{F0}.ports[0].hostIP", INVALID, f"{C0}/ports/0/hostIP", "300.1.1.1"),
        "port name too long": (f"{F0}.ports[0].name", INVALID, f"{C0}/ports/0/name", "a" * 16),
        "port name of digits": (f"{F0}.ports[0].name", INVALID, f"{C0}/ports/0/name", "80"),
        "two ports of one name": (
            f"{F0}.ports[1].name",
            DUPLICATE,
            f"{C0}/ports/1",
            {"name": "web", "containerPort": 81},
        ),
        "env value and source": (
            f"{F0}.env[0].valueFrom",
            INVALID,
            f"{C0}/env/0/valueFrom",
            {"fieldRef": {"fieldPath": "metadata.name"}},
        ),
        "env source of nothing": (f"{F0}.env[1].valueFrom", INVALID, f"{C0}/env/1", {"name": "B", "valueFrom": {}}),
        "env from an unknown field": (
            f"{F0}.env[1].valueFrom.fieldRef.fieldPath",
            UNSUPPORTED,
            f"{C0}/env/1",
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.containers"}}},
        ),
        "env from an unknown resource": (
            f"{F0}.env[1].valueFrom.resourceFieldRef.resource",
            UNSUPPORTED,
            f"{C0}/env/1",
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}},
        ),
        "probe of nothing": (f"{F0}.livenessProbe", REQUIRED, f"{C0}/livenessProbe", {}),
        "probe of two handlers": (
            f"{F0}.livenessProbe.tcpSocket",
            FORBIDDEN,
            f"{C0}/livenessProbe",
            {"exec": {"command": ["true"]}, "tcpSocket": {"port": 80}},
        ),
        "probe with a negative period": (
            f"{F0}.livenessProbe.periodSeconds",
            INVALID,
            f"{C0}/livenessProbe",
            {"exec": {"command": ["true"]}, "periodSeconds": -1},
        ),
        "liveness with two successes": (
            f"{F0}.livenessProbe.successThreshold",
            INVALID,
            f"{C0}/livenessProbe",
            {"exec": {"command": ["true"]}, "successThreshold": 2},
        ),
        "probe port": (
            f"{F0}.readinessProbe.httpGet.port",
            INVALID,
            f"{C0}/readinessProbe",
            {"httpGet": {"port": 0}},
        ),
        "hook of nothing": (f"{F0}.lifecycle.preStop", REQUIRED, f"{C0}/lifecycle", {"preStop": {}}),
        "stop signal": (f"{F0}.lifecycle.stopSignal", UNSUPPORTED, f"{C0}/lifecycle", {"stopSignal": "SIGFOO"}),
        "resize policy": (
            f"{F0}.resizePolicy[0].restartPolicy",
            UNSUPPORTED,
            f"{C0}/resizePolicy",
            [{"resourceName": "cpu", "restartPolicy": "Maybe"}],
        ),
        "init container of a main one's name": (
            "spec.initContainers[0].name",
            DUPLICATE,
            "spec/initContainers",
            [{"name": "main", "image": "x"}],
        ),
    }
)
CONTAINERS += [
    Case(
        "two containers with one host port",
        "spec.containers[1].ports[0].hostPort",
        DUPLICATE,
        {f"{C0}/ports/0/hostPort": 8080, "spec/containers/1/ports": [{"containerPort": 1, "hostPort": 8080}]},
    ),
    Case(
        "host network with another host port",
        f"{F0}.ports[0].hostPort",
        INVALID,
        {"spec/hostNetwork": True, f"{C0}/ports/0/hostPort": 8080},
    ),
]

VOLUMES = _simple(
    {
        "mount of an unknown volume": (
            f"{F0}.volumeMounts[0].name",
            NOT_FOUND,
            f"{C0}/volumeMounts/0/name",
            "nothing",
        ),
        "mount without a path": (f"{F0}.volumeMounts[0].mountPath", REQUIRED, f"{C0}/volumeMounts/0/mountPath", GONE),
        "relative mount": (f"{F0}.volumeMounts[0].mountPath", INVALID, f"{C0}/volumeMounts/0/mountPath", "data"),
        "mount path with a colon": (
            f"{F0}.volumeMounts[0].mountPath",
            INVALID,
            f"{C0}/volumeMounts/0/mountPath",
            "/a:b",
        ),
        "mount path with a zero byte": (
            f"{F0}.volumeMounts[0].mountPath",
            INVALID,
            f"{C0}/volumeMounts/0/mountPath",
            "/a\0",
        ),
        "two mounts at one path": (
            f"{F0}.volumeMounts[1].mountPath",
            INVALID,
            f"{C0}/volumeMounts/1",
            {"name": "data", "mountPath": "/data/"},
        ),
        "subPath that climbs": (
            f"{F0}.volumeMounts[0].subPath",
            INVALID,
            f"{C0}/volumeMounts/0/subPath",
            "../../etc",
        ),
        "absolute subPath": (f"{F0}.volumeMounts[0].subPath", INVALID, f"{C0}/volumeMounts/0/subPath", "/etc"),
        "propagation": (
            f"{F0}.volumeMounts[0].mountPropagation",
            UNSUPPORTED,
            f"{C0}/volumeMounts/0/mountPropagation",
            "Both",
        ),
        "bidirectional without privileges": (
            f"{F0}.volumeMounts[0].mountPropagation",
            FORBIDDEN,
            f"{C0}/volumeMounts/0/mountPropagation",
            "Bidirectional",
        ),
        "two sources": ("spec.volumes[0].emptyDir", FORBIDDEN, "spec/volumes/0/hostPath", {"path": "/x"}),
        "hostPath without path": (
            "spec.volumes[0].hostPath.path",
            REQUIRED,
            "spec/volumes/0",
            {"name": "data", "hostPath": {}},
        ),
        "hostPath that climbs": (
            "spec.volumes[0].hostPath.path",
            INVALID,
            "spec/volumes/0",
            {"name": "data", "hostPath": {"path": "/a/../etc"}},
        ),
        "relative hostPath": (
            "spec.volumes[0].hostPath.path",
            INVALID,
            "spec/volumes/0",
            {"name": "data", "hostPath": {"path": "etc"}},
        ),
        "hostPath type": (
            "spec.volumes[0].hostPath.type",
            UNSUPPORTED,
            "spec/volumes/0",
            {"name": "data", "hostPath": {"path": "/x", "type": "Folder"}},
        ),
        "medium": ("spec.volumes[0].emptyDir.medium", UNSUPPORTED, "spec/volumes/0/emptyDir/medium", "Disk"),
        "configMap without name": (
            "spec.volumes[0].configMap.name",
            REQUIRED,
            "spec/volumes/0",
            {"name": "data", "configMap": {}},
        ),
        "secret mode": (
            "spec.volumes[0].secret.defaultMode",
            INVALID,
            "spec/volumes/0",
            {"name": "data", "secret": {"secretName": "x", "defaultMode": 4096}},
        ),
        "secret item that climbs": (
            "spec.volumes[0].secret.items[0].path",
            INVALID,
            "spec/volumes/0",
            {"name": "data", "secret": {"secretName": "x", "items": [{"key": "a", "path": "../x"}]}},
        ),
        "a deprecated driver": (
            "spec.volumes[0].gitRepo",
            FORBIDDEN,
            "spec/volumes/0",
            {"name": "data", "gitRepo": {"repository": "x"}},
        ),
    }
)

SECURITY = _simple(
    {
        "negative user": (f"{F0}.securityContext.runAsUser", INVALID, f"{C0}/securityContext", {"runAsUser": -1}),
        "group past 2^31": ("spec.securityContext.runAsGroup", INVALID, "spec/securityContext", {"runAsGroup": 2**31}),
        "negative supplemental group": (
            "spec.securityContext.supplementalGroups[0]",
            INVALID,
            "spec/securityContext",
            {"supplementalGroups": [-5]},
        ),
        "root that may not be": (
            f"{F0}.securityContext.runAsUser",
            INVALID,
            f"{C0}/securityContext",
            {"runAsUser": 0, "runAsNonRoot": True},
        ),
        "capability in lower case": (
            f"{F0}.securityContext.capabilities.add[0]",
            INVALID,
            f"{C0}/securityContext",
            {"capabilities": {"add": ["net_admin"]}},
        ),
        "privileged without escalation": (
            f"{F0}.securityContext.allowPrivilegeEscalation",
            INVALID,
            f"{C0}/securityContext",
            {"privileged": True, "allowPrivilegeEscalation": False},
        ),
        "seccomp type": (
            f"{F0}.securityContext.seccompProfile.type",
            UNSUPPORTED,
            f"{C0}/securityContext",
            {"seccompProfile": {"type": "Strict"}},
        ),
        "seccomp without its file": (
            f"{F0}.securityContext.seccompProfile.localhostProfile",
            REQUIRED,
            f"{C0}/securityContext",
            {"seccompProfile": {"type": "Localhost"}},
        ),
        "seccomp file that climbs": (
            f"{F0}.securityContext.seccompProfile.localhostProfile",
            INVALID,
            f"{C0}/securityContext",
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}},
        ),
        "device of no claim": (
            f"{F0}.volumeDevices[0].name",
            INVALID,
            f"{C0}/volumeDevices",
            [{"name": "data", "devicePath": "/dev/x"}],
        ),
        "proc mount": (f"{F0}.securityContext.procMount", UNSUPPORTED, f"{C0}/securityContext", {"procMount": "None"}),
        "windows options": (
            f"{F0}.securityContext.windowsOptions.runAsUserName",
            INVALID,
            f"{C0}/securityContext",
            {"windowsOptions": {"runAsUserName": "A\\B\\C"}},
        ),
        "windows": ("spec.os.name", FORBIDDEN, "spec/os", {"name": "windows"}),
        "a sysctl of the host": (
            "spec.securityContext.sysctls[0].name",
            FORBIDDEN,
            "spec/securityContext",
            {"sysctls": [{"name": "kernel.core_pattern", "value": "|/x"}]},
        ),
        "sysctl name that climbs": (
            "spec.securityContext.sysctls[0].name",
            INVALID,
            "spec/securityContext",
            {"sysctls": [{"name": "net/../kernel/core_pattern", "value": "x"}]},
        ),
        "sysctl name with a line break": (
            "spec.securityContext.sysctls[0].name",
            INVALID,
            "spec/securityContext",
            {"sysctls": [{"name": "kernel.shmmax=1\nkernel.core_pattern", "value": "x"}]},
        ),
        "sysctl value with a line break": (
            "spec.securityContext.sysctls[0].value",
            INVALID,
            "spec/securityContext",
            {"sysctls": [{"name": "kernel.shmmax", "value": "1\n2"}]},
        ),
        "one sysctl twice": (
            "spec.securityContext.sysctls[1].name",
            DUPLICATE,
            "spec/securityContext",
            {"sysctls": [{"name": "kernel.shmmax", "value": "1"}, {"name": "kernel/shmmax", "value": "2"}]},
        ),
    }
)
SECURITY += [
    Case(
        "user namespace on the host's network",
        "spec.hostNetwork",
        FORBIDDEN,
        {"spec/hostUsers": False, "spec/hostNetwork": True},
    ),
    Case(
        "user namespace with the host's PIDs",
        "spec.hostPID",
        FORBIDDEN,
        {"spec/hostUsers": False, "spec/hostPID": True},
    ),
    Case(
        "host PIDs and shared PIDs",
        "spec.shareProcessNamespace",
        INVALID,
        {"spec/hostPID": True, "spec/shareProcessNamespace": True},
    ),
    Case(
        "net sysctl on the host's network",
        "spec.securityContext.sysctls[0].name",
        INVALID,
        {
            "spec/hostNetwork": True,
            "spec/securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]},
        },
    ),
]

NETWORK = _simple(
    {
        "dns policy": ("spec.dnsPolicy", UNSUPPORTED, "spec/dnsPolicy", "Host"),
        "dns None without servers": ("spec.dnsConfig.nameservers", REQUIRED, "spec/dnsPolicy", "None"),
        "four name servers": (
            "spec.dnsConfig.nameservers",
            TOO_MANY,
            "spec/dnsConfig",
            {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]},
        ),
        "name server by name": ("spec.dnsConfig.nameservers[0]", INVALID, "spec/dnsConfig", {"nameservers": ["dns"]}),
        "33 searches": ("spec.dnsConfig.searches", TOO_MANY, "spec/dnsConfig", {"searches": ["a.b"] * 33}),
        "search with a blank": ("spec.dnsConfig.searches[0]", INVALID, "spec/dnsConfig", {"searches": ["a b"]}),
        "option without name": ("spec.dnsConfig.options[0].name", REQUIRED, "spec/dnsConfig", {"options": [{}]}),
        "option with a line break": (
            "spec.dnsConfig.options[0].value",
            INVALID,
            "spec/dnsConfig",
            {"options": [{"name": "ndots", "value": "5\nnameserver 6.6.6.6"}]},
        ),
        "alias IP": ("spec.hostAliases[0].ip", INVALID, "spec/hostAliases", [{"ip": "localhost", "hostnames": ["a"]}]),
        "alias name with a line break": (
            "spec.hostAliases[0].hostnames[0]",
            INVALID,
            "spec/hostAliases",
            [{"ip": "1.2.3.4", "hostnames": ["a\n6.6.6.6 b"]}],
        ),
        "toleration operator": (
            "spec.tolerations[0].operator",
            UNSUPPORTED,
            "spec/tolerations",
            [{"key": "a", "operator": "Like"}],
        ),
        "toleration effect": (
            "spec.tolerations[0].effect",
            UNSUPPORTED,
            "spec/tolerations",
            [{"key": "a", "operator": "Exists", "effect": "Never"}],
        ),
        "toleration without key": ("spec.tolerations[0].operator", INVALID, "spec/tolerations", [{"value": "x"}]),
        "affinity weight": (
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight",
            INVALID,
            "spec/affinity",
            {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}},
        ),
        "spread without a key": (
            "spec.topologySpreadConstraints[0].topologyKey",
            REQUIRED,
            "spec/topologySpreadConstraints",
            [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
        ),
        "preemption policy": ("spec.preemptionPolicy", UNSUPPORTED, "spec/preemptionPolicy", "Always"),
    }
)

NOT_YET = _simple(
    {
        "lifecycle hook": (
            f"{F0}.lifecycle.preStop.tcpSocket.port",
            INVALID,
            f"{C0}/lifecycle",
            {"preStop": {"tcpSocket": {"port": 0}}},
        ),
        "restart rule": (
            f"{F0}.restartPolicyRules[0].action",
            FORBIDDEN,
            C0,
            {
                "name": "a",
                "image": "x",
                "restartPolicy": "Never",
                "restartPolicyRules": [
                    {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}
                ],
            },
        ),
        "iSCSI volume": (
            "spec.volumes[0].iscsi",
            FORBIDDEN,
            "spec/volumes/0",
            {"name": "data", "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:x", "lun": 0}},
        ),
        "CSI volume": ("spec.volumes[1].csi.driver", REQUIRED, "spec/volumes/1", {"name": "c", "csi": {"driver": ""}}),
        "runtime class": ("spec.runtimeClassName", INVALID, "spec/runtimeClassName", "Kata"),
        "SCTP": (f"{F0}.ports[0].protocol", FORBIDDEN, f"{C0}/ports/0/protocol", "SCTP"),
    }
)
"""Valid Pods that this version refuses by name: cases move out of here as fields are implemented."""

RAW = [
    Case("nothing that is JSON", "not valid JSON", "", raw=b'{"apiVersion": "v1", "kind": "Pod", '),
    Case("no UTF-8", "not UTF-8", "", raw=b'{"kind": "\xff"}'),
    Case("not a number", "not valid JSON", "", raw=_raw(terminationGracePeriodSeconds='"priority": NaN, "x": ')),
    Case("a list", "not an object", "", raw=b"[]"),
    Case("nested too deeply", "nested too deeply", "", raw=b"[" * 100_000 + b"]" * 100_000),
    Case(
        "one field twice",
        "spec.terminationGracePeriodSeconds",
        DUPLICATE,
        raw=_raw(terminationGracePeriodSeconds='"terminationGracePeriodSeconds": 5, "terminationGracePeriodSeconds": '),
    ),
    Case("image twice", f"{F0}.image", DUPLICATE, raw=_raw(image='"image": "a", "image": ')),
    Case("another kind", "kind", INVALID, {"kind": "Deployment"}),
    Case("another version", "apiVersion", INVALID, {"apiVersion": "v2"}),
]

CASES: list[Case] = [
    *UNKNOWN,
    *TYPES,
    *QUANTITIES,
    *NAMES,
    *CONTAINERS,
    *VOLUMES,
    *SECURITY,
    *NETWORK,
    *NOT_YET,
    *RAW,
]
"""All of them. Names are unique."""
