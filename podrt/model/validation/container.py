"""Containers of every sort: main, init and ephemeral."""

from __future__ import annotations

from podrt.model.container import Container, EphemeralContainer
from podrt.model.names import dns_label_errors
from podrt.model.pod import PodSpec
from podrt.model.validation.causes import Causes
from podrt.model.validation.env import environment
from podrt.model.validation.network import container_ports, host_port_conflicts
from podrt.model.validation.probes import container_probes
from podrt.model.validation.resources import requirements, resize_policy
from podrt.model.validation.security import container_security
from podrt.model.validation.volume import mounts, no_zero
from podrt.model.volume import Volume

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
RESTART_POLICIES = ("Always", "Never", "OnFailure")
EPHEMERAL_FORBIDDEN = (
    ("ports", "ports"),
    ("liveness_probe", "livenessProbe"),
    ("readiness_probe", "readinessProbe"),
    ("startup_probe", "startupProbe"),
    ("lifecycle", "lifecycle"),
    ("resize_policy", "resizePolicy"),
)
MAX_RULES = 20
MAX_EXIT_CODES = 255


def containers(causes: Causes, spec: PodSpec, volumes: dict[str, Volume]) -> None:
    """All containers of a Pod; a name is taken once among all three sorts."""
    names: set[str] = set()
    if not spec.containers:
        causes.required("spec.containers")
    for index, container in enumerate(spec.containers):
        _container(causes, f"spec.containers[{index}]", container, spec, volumes, names)
        container_probes(causes, f"spec.containers[{index}]", container, spec.termination_grace_period_seconds)
        _restart_rules(causes, f"spec.containers[{index}]", container)
    for index, container in enumerate(spec.init_containers):
        field = f"spec.initContainers[{index}]"
        _container(causes, field, container, spec, volumes, names)
        _init(causes, field, container, spec)
    for index, ephemeral in enumerate(spec.ephemeral_containers):
        field = f"spec.ephemeralContainers[{index}]"
        _container(causes, field, ephemeral, spec, volumes, names)
        _ephemeral(causes, field, ephemeral, spec)
    host_port_conflicts(causes, "spec.containers", spec.containers)


def _container(
    causes: Causes, field: str, container: Container, spec: PodSpec, volumes: dict[str, Volume], names: set[str]
) -> None:
    if not container.name:
        causes.required(f"{field}.name")
    else:
        causes.check(f"{field}.name", container.name, dns_label_errors(container.name))
        if container.name in names:
            causes.duplicate(f"{field}.name", container.name)
        names.add(container.name)
    if not container.image:
        causes.required(f"{field}.image")
    elif container.image != container.image.strip():
        causes.invalid(f"{field}.image", container.image, "must not have leading or trailing whitespace")
    for part in ("command", "args"):
        for index, word in enumerate(getattr(container, part)):
            no_zero(causes, f"{field}.{part}[{index}]", word)
    no_zero(causes, f"{field}.workingDir", container.working_dir)
    container_ports(causes, field, container, host_network=spec.host_network)
    environment(causes, field, container)
    mounts(causes, field, container, volumes)
    claims = frozenset(claim.name for claim in spec.resource_claims)
    requirements(causes, f"{field}.resources", container.resources, claims)
    resize_policy(causes, f"{field}.resizePolicy", container.resize_policy, spec.restart_policy)
    container_security(causes, f"{field}.securityContext", container, spec)
    causes.one_of(f"{field}.imagePullPolicy", container.image_pull_policy, PULL_POLICIES, required=True)
    causes.one_of(
        f"{field}.terminationMessagePolicy", container.termination_message_policy, MESSAGE_POLICIES, required=True
    )
    if not container.termination_message_path.startswith("/"):
        # Kubernetes lets a relative path through to the runtime, where it can only fail.
        causes.invalid(
            f"{field}.terminationMessagePath", container.termination_message_path, "must be an absolute path"
        )
    no_zero(causes, f"{field}.terminationMessagePath", container.termination_message_path)
    causes.one_of(f"{field}.restartPolicy", container.restart_policy, RESTART_POLICIES)


def _init(causes: Causes, field: str, container: Container, spec: PodSpec) -> None:
    if container.restart_policy == "Always":
        container_probes(causes, field, container, spec.termination_grace_period_seconds)
    else:
        for attribute, name in EPHEMERAL_FORBIDDEN[1:4]:
            if getattr(container, attribute) is not None:
                causes.forbidden(f"{field}.{name}", "may not be set for init containers without restartPolicy=Always")
        if container.lifecycle is not None:
            causes.forbidden(f"{field}.lifecycle", "may not be set for init containers without restartPolicy=Always")
    _restart_rules(causes, field, container)


def _restart_rules(causes: Causes, field: str, container: Container) -> None:
    rules = container.restart_policy_rules
    if rules and container.restart_policy is None:
        causes.required(f"{field}.restartPolicy", "must specify restartPolicy when restart rules are used")
    if len(rules) > MAX_RULES:
        causes.too_many(f"{field}.restartPolicyRules", len(rules), MAX_RULES)
    for index, rule in enumerate(rules):
        where = f"{field}.restartPolicyRules[{index}]"
        causes.one_of(f"{where}.action", rule.action, ("Restart", "RestartAllContainers"), required=True)
        if rule.exit_codes is None:
            causes.required(f"{where}.exitCodes", "must be specified")
            continue
        causes.one_of(f"{where}.exitCodes.operator", rule.exit_codes.operator, ("In", "NotIn"), required=True)
        if len(rule.exit_codes.values) > MAX_EXIT_CODES:
            causes.too_many(f"{where}.exitCodes.values", len(rule.exit_codes.values), MAX_EXIT_CODES)


def _ephemeral(causes: Causes, field: str, container: EphemeralContainer, spec: PodSpec) -> None:
    for attribute, name in EPHEMERAL_FORBIDDEN:
        if getattr(container, attribute):
            causes.forbidden(f"{field}.{name}", "cannot be set for an Ephemeral Container")
    if container.resources.limits or container.resources.requests:
        causes.forbidden(f"{field}.resources", "cannot be set for an Ephemeral Container")
    for index, mount in enumerate(container.volume_mounts):
        if mount.sub_path or mount.sub_path_expr:
            causes.forbidden(f"{field}.volumeMounts[{index}].subPath", "cannot be set for an Ephemeral Container")
    target = container.target_container_name
    if target and target not in {entry.name for entry in (*spec.containers, *spec.init_containers)}:
        causes.not_found(f"{field}.targetContainerName", target)
