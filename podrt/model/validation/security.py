"""Security contexts of Pods and containers, and sysctls."""

from __future__ import annotations

import re

from podrt.model.container import Container
from podrt.model.pod import PodSpec
from podrt.model.security import AppArmorProfile, PodSecurityContext, SeccompProfile, SecurityContext, Sysctl
from podrt.model.validation.causes import Causes
from podrt.model.validation.volume import local_descending_path

MAX_ID = 2**31 - 1
PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SEGMENT = r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
# "..", an empty segment and anything that could end the name are not of this form (CVE-2022-0811).
# form.
_SYSCTL = re.compile(rf"({_SEGMENT}[./])*{_SEGMENT}", re.ASCII)
_CAPABILITY = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)

SYSCTL_LENGTH = 253


def pod_security(causes: Causes, field: str, spec: PodSpec) -> None:
    """The Pod's security context, and what of it can't go with the host's namespaces."""
    context = spec.security_context
    _host_users(causes, spec)
    if spec.share_process_namespace and spec.host_pid:
        causes.invalid("spec.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
    if context is None:
        return
    _ids(causes, field, context.run_as_user, context.run_as_group, context.run_as_non_root)
    causes.between(f"{field}.fsGroup", context.fs_group, 0, MAX_ID)
    for index, group in enumerate(context.supplemental_groups):
        causes.between(f"{field}.supplementalGroups[{index}]", group, 0, MAX_ID)
    causes.one_of(f"{field}.supplementalGroupsPolicy", context.supplemental_groups_policy, ("Merge", "Strict"))
    causes.one_of(f"{field}.fsGroupChangePolicy", context.fs_group_change_policy, ("Always", "OnRootMismatch"))
    causes.one_of(f"{field}.seLinuxChangePolicy", context.se_linux_change_policy, ("MountOption", "Recursive"))
    _profile(causes, f"{field}.seccompProfile", context.seccomp_profile)
    _profile(causes, f"{field}.appArmorProfile", context.app_armor_profile)
    sysctls(causes, f"{field}.sysctls", context.sysctls, spec)


def _host_users(causes: Causes, spec: PodSpec) -> None:
    if spec.host_users is not False:
        return
    for name, used in (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)):
        if used:
            causes.forbidden(f"spec.{name}", "when `hostUsers` is false")
    for part, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for index, container in enumerate(containers):
            if container.volume_devices:
                causes.forbidden(f"spec.{part}[{index}].volumeDevices", "when `hostUsers` is false")


def _ids(causes: Causes, field: str, user: int | None, group: int | None, non_root: bool | None) -> None:
    causes.between(f"{field}.runAsUser", user, 0, MAX_ID)
    causes.between(f"{field}.runAsGroup", group, 0, MAX_ID)
    if non_root and user == 0:
        causes.invalid(f"{field}.runAsUser", user, "must not be 0 when `runAsNonRoot` is true")


def _profile(causes: Causes, field: str, profile: SeccompProfile | AppArmorProfile | None) -> None:
    if profile is None:
        return
    causes.one_of(f"{field}.type", profile.type, PROFILES, required=True)
    where = f"{field}.localhostProfile"
    if profile.type == "Localhost":
        if not profile.localhost_profile:
            causes.required(where, "must be set when type is Localhost")
        elif isinstance(profile, SeccompProfile):
            local_descending_path(causes, where, profile.localhost_profile)
    elif profile.localhost_profile is not None:
        causes.invalid(where, profile.localhost_profile, "can only be set when type is Localhost")


def sysctls(causes: Causes, field: str, values: tuple[Sysctl, ...], spec: PodSpec) -> None:
    """Names in canonical form, known to be namespaced or not the host's to give away."""
    seen: set[str] = set()
    for index, sysctl in enumerate(values):
        where = f"{field}[{index}].name"
        name = sysctl.name
        if not name:
            causes.required(where)
        elif len(name) > SYSCTL_LENGTH or not _SYSCTL.fullmatch(name):
            causes.invalid(
                where,
                name,
                f"must have at most {SYSCTL_LENGTH} characters and be made of lower case segments of letters, digits, "
                "'-' and '_', separated by '.' or '/'",
            )
        else:
            dotted = name if "/" not in name.partition(".")[0] else name.replace("/", ".")
            if dotted in seen:
                causes.duplicate(where, name)
            seen.add(dotted)
            if spec.host_network and dotted.startswith("net."):
                causes.invalid(where, name, "may not be set when 'hostNetwork' is set to true")
            if spec.host_ipc and dotted.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
                causes.invalid(where, name, "may not be set when 'hostIPC' is set to true")
        if any(char in sysctl.value for char in "\n\r\0"):
            causes.invalid(f"{field}[{index}].value", sysctl.value, "must be one line of text")


def container_security(causes: Causes, field: str, container: Container, spec: PodSpec) -> None:
    """A container's security context, alone and together with the Pod's."""
    context = container.security_context
    pod = spec.security_context or PodSecurityContext()
    if context is None:
        return
    user = pod.run_as_user if context.run_as_user is None else context.run_as_user
    non_root = pod.run_as_non_root if context.run_as_non_root is None else context.run_as_non_root
    _ids(causes, field, context.run_as_user, context.run_as_group, None)
    if non_root and user == 0:
        causes.invalid(f"{field}.runAsUser", user, "must not be 0 when `runAsNonRoot` is true")
    causes.one_of(f"{field}.procMount", context.proc_mount, ("Default", "Unmasked"))
    if context.proc_mount == "Unmasked" and spec.host_users is not False:
        causes.invalid(f"{field}.procMount", context.proc_mount, "`hostUsers` must be false to use `Unmasked`")
    _profile(causes, f"{field}.seccompProfile", context.seccomp_profile)
    _profile(causes, f"{field}.appArmorProfile", context.app_armor_profile)
    _escalation(causes, field, context)
    _capabilities(causes, field, context)


def _escalation(causes: Causes, field: str, context: SecurityContext) -> None:
    if context.allow_privilege_escalation is not False:
        return
    where = f"{field}.allowPrivilegeEscalation"
    if context.privileged:
        causes.invalid(where, False, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    added = context.capabilities.add if context.capabilities is not None else ()
    if any(name in ("SYS_ADMIN", "CAP_SYS_ADMIN") for name in added):
        causes.invalid(
            where, False, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
        )


def _capabilities(causes: Causes, field: str, context: SecurityContext) -> None:
    if context.capabilities is None:
        return
    for part, names in (("add", context.capabilities.add), ("drop", context.capabilities.drop)):
        for index, name in enumerate(names):
            if not _CAPABILITY.fullmatch(name):
                causes.invalid(
                    f"{field}.capabilities.{part}[{index}]",
                    name,
                    "must be a capability's name such as NET_ADMIN, or ALL",
                )
