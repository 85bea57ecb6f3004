"""Which sysctls a Pod may set: the safe ones, and those that the node's owner allows. Pure, the kubelet's rules.

The API has refused what the kernel keeps for the whole machine. What is left can only hurt the Pod, or the machine
through the Pod's share of it (buffers, queues), so only a known list is allowed to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from podrt.model.pod import Pod
from podrt.model.podsecurity import SYSCTLS

REASON = "SysctlForbidden"
SAFE = SYSCTLS | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}
"""What Kubernetes 1.36 calls safe: two more than the Pod Security Standards have in their baseline."""


def refusal(pod: Pod, allowed: Iterable[str]) -> str:
    """Why a Pod may not run here; "" if it may. ``allowed``: names, or prefixes that end with ``*``."""
    context = pod.spec.security_context
    patterns = tuple(allowed)
    for sysctl in context.sysctls if context is not None else ():
        # Of both separators the first decides (sysctl(8)); with a slash the dots are part of names.
        name = sysctl.name if "/" not in sysctl.name.partition(".")[0] else sysctl.name.replace("/", ".")
        if name not in SAFE and not any(_matches(name, pattern) for pattern in patterns):
            return f'forbidden sysctl: "{name}" not allowlisted'
    return ""


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
