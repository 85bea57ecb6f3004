"""All volumes of one Pod: made before its containers, kept up to date while it lives, removed with it.

Nothing is polled: the agent tells of changed ConfigMaps and Secrets (:meth:`PodVolumes.changed`), and a timer replaces
tokens before they expire. Content of a source that vanishes stays as it was, as under a kubelet.

What may be on a file server that does not answer (hostPath, NFS, parts of volumes) and fsGroup's walk run in threads;
all else is quick and runs on the event loop. Images are pulled by the container that mounts them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from podrt.engine import threads, trees
from podrt.engine.specs import Device, Mount, Propagation
from podrt.engine.undo import finish
from podrt.errors import AlreadyExistsError, InvalidError, PodrtError
from podrt.model.configuration import ConfigMap, Secret
from podrt.model.container import Container, VolumeMount
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod
from podrt.model.security import PodSecurityContext
from podrt.model.storage import PersistentVolumeClaim
from podrt.model.volume import HostPathVolumeSource, ProjectedVolumeSource, Volume
from podrt.node import selinux
from podrt.node.volumes import (
    atomic,
    block,
    claim,
    csi,
    empty_dir,
    host_path,
    image,
    leaving,
    nfs,
    ownership,
    projected,
    propagation,
    subpath,
)
from podrt.node.volumes.contents import Contents
from podrt.node.volumes.directory import PodDirectory, make_directory
from podrt.node.volumes.errors import Unavailable, VolumeError
from podrt.node.volumes.eviction import Eviction
from podrt.node.volumes.references import uses, variables_use

if TYPE_CHECKING:
    from podrt.node.context import Context

logger = logging.getLogger(__name__)

FILE_KINDS = ("config_map", "secret", "downward_api", "projected")


class Prepared(NamedTuple):
    """One volume that is ready. ``idmap``: its files can be shown with the ids of a user namespace. ``relabel``: they
    are the Pod's own, and get its SELinux label."""

    path: Path
    read_only: bool = False
    idmap: bool = True
    block: bool = False
    relabel: bool = False


class PodVolumes:
    """The volumes of the Pod of one worker."""

    def __init__(self, context: Context, directory: PodDirectory) -> None:
        self._context = context
        self._directory = directory
        self._ready: dict[str, Prepared] = {}
        self._contents = Contents(context)
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._eviction = Eviction(context, directory)
        self._held: dict[str, list[int]] = {}

    # Making

    async def set_up(self, pod: Pod, *, again: bool = False) -> Mapping[str, Prepared]:
        """Make what is not there yet, but for images; by volume name. ``again``: look at all anew (a new sandbox).

        Raises VolumeError, OSError.
        """
        async with self._lock:
            if again:
                self._ready.clear()
            self._directory.make()
            for volume in pod.spec.volumes:
                if volume.name not in self._ready and volume.image is None:
                    self._ready[volume.name] = await self._make(pod, volume)
            self._watch_tokens(pod)
            self._eviction.watch(pod)
            return self._ready

    async def _make(self, pod: Pod, volume: Volume) -> Prepared:
        try:
            if any(getattr(volume, kind) is not None for kind in FILE_KINDS):
                return self._files(pod, volume)
            if volume.empty_dir is not None:
                memory, label = self._context.node_memory, self._label(pod, volume)
                path = empty_dir.set_up(pod, volume.name, volume.empty_dir, self._directory, memory, label)
                await self._give_to_group(pod, path)
                return Prepared(path, relabel=True)
            if volume.host_path is not None:
                return Prepared(await _look(volume.host_path))
            if volume.nfs is not None:
                options = _context(self._label(pod, volume))
                path = await nfs.set_up(volume.nfs, self._directory.volume("nfs", volume.name), options)
                return Prepared(path, volume.nfs.read_only, idmap=False)
            if volume.csi is not None:
                found = await csi.publish_inline(
                    self._context.config.state_dir, self._context.store, pod, volume.name, volume.csi, self._directory
                )
                return await self._published(pod, found)
            if claim.claim_name(pod, volume):
                return await self._claim(pod, volume)
            raise Unavailable("it is of a kind that podrt does not support")
        except Unavailable as error:
            raise VolumeError(volume.name, str(error)) from error

    def images_missing(self, pod: Pod, container: Container) -> list[Volume]:
        """The image volumes that a container mounts and that are not there yet."""
        mounted = {one.name for one in container.volume_mounts}
        return [one for one in pod.spec.volumes if one.image is not None and one.name in mounted - self._ready.keys()]

    def set_up_image(self, pod: Pod, volume: Volume, image_id: str) -> None:
        """Mount the files of an image that is in the store. Raises VolumeError, OSError."""
        try:
            path = image.set_up(self._context.images, image_id, pod.metadata.uid, volume.name, self._directory)
        except Unavailable as error:
            raise VolumeError(volume.name, str(error)) from error
        self._ready[volume.name] = Prepared(path, read_only=True, idmap=not image.is_overlay(path))

    async def _claim(self, pod: Pod, volume: Volume) -> Prepared:
        registry, namespace = self._context.registry, pod.metadata.namespace
        name = claim.claim_name(pod, volume)
        if volume.ephemeral is not None and registry.store.find(PersistentVolumeClaim, namespace, name) is None:
            try:
                registry.create(claim.ephemeral_claim(pod, volume))
            except AlreadyExistsError:
                pass
            except PodrtError as error:
                raise Unavailable(f"its claim can't be made: {error}") from error
        self._context.claims.needed(namespace, name)
        bound = claim.find(registry.store, pod, volume)
        if bound.nfs is not None:
            place = self._directory.volume("nfs", volume.name)
            options = (*bound.volume.spec.mount_options, *_context(self._label(pod, volume)))
            path = await nfs.set_up(bound.nfs, place, options)
            return Prepared(path, bound.read_only or bound.nfs.read_only, idmap=False)
        if bound.volume.spec.csi is not None:
            state_dir, store = self._context.config.state_dir, self._context.store
            async with self._context.claims.turn(bound.volume.metadata.name):
                found = await csi.publish(state_dir, store, pod, volume.name, bound.volume, self._directory)
            return await self._published(pod, found, read_only=bound.read_only)
        path = Path(bound.path)
        if bound.volume.spec.volume_mode == "Block":
            async with self._context.claims.turn(bound.volume.metadata.name):
                # Given up half-way it would be attached once nobody takes it back any more.
                looking = asyncio.to_thread(block.device, path, self._context.claims.root)
                node = await finish(looking, f"device of volume {volume.name}")
            return Prepared(node, bound.read_only, block=True)
        if not path.is_dir():
            raise Unavailable(f"{path} of persistentvolume {bound.volume.metadata.name} is no directory on this host")
        if not bound.read_only:
            await self._give_to_group(pod, path)
        return Prepared(path, bound.read_only, relabel=not bound.read_only)

    async def _published(self, pod: Pod, found: csi.Published, *, read_only: bool = False) -> Prepared:
        if found.group and not read_only:
            await self._give_to_group(pod, found.path)
        # Whether a driver's file system can be idmapped is not known before it is tried.
        read_only = found.read_only or read_only
        return Prepared(found.path, read_only, idmap=False, relabel=not read_only)

    def _label(self, pod: Pod, volume: Volume) -> str:
        """What to mount a file system of the Pod's with; "" for nothing."""
        context = self._context
        return selinux.mounted_with(pod, volume, context.selinux, context.selinux_level(pod))

    async def _give_to_group(self, pod: Pod, path: Path) -> None:
        context = pod.spec.security_context or PodSecurityContext()
        if context.fs_group is not None:
            lenient = context.fs_group_change_policy == "OnRootMismatch"
            walk = asyncio.to_thread(ownership.apply, path, context.fs_group, on_root_mismatch=lenient)
            # Not beside the next Pod's, if this one is given up.
            await finish(walk, f"fsGroup of pod {pod.metadata.name}")

    # Volumes of files

    def _files(self, pod: Pod, volume: Volume) -> Prepared:
        """Write the newest content. Raises Unavailable, OSError."""
        files = self._contents.of(pod, volume)
        path = self._place(volume)
        make_directory(path)
        if _in_memory(volume) and not os.path.ismount(path):
            empty_dir.mount_unswapped(path)
        context = pod.spec.security_context or PodSecurityContext()
        prepare: Callable[[Path], None] | None = None
        if (group := context.fs_group) is not None:

            def give(directory: Path) -> None:
                ownership.apply(directory, group, read_only=True)

            prepare = give
        atomic.write(path, files, prepare)
        return Prepared(path, read_only=True, relabel=True)

    def _place(self, volume: Volume) -> Path:
        kind = next(kind for kind in FILE_KINDS if getattr(volume, kind) is not None)
        return self._directory.volume(
            {"config_map": "configmap", "downward_api": "downward-api"}.get(kind, kind), volume.name
        )

    # Changes

    def changed(self, pod: Pod, change: Object) -> None:
        """An object of the Pod's namespace, or the Pod itself, is not what it was: renew the files made of it."""
        for volume in pod.spec.volumes:
            if uses(volume, pod, change):
                self._renew(pod, volume)

    def waits_for(self, pod: Pod, obj: Object) -> bool:
        """Whether volumes or variables of the Pod may hang on an object."""
        if any(uses(volume, pod, obj) for volume in pod.spec.volumes):
            return True
        return isinstance(obj, ConfigMap | Secret) and any(
            variables_use(container, obj) for container in (*pod.spec.init_containers, *pod.spec.containers)
        )

    def resume(self, pod: Pod) -> None:
        """After a start of the daemon: files are made as they should be, images held, and tokens replaced in time."""
        for volume in pod.spec.volumes:
            if volume.image is not None and self._directory.volume("image", volume.name).is_dir():
                try:
                    held = self._context.images.resolve(volume.image.reference)
                    self._context.images.hold(held.id, image.owner(pod.metadata.uid, volume.name))
                except PodrtError as error:
                    logger.warning("pod %s: image of volume %s: %s", pod.metadata.name, volume.name, error)
            elif any(getattr(volume, kind) is not None for kind in FILE_KINDS):
                self._renew(pod, volume)
        self._watch_tokens(pod)
        self._eviction.watch(pod)

    def _renew(self, pod: Pod, volume: Volume) -> None:
        """Write the newest content if the volume is there. What can't be had leaves the old content."""
        if not any(getattr(volume, kind) is not None for kind in FILE_KINDS):
            return
        path = self._place(volume)
        if not os.path.lexists(path / atomic.DATA):
            return
        try:
            self._files(pod, volume)
        except (Unavailable, PodrtError, OSError) as error:
            logger.warning("pod %s: volume %s keeps its content: %s", pod.metadata.name, volume.name, error)

    def _watch_tokens(self, pod: Pod) -> None:
        """Set the timer for the next token to be replaced."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._contents.due()
        if due is None:
            return
        delay = max(due - time.time(), 1.0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._replace_tokens, pod.metadata)

    def _replace_tokens(self, metadata: ObjectMeta) -> None:
        self._timer = None
        pod = self._context.store.find(Pod, metadata.namespace, metadata.name)
        if pod is None:
            return
        for volume in pod.spec.volumes:
            if volume.projected is not None:
                self._renew(pod, volume)
        self._watch_tokens(pod)

    # Mounts

    async def mounts(self, container: Container, environment: Mapping[str, str], extra: Sequence[Mount]) -> list[Mount]:
        """The container's volume mounts, then ``extra`` (hosts file, termination log) where none takes its place.

        A subPath's source is a descriptor that is held until :meth:`release`. Raises InvalidError, OSError.
        """
        self.release(container.name)
        found = [await self._mount(one, container, environment) for one in container.volume_mounts]
        taken = {one.destination.rstrip("/") for one in found}
        return found + [one for one in extra if one.destination not in taken]

    async def _mount(self, one: VolumeMount, container: Container, environment: Mapping[str, str]) -> Mount:
        volume = self._ready[one.name]
        if volume.block:
            raise InvalidError(f"volume {one.name} has volumeMode Block, but is specified in volumeMounts")
        part = subpath.wanted(one, environment, container.name)
        source = str(volume.path)
        if part:
            fd = await self._part(volume, one.name, part, container.name)
            self._held.setdefault(container.name, []).append(fd)
            source = f"/proc/self/fd/{fd}"
        spread = propagation.wanted(one)
        if spread is not Propagation.PRIVATE:
            look = functools.partial(trees.check_spreads, container.name, volume.path, spread)
            await threads.patiently(look, str(volume.path))
        return Mount(
            source=source,
            destination=one.mount_path,
            read_only=one.read_only or volume.read_only,
            recursive_read_only=one.recursive_read_only in ("Enabled", "IfPossible"),
            propagation=spread,
            idmap=volume.idmap,
            relabel=volume.relabel,
        )

    def devices(self, container: Container) -> list[Device]:
        """The container's volumeDevices. Raises InvalidError for a volume of files."""
        found = []
        for one in container.volume_devices:
            volume = self._ready[one.name]
            if not volume.block:
                raise InvalidError(f"volume {one.name} has volumeMode Filesystem, but is specified in volumeDevices")
            permissions = "rm" if volume.read_only else "rwm"
            found.append(Device(host_path=str(volume.path), container_path=one.device_path, permissions=permissions))
        return found

    async def detach(self, pod: Pod) -> None:
        """The Pod is about to be gone: give back what is not files of its own. Raises Unavailable, OSError."""
        await leaving.detach(self._context, pod, self._directory)

    async def _part(self, volume: Prepared, name: str, part: str, container: str) -> int:
        """A descriptor of a subPath. Raises InvalidError."""
        try:
            return await threads.patiently(
                lambda: subpath.open_(volume.path, part, make=not volume.read_only), f"volume {name}", os.close
            )
        except OSError as error:
            # The error's own text has the path, which an expression may have made of a Secret.
            raise InvalidError(
                f'failed to prepare subPath for volumeMount "{name}" of container "{container}": '
                f"{os.strerror(error.errno or 0)}"
            ) from None

    def release(self, container: str) -> None:
        """The container has been started, or has not: its mounts' descriptors are no longer needed."""
        for fd in self._held.pop(container, ()):
            os.close(fd)

    def path_of(self, name: str) -> Path | None:
        """Where a volume that is ready lies on the host."""
        prepared = self._ready.get(name)
        return prepared.path if prepared is not None else None

    # The end

    def close(self) -> None:
        """Stop timers and close descriptors; the volumes stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._eviction.close()
        for container in tuple(self._held):
            self.release(container)

    def removed(self, pod: Pod) -> None:
        """The Pod's directory is gone: let go of what is elsewhere."""
        for volume in pod.spec.volumes:
            if volume.image is not None:
                owner = image.owner(pod.metadata.uid, volume.name)
                for found in self._context.images.list():
                    self._context.images.release(found.id, owner)


def _context(label: str) -> tuple[str, ...]:
    """The option of mount(8), which takes the quotes away."""
    return (f'context="{label}"',) if label else ()


def _in_memory(volume: Volume) -> bool:
    projection: ProjectedVolumeSource | None = volume.projected
    return volume.secret is not None or (projection is not None and projected.holds_secrets(projection))


async def _look(source: HostPathVolumeSource) -> Path:
    """Raises Unavailable, also where a file server does not answer."""
    try:
        return await threads.patiently(lambda: host_path.set_up(source), f"hostPath: {source.path}")
    except TimeoutError as error:
        raise Unavailable(error.strerror or str(error)) from error
