"""A container's environment: ``env`` in order, ``$(VAR)``, and the downward API.

The rules of expansion are Kubernetes': ``$(VAR)`` takes an earlier variable, ``$$`` stands for ``$``, an unknown or
broken reference stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from podrt.errors import Cause, InvalidError
from podrt.model.container import Container, EnvVar
from podrt.model.pod import Pod
from podrt.node.resources import resource_field

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_MAP_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


def expand(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its ``$(NAME)`` references replaced from ``values``."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return values.get(name, match.group(0))

    return _REFERENCE.sub(one, text) if "$" in text else text


def environment(
    pod: Pod, container: Container, *, host_ips: Sequence[str], pod_ips: Sequence[str], allocatable: Mapping[str, str]
) -> dict[str, str]:
    """The variables of ``container``, in order. Raises InvalidError naming the field."""
    values: dict[str, str] = {}
    for index, variable in enumerate(container.env):
        where = f"spec.containers{{{container.name}}}.env[{index}]"
        if variable.value_from is None:
            values[variable.name] = expand(variable.value, values)
        else:
            values[variable.name] = _from_source(pod, container, variable, where, host_ips, pod_ips, allocatable)
    return values


def _from_source(
    pod: Pod,
    container: Container,
    variable: EnvVar,
    where: str,
    host_ips: Sequence[str],
    pod_ips: Sequence[str],
    allocatable: Mapping[str, str],
) -> str:
    source = variable.value_from
    assert source is not None
    if source.field_ref is not None:
        return pod_field(pod, source.field_ref.field_path, f"{where}.valueFrom.fieldRef", host_ips, pod_ips)
    if source.resource_field_ref is not None:
        return resource_field(pod, container, source.resource_field_ref, allocatable)
    raise InvalidError(
        f"{where}.valueFrom: not supported yet", [Cause(f"{where}.valueFrom", "not supported yet by podrt")]
    )


def pod_field(pod: Pod, path: str, where: str, host_ips: Sequence[str], pod_ips: Sequence[str]) -> str:
    """The value of a downward API field. Raises InvalidError for one that does not exist."""
    if match := _MAP_FIELD.fullmatch(path):
        table = pod.metadata.labels if match.group(1) == "labels" else pod.metadata.annotations
        return table.get(match.group(2), "")
    simple = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    try:
        return simple[path]
    except KeyError:
        known = ", ".join(sorted(simple))
        message = (
            f"unknown field path {path!r}; use one of {known}, metadata.labels['<key>'], metadata.annotations['<key>']"
        )
        raise InvalidError(f"{where}.fieldPath: {message}", [Cause(f"{where}.fieldPath", message)]) from None
