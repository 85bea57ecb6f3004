"""csi: volumes of drivers that run on this node, given in the Pod itself or by a PersistentVolume.

A persistent volume is staged once for this node, if its driver does that, and published for each Pod; both are undone
when the last Pod is gone. There is no controller here: drivers that have to attach a volume from outside are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import NamedTuple

from podrt.model.configuration import Secret
from podrt.model.csi import EPHEMERAL, PERSISTENT, CSIDriver, CSIDriverSpec, CSIPersistentVolumeSource
from podrt.model.pod import Pod
from podrt.model.storage import PersistentVolume
from podrt.model.volume import CSIVolumeSource
from podrt.node.volumes import csi_driver
from podrt.node.volumes.csi_driver import MODES, Wanted
from podrt.node.volumes.directory import PodDirectory, make_directory
from podrt.node.volumes.errors import Unavailable
from podrt.node.volumes.payload import Objects


class Published(NamedTuple):
    path: Path
    read_only: bool
    group: bool
    """Whether the files are to be given to the Pod's fsGroup."""


def target(directory: PodDirectory, name: str) -> Path:
    """Where a driver mounts a volume for a Pod; made by the driver."""
    return directory.volume("csi", name) / "mount"


def handle(pod: Pod, name: str) -> str:
    """The id of a volume that is given in the Pod: the same each time, and nobody else's."""
    return "csi-" + hashlib.sha256(f"{pod.metadata.uid}{name}".encode()).hexdigest()


async def publish_inline(
    state_dir: Path, objects: Objects, pod: Pod, name: str, source: CSIVolumeSource, directory: PodDirectory
) -> Published:
    """Have a volume made that lives as long as its Pod. Raises Unavailable."""
    known = objects.find(CSIDriver, "", source.driver)
    if known is None or EPHEMERAL not in known.spec.volume_lifecycle_modes:
        raise Unavailable(
            f"volume mode {EPHEMERAL!r} not supported by driver {source.driver} (its CSIDriver object has to say so)"
        )
    driver = await csi_driver.find(state_dir, source.driver)
    reference = source.node_publish_secret_ref
    secrets = _secret(objects, pod.metadata.namespace, reference.name) if reference is not None else {}
    context = {**source.volume_attributes, **_about(pod, known.spec, ephemeral=True)}
    read_only = bool(source.read_only)
    wanted = Wanted(handle(pod, name), context, source.fs_type or "", (), MODES["ReadWriteOnce"], read_only)
    place = target(directory, name)
    make_directory(place.parent, 0o750)
    await driver.publish(wanted, None, place, secrets)
    return Published(place, read_only, _gives_to_group(known.spec, source.fs_type or "", read_only, inline=True))


async def publish(
    state_dir: Path, objects: Objects, pod: Pod, name: str, volume: PersistentVolume, directory: PodDirectory
) -> Published:
    """Stage a persistent volume, if its driver does that, and have it mounted for a Pod. Raises Unavailable."""
    source = volume.spec.csi
    assert source is not None
    known = objects.find(CSIDriver, "", source.driver)
    spec = known.spec if known is not None else CSIDriverSpec()
    if known is None or spec.attach_required is not False:
        raise Unavailable(
            f"driver {source.driver} wants its volumes attached by a controller, which podrt does not have: where it "
            "can do without, set attachRequired: false in its CSIDriver object"
        )
    if PERSISTENT not in (spec.volume_lifecycle_modes or (PERSISTENT,)):
        raise Unavailable(f"volume mode {PERSISTENT!r} not supported by driver {source.driver}")
    mode = next((MODES[one] for one in volume.spec.access_modes if one in MODES), 1)
    wanted = Wanted(
        source.volume_handle,
        source.volume_attributes,
        source.fs_type,
        volume.spec.mount_options,
        mode,
        source.read_only,
    )
    driver = await csi_driver.find(state_dir, source.driver)
    place = staging(state_dir, source)
    staged = await driver.stages()
    if staged:
        _make_staging(place)
        await driver.stage(wanted, place, _secret_of(objects, source.node_stage_secret_ref))
    path = target(directory, name)
    make_directory(path.parent, 0o750)
    wanted = wanted._replace(context={**wanted.context, **_about(pod, spec, ephemeral=False)})
    await driver.publish(wanted, place if staged else None, path, _secret_of(objects, source.node_publish_secret_ref))
    return Published(path, source.read_only, _gives_to_group(spec, source.fs_type, source.read_only, inline=False))


async def unpublish(state_dir: Path, driver_name: str, volume_id: str, directory: PodDirectory, name: str) -> None:
    """Take a volume from a Pod that has it. Raises Unavailable."""
    place = target(directory, name)
    if not place.parent.is_dir():
        return
    driver = await csi_driver.find(state_dir, driver_name)
    await driver.unpublish(volume_id, place)


async def unstage(state_dir: Path, source: CSIPersistentVolumeSource) -> None:
    """No Pod has the volume any more. Raises Unavailable."""
    place = staging(state_dir, source)
    if not place.parent.is_dir():
        return
    driver = await csi_driver.find(state_dir, source.driver)
    await driver.unstage(source.volume_handle, place)
    try:
        place.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Unavailable(f"CSI driver {source.driver}: after NodeUnstageVolume: {place}: {error.strerror}") from error
    # Others may have volumes beside it.
    for parent in place.parents[:5]:
        with contextlib.suppress(OSError):
            parent.rmdir()


def _make_staging(place: Path) -> None:
    """The place itself is not looked at: it may be a mount whose server has gone, and a look at it never return."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        place.mkdir(0o750)


def staging(state_dir: Path, source: CSIPersistentVolumeSource) -> Path:
    """Where a volume is staged on this node, in the kubelet's layout."""
    digest = hashlib.sha256(source.volume_handle.encode()).hexdigest()
    return state_dir / "plugins" / "kubernetes.io" / "csi" / source.driver / digest / "globalmount"


def _about(pod: Pod, spec: CSIDriverSpec, *, ephemeral: bool) -> dict[str, str]:
    """What a driver is told of the Pod, if it wants to know."""
    if not spec.pod_info_on_mount:
        return {}
    head = "csi.storage.k8s.io/"
    return {
        f"{head}pod.name": pod.metadata.name,
        f"{head}pod.namespace": pod.metadata.namespace,
        f"{head}pod.uid": pod.metadata.uid,
        f"{head}serviceAccount.name": pod.spec.service_account_name,
        f"{head}ephemeral": str(ephemeral).lower(),
    }


def _gives_to_group(spec: CSIDriverSpec, fs_type: str, read_only: bool, *, inline: bool) -> bool:
    policy = spec.fs_group_policy or "ReadWriteOnceWithFSType"
    return not read_only and (policy == "File" or (policy != "None" and (bool(fs_type) or inline)))


def _secret_of(objects: Objects, reference: object) -> dict[str, str]:
    name, namespace = getattr(reference, "name", ""), getattr(reference, "namespace", "")
    return _secret(objects, namespace, name) if reference is not None else {}


def _secret(objects: Objects, namespace: str, name: str) -> dict[str, str]:
    found = objects.find(Secret, namespace, name)
    if found is None:
        raise Unavailable(f'secret "{namespace}/{name}" not found')
    return {key: data.decode(errors="replace") for key, data in found.content().items()}
