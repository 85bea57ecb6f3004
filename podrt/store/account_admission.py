"""What a new Pod gets of its ServiceAccount: pull secrets, and the files with which it can show who it is.

Unlike in a cluster the files are mounted only where the Pod or its account says so (``automountServiceAccountToken:
true``), not wherever nobody says no: Pods can't reach the API, so a token that nobody asked for is of use only to who
steals it.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from podrt.model.configuration import ServiceAccount
from podrt.model.container import Container, ObjectFieldSelector, VolumeMount
from podrt.model.defaults import NAME_ALPHABET, SUFFIX_LENGTH
from podrt.model.pod import Pod, PodSpec
from podrt.model.volume import (
    ConfigMapProjection,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from podrt.store.accounts import DEFAULT, ROOT_CERTIFICATE
from podrt.store.class_admission import Refused
from podrt.store.store import Store

MIRROR = "kubernetes.io/config.mirror"
"""An annotation of static Pods: they have no account."""
PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
"""Kubernetes' own odd number, by which its tools know a token that was mounted without being asked for by name."""
FILE_MODE = 0o644


def with_account(store: Store, pod: Pod) -> Pod:
    """A Pod with what its account gives. Raises Refused where there is no such account."""
    if MIRROR in pod.metadata.annotations:
        return pod
    spec, space = pod.spec, pod.metadata.namespace
    name = spec.service_account_name or DEFAULT
    account = store.find(ServiceAccount, space, name)
    if account is None:
        raise Refused(f'error looking up service account {space}/{name}: serviceaccount "{name}" not found')
    spec = replace(
        spec,
        service_account_name=name,
        service_account=name,
        image_pull_secrets=spec.image_pull_secrets or account.image_pull_secrets,
    )
    asked = spec.automount_service_account_token
    if account.automount_service_account_token if asked is None else asked:
        spec = _with_files(spec)
    return replace(pod, spec=spec)


def _with_files(spec: PodSpec) -> PodSpec:
    name = "kube-api-access-" + "".join(random.choices(NAME_ALPHABET, k=SUFFIX_LENGTH))
    mount = VolumeMount(name=name, read_only=True, mount_path=PLACE)

    def mounted(containers: tuple[Container, ...]) -> tuple[Container, ...]:
        return tuple(
            one if _has_own(one) else replace(one, volume_mounts=(*one.volume_mounts, mount)) for one in containers
        )

    if all(_has_own(one) for one in (*spec.init_containers, *spec.containers)):
        return spec
    return replace(
        spec,
        init_containers=mounted(spec.init_containers),
        containers=mounted(spec.containers),
        volumes=(*spec.volumes, _files(name)),
    )


def _has_own(container: Container) -> bool:
    """Whether something else is mounted there."""
    return any(one.mount_path == PLACE for one in container.volume_mounts)


def _files(name: str) -> Volume:
    """token, ca.crt and namespace, as every client library of Kubernetes looks for them."""
    namespace = ObjectFieldSelector(api_version="v1", field_path="metadata.namespace")
    token = ServiceAccountTokenProjection(expiration_seconds=TOKEN_SECONDS, path="token")
    sources = (
        VolumeProjection(service_account_token=token),
        # There is one only where the daemon serves TLS.
        VolumeProjection(
            config_map=ConfigMapProjection(
                name=ROOT_CERTIFICATE, items=(KeyToPath(key="ca.crt", path="ca.crt"),), optional=True
            )
        ),
        VolumeProjection(
            downward_api=DownwardAPIProjection(items=(DownwardAPIVolumeFile(path="namespace", field_ref=namespace),))
        ),
    )
    return Volume(name=name, projected=ProjectedVolumeSource(sources=sources, default_mode=FILE_MODE))
