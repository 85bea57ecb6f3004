"""SELinux labels of Pods and containers: pure functions.

As under a kubelet a container's ``seLinuxOptions`` stand instead of the Pod's; what they leave out is as the policy has
it for containers, but for the level, which is the Pod's.
"""

from __future__ import annotations

from podrt.engine.labels import Labels, Options, labels
from podrt.linux.selinux import Defaults
from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.model.security import PodSecurityContext, SecurityContext, SELinuxOptions
from podrt.model.volume import Volume

RECURSIVE = "Recursive"


def of_pod(pod: Pod, defaults: Defaults | None, own_level: str) -> Labels:
    """Of what the containers of a Pod share; none if no container has a label."""
    shared = pod.spec.security_context or PodSecurityContext()
    unconfined = pod.spec.host_pid or pod.spec.host_ipc
    found = labels(_options(shared.se_linux_options), defaults, own_level, unconfined=unconfined)
    if not found.process and any(of_container(pod, one, defaults, own_level).process for one in _containers(pod)):
        return labels(Options(level=own_level), defaults, own_level, unconfined=False)
    return found


def of_container(pod: Pod, container: Container, defaults: Defaults | None, own_level: str) -> Labels:
    """``own_level``: that of the Pod, given by its options or chosen for it."""
    shared = pod.spec.security_context or PodSecurityContext()
    own = container.security_context or SecurityContext()
    unconfined = bool(own.privileged or pod.spec.host_pid or pod.spec.host_ipc)
    options = _options(own.se_linux_options or shared.se_linux_options)
    return labels(options, defaults, own_level, unconfined=unconfined)


def mounted_with(pod: Pod, volume: Volume, defaults: Defaults | None, own_level: str) -> str:
    """The label to mount a file system of the Pod with; "" to label its files one by one: seLinuxChangePolicy says
    so, or the containers that have the volume are not of one label."""
    shared = pod.spec.security_context or PodSecurityContext()
    if defaults is None or shared.se_linux_change_policy == RECURSIVE:
        return ""
    found = {
        of_container(pod, one, defaults, own_level).file
        for one in _containers(pod)
        if any(mount.name == volume.name for mount in one.volume_mounts)
    }
    return found.pop() if len(found) == 1 else ""


def _containers(pod: Pod) -> tuple[Container, ...]:
    return (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)


def _options(given: SELinuxOptions | None) -> Options:
    return Options() if given is None else Options(given.user, given.role, given.type, given.level)
