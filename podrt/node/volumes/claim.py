"""persistentVolumeClaim and ephemeral: the volume that a claim is bound to. ``node.claims`` binds them."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from podrt.model.meta import ObjectMeta, OwnerReference
from podrt.model.object_defaults import claim_spec
from podrt.model.pod import Pod
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim
from podrt.model.volume import NFSVolumeSource, PersistentVolumeClaimTemplate, Volume
from podrt.node.volumes.errors import Unavailable
from podrt.node.volumes.payload import Objects


class Bound(NamedTuple):
    """Where a claim's files are: a directory of this machine, or an NFS export."""

    volume: PersistentVolume
    path: str
    nfs: NFSVolumeSource | None
    read_only: bool


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim that a volume uses; "" if it uses none. An ephemeral volume's is named after the Pod."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral is not None else ""


def ephemeral_claim(pod: Pod, volume: Volume) -> PersistentVolumeClaim:
    """The claim to make for an ephemeral volume: the Pod owns it, and it goes with the Pod."""
    template = volume.ephemeral.volume_claim_template if volume.ephemeral is not None else None
    template = template or PersistentVolumeClaimTemplate()
    owner = OwnerReference(
        api_version="v1",
        kind="Pod",
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
    metadata = ObjectMeta(
        name=claim_name(pod, volume),
        namespace=pod.metadata.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
        owner_references=(owner,),
    )
    return PersistentVolumeClaim(metadata=metadata, spec=replace(claim_spec(template.spec)))


def is_owned(claim: PersistentVolumeClaim, pod: Pod) -> bool:
    return any(owner.uid == pod.metadata.uid for owner in claim.metadata.owner_references)


def find(objects: Objects, pod: Pod, volume: Volume) -> Bound:
    """Where the files are. Raises Unavailable while the claim is missing, not bound or being deleted."""
    name = claim_name(pod, volume)
    claim = objects.find(PersistentVolumeClaim, pod.metadata.namespace, name)
    if claim is None:
        raise Unavailable(f'persistentvolumeclaim "{name}" not found')
    if volume.ephemeral is not None and not is_owned(claim, pod):
        raise Unavailable(f'PVC "{name}" was not created for the pod: another object has this name')
    if not claim.spec.volume_name or claim.status.phase != "Bound":
        raise Unavailable(f'persistentvolumeclaim "{name}" is not bound')
    found = objects.find(PersistentVolume, "", claim.spec.volume_name)
    if found is None:
        raise Unavailable(f'persistentvolume "{claim.spec.volume_name}" of claim "{name}" not found')
    spec = found.spec
    path = spec.local.path if spec.local is not None else spec.host_path.path if spec.host_path is not None else ""
    asked = volume.persistent_volume_claim
    read_only = bool(asked is not None and asked.read_only)
    return Bound(found, path, spec.nfs, read_only)
