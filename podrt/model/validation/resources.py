"""Resource requests and limits of containers and Pods."""

from __future__ import annotations

import re

from msgspec.structs import replace

from podrt.model.base import ResourceList
from podrt.model.container import ContainerResizePolicy, ResourceRequirements
from podrt.model.names import qualified_name_errors
from podrt.model.pod import PodSpec
from podrt.model.quantity import QuantityError, parse
from podrt.model.resources import pod_requests
from podrt.model.validation.causes import Causes

STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGEPAGES = re.compile(r"hugepages-[0-9]+([KMGTPE]i?)?")
INTEGER_MESSAGE = "must be an integer"


def requirements(causes: Causes, field: str, value: ResourceRequirements, claims: frozenset[str]) -> None:
    """Names and amounts, requests within limits, claims known to the Pod."""
    for part, amounts in (("limits", value.limits), ("requests", value.requests)):
        resource_list(causes, f"{field}.{part}", amounts)
    for name, request in value.requests.items():
        limit = value.limits.get(name)
        where = f"{field}.requests"
        if limit is None:
            if name.startswith("hugepages-") or "/" in name:
                causes.required(f"{field}.limits", f"Limit must be set for non overcommitable resources ({name})")
        elif not _valid(request) or not _valid(limit):
            continue
        elif parse(request) > parse(limit):
            causes.invalid(where, request, f"must be less than or equal to {name} limit of {limit}")
        elif parse(request) != parse(limit) and (name.startswith("hugepages-") or "/" in name):
            causes.invalid(where, request, f"must be equal to {name} limit of {limit}")
    _claims(causes, field, value, claims)


def pod_level(causes: Causes, spec: PodSpec) -> None:
    """Resources of the whole Pod against those of its containers, if all are valid in themselves."""
    assert spec.resources is not None
    if spec.resources.claims:
        causes.forbidden("spec.resources.claims", "claims may not be set for resources of the whole Pod")
    if causes:
        return
    for name, quantity in pod_requests(replace(spec, resources=None, overhead={})).items():
        text = spec.resources.requests.get(name)
        if text is not None and parse(text) < quantity:
            message = f"must be greater than or equal to aggregate container requests of {quantity}"
            causes.invalid(f"spec.resources.requests.{name}", text, message)
    for field, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for index, container in enumerate(containers):
            for name, text in container.resources.limits.items():
                bound = spec.resources.limits.get(name)
                if bound is not None and parse(bound) < parse(text):
                    where = f"spec.{field}[{index}].resources.limits.{name}"
                    causes.invalid(where, text, f"must be less than or equal to pod limits of {bound}")


def _claims(causes: Causes, field: str, value: ResourceRequirements, known: frozenset[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(value.claims):
        where = f"{field}.claims[{index}]"
        if not claim.name:
            causes.required(where)
        elif claim.name not in known:
            causes.not_found(where, claim.name)
        if (claim.name, claim.request) in seen:
            causes.duplicate(where, claim.name)
        seen.add((claim.name, claim.request))


def resource_list(causes: Causes, field: str, amounts: ResourceList) -> None:
    """Known or qualified names; amounts that are not negative and whole where they count pieces."""
    for name, text in amounts.items():
        where = f"{field}[{name}]" if not name.isidentifier() else f"{field}.{name}"
        if name not in STANDARD and not _HUGEPAGES.fullmatch(name):
            if "/" in name and not name.startswith("kubernetes.io/"):
                causes.check(where, name, qualified_name_errors(name))
            else:
                causes.invalid(where, name, "must be a standard resource type or fully qualified")
        try:
            quantity = parse(text)
        except QuantityError as error:
            causes.invalid(where, text, str(error))
            continue
        if quantity.value < 0:
            causes.invalid(where, text, "must be greater than or equal to 0")
        elif name not in STANDARD and quantity.value.denominator != 1:
            causes.invalid(where, text, INTEGER_MESSAGE)


def amount(causes: Causes, field: str, text: str | None) -> None:
    """One quantity that may not be negative."""
    if text is None:
        return
    if not _valid(text):
        causes.invalid(field, text, "is not a quantity")
    elif parse(text).value < 0:
        causes.invalid(field, text, "must be greater than or equal to 0")


def resize_policy(causes: Causes, field: str, policies: tuple[ContainerResizePolicy, ...], pod_policy: str) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        where = f"{field}[{index}]"
        causes.one_of(f"{where}.resourceName", policy.resource_name, ("cpu", "memory"), required=True)
        causes.one_of(
            f"{where}.restartPolicy", policy.restart_policy, ("NotRequired", "RestartContainer"), required=True
        )
        if policy.restart_policy == "RestartContainer" and pod_policy == "Never":
            causes.invalid(
                f"{where}.restartPolicy",
                policy.restart_policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            )
        if policy.resource_name in seen:
            causes.duplicate(where, policy.resource_name)
        seen.add(policy.resource_name)


def _valid(text: str) -> bool:
    try:
        parse(text)
    except QuantityError:
        return False
    return True
