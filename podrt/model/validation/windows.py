"""``windowsOptions`` of security contexts: their form is checked, and then no Linux node looks at them.

Kubernetes takes them as long as the Pod doesn't say that its system is Linux (``spec.os.name``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from podrt.model.container import Container
from podrt.model.names import dns_subdomain_errors
from podrt.model.pod import PodSpec
from podrt.model.security import WindowsSecurityContextOptions
from podrt.model.validation.causes import Causes

SPEC_BYTES = 64 * 1024
DOMAIN_LENGTH = 256
USER_LENGTH = 104
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}')
_DNS = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*", re.ASCII)
_NOT_IN_USER = '"/\\:;|=,+*?<>@[]'


def windows(causes: Causes, spec: PodSpec) -> None:
    """Of the Pod and of all its containers."""
    found = list(_options(spec))
    for field, options in found:
        if spec.os is not None and spec.os.name == "linux":
            causes.forbidden(field, "windows options cannot be set for a linux pod")
        _one(causes, field, options)
    if found:
        _host_process(causes, spec)


def _options(spec: PodSpec) -> Iterator[tuple[str, WindowsSecurityContextOptions]]:
    if spec.security_context is not None and spec.security_context.windows_options is not None:
        yield "spec.securityContext.windowsOptions", spec.security_context.windows_options
    for field, container in _containers(spec):
        if (options := _own(container)) is not None:
            yield f"{field}.securityContext.windowsOptions", options


def _containers(spec: PodSpec) -> Iterator[tuple[str, Container]]:
    parts: tuple[tuple[str, tuple[Container, ...]], ...] = (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    )
    for part, containers in parts:
        for index, container in enumerate(containers):
            yield f"spec.{part}[{index}]", container


def _own(container: Container) -> WindowsSecurityContextOptions | None:
    return container.security_context.windows_options if container.security_context is not None else None


def _one(causes: Causes, field: str, options: WindowsSecurityContextOptions) -> None:
    if (name := options.gmsa_credential_spec_name) is not None:
        causes.check(f"{field}.gmsaCredentialSpecName", name, dns_subdomain_errors(name))
    if (text := options.gmsa_credential_spec) is not None:
        if not text:
            causes.invalid(f"{field}.gmsaCredentialSpec", text, "gmsaCredentialSpec cannot be an empty string")
        elif len(text.encode()) > SPEC_BYTES:
            causes.too_long(f"{field}.gmsaCredentialSpec", SPEC_BYTES)
    if (user := options.run_as_user_name) is not None and (why := _user_error(user)):
        causes.invalid(f"{field}.runAsUserName", user, why)


def _user_error(text: str) -> str:
    """What is wrong with ``DOMAIN\\User`` or ``User``; "" if nothing is."""
    if not text:
        return "runAsUserName cannot be an empty string"
    if _CONTROL.search(text):
        return "runAsUserName cannot contain control characters"
    if text.count("\\") > 1:
        return "runAsUserName cannot contain more than one backslash"
    domain, backslash, user = text.rpartition("\\")
    if backslash and len(domain) >= DOMAIN_LENGTH:
        return f"runAsUserName's Domain length must be under {DOMAIN_LENGTH}"
    if backslash and not (_NETBIOS.fullmatch(domain) or _DNS.fullmatch(domain)):
        return "runAsUserName's Domain doesn't match the NetBios nor the DNS format"
    if not user:
        return "runAsUserName's User cannot be empty"
    if len(user) > USER_LENGTH:
        return f"runAsUserName's User length must not be longer than {USER_LENGTH}"
    if not user.strip(". "):
        return "runAsUserName's User cannot contain only periods or spaces"
    if any(char in _NOT_IN_USER for char in user):
        return f"runAsUserName's User cannot contain the following characters: {_NOT_IN_USER}"
    return ""


def _host_process(causes: Causes, spec: PodSpec) -> None:
    shared = spec.security_context.windows_options if spec.security_context is not None else None
    of_pod = shared.host_process if shared is not None else None
    wanted = []
    for field, container in _containers(spec):
        own = _own(container)
        value = own.host_process if own is not None else None
        if of_pod is not None and value is not None and value != of_pod:
            text = f"pod hostProcess value must be identical if both are specified, was {str(of_pod).lower()}"
            causes.invalid(f"{field}.securityContext.windowsOptions.hostProcess", value, text)
        wanted.append(bool(of_pod if value is None else value))
    if any(wanted) and not all(wanted):
        text = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        causes.invalid("spec", "", text)
    if any(wanted) and not spec.host_network:
        text = "hostNetwork must be true if pod contains any hostProcess containers"
        causes.invalid("spec.hostNetwork", False, text)
