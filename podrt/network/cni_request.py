"""What CNI plugins are told of a sandbox: CNI_ARGS and capability arguments (the spec's CONVENTIONS.md). Pure.

The kubelet hands bandwidth down as annotations, as it does to every runtime. A fixed address and MAC are asked for by
annotations of podrt's own; the plugins that give them out decide.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from podrt.errors import InvalidError
from podrt.network.types import AttachRequest, Port

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
"""Bits per second, a quantity."""
IPS = "podrt.dev/ips"
"""Addresses, separated by commas, each with or without a prefix length."""
MAC = "podrt.dev/mac"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|[kMGTPE]?|[eE][+-]?[0-9]{1,2})", re.ASCII)
_FACTORS = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50}
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", re.ASCII)
_LEAST_RATE, _MOST_RATE = 10**3, 10**15
"""What the kubelet accepts."""
_BURST = 2**31 - 1
"""Bits, as much as the bandwidth plugin takes everywhere: the rate alone is meant to limit."""


def arguments(request: AttachRequest) -> str:
    """CNI_ARGS. Raises InvalidError for a value that would become two."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": request.namespace,
        "K8S_POD_NAME": request.name,
        "K8S_POD_INFRA_CONTAINER_ID": request.sandbox_id,
        "K8S_POD_UID": request.uid,
    }
    for name, value in pairs.items():
        if any(sign in value for sign in ";=\0\n"):
            raise InvalidError(f"sandbox {request.name!r}: {name}={value!r} can't be told to CNI plugins")
    return ";".join(f"{name}={value}" for name, value in pairs.items())


def capabilities(request: AttachRequest) -> dict[str, Any]:
    """Capability -> value, without those that have none. Raises InvalidError that names the annotation."""
    dns = {"servers": request.dns.servers, "searches": request.dns.searches, "options": request.dns.options}
    values: dict[str, Any] = {
        "portMappings": [mapping(port) for port in request.ports if port.host_port],
        "bandwidth": _bandwidth(request.annotations),
        "dns": {name: list(value) for name, value in dns.items()} if any(dns.values()) else {},
        "ips": _ips(request.annotations.get(IPS, "")),
        "mac": _mac(request.annotations.get(MAC, "")),
        "cgroupPath": request.cgroup,
        "io.kubernetes.cri.pod-annotations": dict(request.annotations),
    }
    return {name: value for name, value in values.items() if value}


def mapping(port: Port) -> dict[str, Any]:
    """One entry of portMappings."""
    entry: dict[str, Any] = {
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": port.protocol.lower(),
    }
    return entry | ({"hostIP": port.host_ip} if port.host_ip else {})


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for annotation, name in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if annotation in annotations:
            found |= {f"{name}Rate": _rate(annotation, annotations[annotation]), f"{name}Burst": _BURST}
    return found


def _rate(annotation: str, text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidError(f"annotation {annotation}: {text!r} is not a quantity such as 10M")
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        value = number * 2 ** _BINARY[suffix]
    elif suffix in _FACTORS:
        value = number.scaleb(_FACTORS[suffix])
    else:
        value = number.scaleb(int(suffix[1:]))
    if not _LEAST_RATE <= value <= _MOST_RATE:
        raise InvalidError(f"annotation {annotation}: {text} must be from 1k to 1P bits per second")
    return int(value)


def _ips(text: str) -> list[str]:
    addresses = [one.strip() for one in text.split(",") if one.strip()]
    for address in addresses:
        try:
            ipaddress.ip_interface(address)
        except ValueError as error:
            raise InvalidError(f"annotation {IPS}: {error}") from error
    return addresses


def _mac(text: str) -> str:
    if text and not _MAC.fullmatch(text):
        raise InvalidError(f"annotation {MAC}: {text!r} is not an address such as 0a:58:0a:01:02:03")
    return text.lower()
