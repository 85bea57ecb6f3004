"""Security contexts of Pods and containers (core/v1)."""

from __future__ import annotations

from podrt.model.base import Int64, Struct, always


class Capabilities(Struct, frozen=True, kw_only=True):
    """Names without the ``CAP_`` prefix; ``ALL`` means every one."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SELinuxOptions(Struct, frozen=True, kw_only=True):
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class WindowsSecurityContextOptions(Struct, frozen=True, kw_only=True):
    """Typed only so that it can be refused by name."""

    gmsa_credential_spec_name: str | None = None
    gmsa_credential_spec: str | None = None
    run_as_user_name: str | None = None
    host_process: bool | None = None


class SeccompProfile(Struct, frozen=True, kw_only=True):
    type: str = always("")
    """RuntimeDefault, Unconfined or Localhost."""
    localhost_profile: str | None = None


class AppArmorProfile(Struct, frozen=True, kw_only=True):
    type: str = always("")
    """RuntimeDefault, Unconfined or Localhost."""
    localhost_profile: str | None = None


class Sysctl(Struct, frozen=True, kw_only=True):
    name: str = always("")
    value: str = always("")


class SecurityContext(Struct, frozen=True, kw_only=True):
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    se_linux_options: SELinuxOptions | None = None
    windows_options: WindowsSecurityContextOptions | None = None
    run_as_user: Int64 | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    proc_mount: str | None = None
    """Default or Unmasked."""
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class PodSecurityContext(Struct, frozen=True, kw_only=True):
    se_linux_options: SELinuxOptions | None = None
    windows_options: WindowsSecurityContextOptions | None = None
    run_as_user: Int64 | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: tuple[Int64, ...] = ()
    supplemental_groups_policy: str | None = None
    """Merge or Strict."""
    fs_group: Int64 | None = None
    sysctls: tuple[Sysctl, ...] = ()
    fs_group_change_policy: str | None = None
    """OnRootMismatch or Always."""
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None
    se_linux_change_policy: str | None = None
    """Recursive or MountOption."""
