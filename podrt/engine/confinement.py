"""What a container's processes may do: credentials and capabilities, the seccomp filter, AppArmor and SELinux.

All is decided and compiled in the daemon; the child only carries it out.
"""

from __future__ import annotations

import os

from podrt.engine.specs import ContainerSpec, SeccompKind, Security
from podrt.engine.state import Machine
from podrt.errors import Cause, InvalidError, UnsupportedError
from podrt.linux import apparmor, caps, seccomp, selinux
from podrt.supervisor.protocol import Credentials


def credentials_of(security: Security, user: str) -> Credentials:
    """Raises InvalidError for an unknown capability."""
    ambient = tuple(caps.normalize(name) for name in security.add_ambient_capabilities)
    bounding = caps.resolve(
        (*security.add_capabilities, *security.add_ambient_capabilities),
        security.drop_capabilities,
        security.privileged,
        available=available_capabilities(),
    )
    return Credentials(
        user=user,
        extra_gids=security.supplemental_groups,
        merge_image_groups=security.merge_image_groups,
        non_root=security.run_as_non_root,
        bounding=bounding,
        ambient=tuple(name for name in ambient if name in bounding),
        no_new_privs=security.no_new_privs,
    )


_available: tuple[str, ...] = ()


def available_capabilities() -> tuple[str, ...]:
    """What this daemon can hand on; it never changes while it runs."""
    global _available
    if not _available:
        _available = caps.current()
    return _available


def seccomp_program(machine: Machine, security: Security, capabilities: tuple[str, ...]) -> bytes | None:
    """The compiled filter, None for none. Raises what ``seccomp.compile`` raises."""
    if security.privileged or security.seccomp == SeccompKind.UNCONFINED:
        return None
    local = security.seccomp == SeccompKind.LOCALHOST
    kind = security.seccomp_profile if local else seccomp.RUNTIME_DEFAULT
    return seccomp.compile(kind, capabilities, str(machine.config.seccomp_root))


def apparmor_profile(machine: Machine, security: Security) -> str:
    """The profile to enter at exec, "" for none. Raises UnsupportedError where one was asked for that can't be had."""
    wanted = security.apparmor
    if wanted == "unconfined" or (not wanted and security.privileged):
        return ""
    if wanted not in ("", "runtime/default"):
        if not apparmor.enabled():
            raise UnsupportedError(f"AppArmor profile {wanted}: this kernel does not enforce AppArmor")
        return wanted
    if wanted and not machine.apparmor:
        raise UnsupportedError("appArmorProfile: this machine has no AppArmor, or podrt's profile could not be loaded")
    return machine.apparmor


def check_labels(whose: str, *labels: str) -> None:
    """Raises InvalidError for an SELinux label that the loaded policy doesn't know."""
    for label in filter(None, labels):
        if not selinux.valid(label):
            raise InvalidError(
                f"{whose}: securityContext.seLinuxOptions: {label} is no label of the SELinux policy of this machine",
                (Cause("securityContext.seLinuxOptions", f"the policy has no label {label}"),),
            )


def compile_default_filter() -> None:
    """Fill the cache of compiled filters with that of a plain container."""
    seccomp.compile("RuntimeDefault", credentials_of(Security(), "0").bounding)


def check(machine: Machine, spec: ContainerSpec) -> None:
    """Raises InvalidError for a container's capabilities or seccomp profile that can't be had."""
    capabilities = credentials_of(spec.security, "0").bounding
    if spec.security.seccomp == SeccompKind.LOCALHOST and not spec.security.privileged:
        name, root = spec.security.seccomp_profile, str(machine.config.seccomp_root)
        try:
            seccomp.compile(name, capabilities, root)
        except OSError as error:
            raise InvalidError(
                f"container {spec.name}: seccomp profile {os.path.join(root, name)} can't be read: {error.strerror}",
                (Cause("securityContext.seccompProfile.localhostProfile", f"can't be read: {error.strerror}"),),
            ) from error
