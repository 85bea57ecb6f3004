"""projected: Secrets, ConfigMaps, the downward API and tokens in one directory. Where paths clash the last one wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from podrt.model.pod import Pod
from podrt.model.volume import ProjectedVolumeSource, ServiceAccountTokenProjection
from podrt.node.volumes import downward_api, payload
from podrt.node.volumes.errors import Unavailable
from podrt.node.volumes.payload import File, Objects, Payload

TokenFor = Callable[[int, ServiceAccountTokenProjection], str]
"""The token of source number N, the same until it is to be replaced. Raises Unavailable."""


def files(
    pod: Pod, source: ProjectedVolumeSource, objects: Objects, allocatable: Mapping[str, str], token_for: TokenFor
) -> Payload:
    """All files. Raises Unavailable."""
    mode = 0o644 if source.default_mode is None else source.default_mode
    namespace = pod.metadata.namespace
    found: Payload = {}
    for index, entry in enumerate(source.sources):
        if entry.secret is not None:
            one = entry.secret
            found |= payload.secret(objects, namespace, one.name, one.items, mode, one.optional)
        elif entry.config_map is not None:
            two = entry.config_map
            found |= payload.config_map(objects, namespace, two.name, two.items, mode, two.optional)
        elif entry.downward_api is not None:
            found |= downward_api.files(pod, entry.downward_api.items, mode, allocatable)
        elif entry.service_account_token is not None:
            token = token_for(index, entry.service_account_token)
            found[entry.service_account_token.path] = _token_file(pod, token, mode)
        else:
            raise Unavailable(f"source {index} is of a kind that podrt does not support")
    return found


def _token_file(pod: Pod, token: str, mode: int) -> File:
    """A token is for its reader alone: the user that all containers share, or the fsGroup; else everyone in the Pod."""
    user = shared_user(pod)
    context = pod.spec.security_context
    if user is not None or (context is not None and context.fs_group is not None):
        mode = 0o600
    return File(token.encode(), mode, user or 0)


def shared_user(pod: Pod) -> int | None:
    """runAsUser, if it is one for all containers."""
    shared = pod.spec.security_context.run_as_user if pod.spec.security_context is not None else None
    users = {
        one.security_context.run_as_user
        if one.security_context is not None and one.security_context.run_as_user is not None
        else shared
        for one in (*pod.spec.containers, *pod.spec.init_containers)
    }
    return users.pop() if len(users) == 1 else None


def holds_secrets(source: ProjectedVolumeSource) -> bool:
    """Whether the files must not reach a disk."""
    return any(entry.secret is not None or entry.service_account_token is not None for entry in source.sources)
