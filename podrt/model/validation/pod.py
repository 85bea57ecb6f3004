"""A Pod as a whole."""

from __future__ import annotations

from podrt.model.names import dns_subdomain_errors, qualified_name_errors
from podrt.model.pod import Pod, PodSpec
from podrt.model.validation.causes import Causes
from podrt.model.validation.container import containers
from podrt.model.validation.meta import object_meta
from podrt.model.validation.network import pod_network
from podrt.model.validation.resources import pod_level, requirements, resource_list
from podrt.model.validation.scheduling import scheduling
from podrt.model.validation.security import pod_security
from podrt.model.validation.volume import volumes
from podrt.model.validation.windows import windows

MAX_DEADLINE = 2**31 - 1


def pod(value: Pod) -> Causes:
    """Everything that is wrong with a Pod that has its defaults."""
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    pod_spec(causes, value.spec)
    return causes


def pod_spec(causes: Causes, spec: PodSpec) -> None:
    """All 42 fields."""
    known = volumes(causes, "spec.volumes", spec.volumes)
    containers(causes, spec, known)
    causes.one_of("spec.restartPolicy", spec.restart_policy, ("Always", "Never", "OnFailure"), required=True)
    causes.at_least("spec.terminationGracePeriodSeconds", spec.termination_grace_period_seconds, 0)
    causes.between("spec.activeDeadlineSeconds", spec.active_deadline_seconds, 1, MAX_DEADLINE)
    pod_security(causes, "spec.securityContext", spec)
    windows(causes, spec)
    pod_network(causes, spec)
    scheduling(causes, spec)
    if spec.service_account_name:
        causes.check(
            "spec.serviceAccountName", spec.service_account_name, dns_subdomain_errors(spec.service_account_name)
        )
    for index, reference in enumerate(spec.image_pull_secrets):
        if not reference.name:
            causes.required(f"spec.imagePullSecrets[{index}].name")
    for index, gate in enumerate(spec.readiness_gates):
        field = f"spec.readinessGates[{index}].conditionType"
        causes.check(field, gate.condition_type, qualified_name_errors(gate.condition_type))
    if spec.runtime_class_name is not None:
        causes.check("spec.runtimeClassName", spec.runtime_class_name, dns_subdomain_errors(spec.runtime_class_name))
    resource_list(causes, "spec.overhead", spec.overhead)
    _system(causes, spec)
    _claims(causes, spec)
    if spec.resources is not None:
        claims = frozenset(claim.name for claim in spec.resource_claims)
        requirements(causes, "spec.resources", spec.resources, claims)
        for part, amounts in (("limits", spec.resources.limits), ("requests", spec.resources.requests)):
            for name in amounts:
                if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                    causes.not_supported(f"spec.resources.{part}.{name}", name, ("cpu", "memory", "hugepages-*"))
        pod_level(causes, spec)


def _system(causes: Causes, spec: PodSpec) -> None:
    if spec.os is None:
        return
    causes.one_of("spec.os.name", spec.os.name, ("linux", "windows"), required=True)
    if spec.os.name == "windows":
        causes.forbidden("spec.os.name", "this runtime runs Linux containers only")


def _claims(causes: Causes, spec: PodSpec) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(spec.resource_claims):
        field = f"spec.resourceClaims[{index}]"
        if not claim.name:
            causes.required(f"{field}.name")
        elif claim.name in seen:
            causes.duplicate(f"{field}.name", claim.name)
        seen.add(claim.name)
        if (claim.resource_claim_name is None) == (claim.resource_claim_template_name is None):
            causes.invalid(field, claim.name, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
