"""PersistentVolumeClaims: bound to a PersistentVolume that fits, or to a new directory of this machine.

A class of provisioner ``podrt.dev/local`` makes ``<state_dir>/volumes/pvc-<uid>`` for each claim; the class ``local``
(Delete) is there from the start and is the default. A directory has no size: the capacity is what was asked for, and
is not enforced; of mode Block it is a file of that size, used by a loop device. A claim is kept as long as there is a
Pod that names it (``pvc-protection``), ended or not, and a volume as long as its claim (``pv-protection``). When a
claim goes, its volume is deleted with its files, or kept as Released, as ``persistentVolumeReclaimPolicy`` says.

Everything is derived from the stored objects, so a step that a crash cut off is done at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from podrt.errors import NotFoundError, PodrtError
from podrt.model.event import ObjectReference
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod
from podrt.model.quantity import parse
from podrt.model.selectors import LabelSelection
from podrt.model.storage import (
    CLAIM_FINALIZER,
    DEFAULT_CLASS,
    LOCAL_PROVISIONER,
    VOLUME_FINALIZER,
    LocalVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeSpec,
    PersistentVolumeStatus,
    StorageClass,
)
from podrt.node.volumes import block
from podrt.node.volumes.claim import claim_name
from podrt.node.volumes.directory import remove_tree
from podrt.store.events import NORMAL, WARNING, EventRecorder, reference
from podrt.store.objects import Registry
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_KINDS = ("pods", "persistentvolumeclaims", "persistentvolumes", "storageclasses")


class Claims:
    """Keeps all claims of this machine. ``start`` first, ``close`` last; works on the event loop's thread."""

    def __init__(self, state_dir: Path, registry: Registry, recorder: EventRecorder) -> None:
        self.root = state_dir / "volumes"
        self._registry = registry
        self._store = registry.store
        self._recorder = recorder
        self._wanted: set[tuple[str, str]] = set()
        self._scheduled = False
        self._closed = False
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str] = {}
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        """Make the first class, and bring everything to where it should be."""
        if not self._store.count(StorageClass):
            metadata = ObjectMeta(name="local", annotations={DEFAULT_CLASS: "true"})
            self._registry.create(StorageClass(metadata=metadata, provisioner=LOCAL_PROVISIONER))
        for kind in _KINDS:
            self._unsubscribe.append(self._store.subscribe(self._on_change, kind).close)
        self._settle()

    async def close(self) -> None:
        """Stop; removals that are under way end at the next start."""
        self._closed = True
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        if self._removals:
            await asyncio.wait(self._removals.values())

    def used_besides(self, pod: Pod, name: str) -> bool:
        """Whether another Pod than ``pod``, which is about to be gone, uses a claim of its namespace."""
        claim = self._store.find(PersistentVolumeClaim, pod.metadata.namespace, name)
        return claim is not None and any(one.metadata.uid != pod.metadata.uid for one in self._users(claim))

    def turn(self, volume: str) -> asyncio.Lock:
        """Held while a volume is made ready for a Pod, or undone after its last one: one Pod must not undo what
        another has just been given.
        """
        return self._turns.setdefault(volume, asyncio.Lock())

    def needed(self, namespace: str, name: str) -> None:
        """A Pod is to be started with a claim: WaitForFirstConsumer waits no longer."""
        self._wanted.add((namespace, name))
        claim = self._store.find(PersistentVolumeClaim, namespace, name)
        if claim is not None and claim.status.phase != "Bound":
            self._guarded(self._settle_claim, claim)

    def _on_change(self, change: Change) -> None:
        if isinstance(change.object, Pod) and change.old is not None and change.new is not None:
            return  # What counts is that there is a Pod, not how it does.
        if not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        for claim in self._store.list(PersistentVolumeClaim).items:
            self._guarded(self._settle_claim, claim)
        for volume in self._store.list(PersistentVolume).items:
            self._guarded(self._settle_volume, volume)

    def _guarded(self, settle: Callable[[Object], None], obj: Object) -> None:
        try:
            settle(obj)
        except (PodrtError, OSError):
            logger.exception("%s %s can't be settled", obj.kind, obj.metadata.name)

    # Claims

    def _settle_claim(self, claim: Object) -> None:
        assert isinstance(claim, PersistentVolumeClaim)
        if claim.metadata.deletion_timestamp is not None:
            if CLAIM_FINALIZER in claim.metadata.finalizers and not any(self._users(claim)):
                self._registry.release(claim, CLAIM_FINALIZER)
            return
        if self._orphaned(claim):
            self._registry.delete(PersistentVolumeClaim, claim.metadata.namespace, claim.metadata.name)
            return
        if claim.status.phase == "Bound":
            if self._store.find(PersistentVolume, "", claim.spec.volume_name) is None:
                self._set_phase(claim, "Lost")
                self._tell(claim, WARNING, "ClaimLost", "Bound claim has lost its PersistentVolume. Data is lost!")
        elif claim.status.phase != "Lost":
            self._bind_or_provision(claim)

    def _users(self, claim: PersistentVolumeClaim) -> Iterable[Pod]:
        """Pods that use a claim. One that has ended has its volumes until it is deleted."""
        for pod in self._store.list(Pod, claim.metadata.namespace).items:
            if any(claim_name(pod, volume) == claim.metadata.name for volume in pod.spec.volumes):
                yield pod

    def _orphaned(self, claim: PersistentVolumeClaim) -> bool:
        """Whether a Pod owned the claim and is gone."""
        owners = [owner for owner in claim.metadata.owner_references if owner.kind == "Pod" and owner.controller]
        for owner in owners:
            pod = self._store.find(Pod, claim.metadata.namespace, owner.name)
            if pod is None or pod.metadata.uid != owner.uid:
                return True
        return False

    def _bind_or_provision(self, claim: PersistentVolumeClaim) -> None:
        class_name = self._class_of(claim)
        volume = self._fitting(claim, class_name)
        if volume is not None:
            self._bind(claim, volume, class_name)
            return
        if claim.spec.volume_name:
            return  # It waits for that very volume.
        if not class_name:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._tell(claim, NORMAL, "FailedBinding", text)
            return
        found = self._store.find(StorageClass, "", class_name)
        if found is None:
            self._tell(claim, WARNING, "ProvisioningFailed", f'storageclass.storage.k8s.io "{class_name}" not found')
        elif found.provisioner != LOCAL_PROVISIONER:
            text = f'nothing here provisions volumes of "{found.provisioner}", only of "{LOCAL_PROVISIONER}"'
            self._tell(claim, WARNING, "ProvisioningFailed", text)
        elif found.volume_binding_mode == "WaitForFirstConsumer" and not self._is_wanted(claim):
            text = "waiting for first consumer to be created before binding"
            self._tell(claim, NORMAL, "WaitForFirstConsumer", text)
        else:
            try:
                volume = self._provision(claim, found)
            except OSError as error:
                text = f"failed to provision volume with StorageClass {class_name!r}: {os.strerror(error.errno or 0)}"
                self._tell(claim, WARNING, "ProvisioningFailed", text)
                return
            self._bind(claim, volume, class_name)

    def _is_wanted(self, claim: PersistentVolumeClaim) -> bool:
        return (claim.metadata.namespace, claim.metadata.name) in self._wanted

    def _class_of(self, claim: PersistentVolumeClaim) -> str:
        """The class that is named, "" if none is wanted; the default class where nothing is said."""
        if claim.spec.storage_class_name is not None:
            return claim.spec.storage_class_name
        defaults = [
            one.metadata.name
            for one in self._store.list(StorageClass).items
            if one.metadata.annotations.get(DEFAULT_CLASS) == "true"
        ]
        return defaults[0] if defaults else ""

    def _fitting(self, claim: PersistentVolumeClaim, class_name: str) -> PersistentVolume | None:
        """The smallest free volume that will do; one that was kept for this claim before any other."""
        fitting: list[PersistentVolume] = []
        for volume in self._store.list(PersistentVolume).items:
            about = volume.spec.claim_ref
            if volume.metadata.deletion_timestamp is not None:
                continue
            if about is not None:
                if (about.namespace, about.name) == (claim.metadata.namespace, claim.metadata.name) and about.uid in (
                    "",
                    claim.metadata.uid,
                ):
                    return volume
            elif fits(claim, volume, class_name):
                fitting.append(volume)
        return min(fitting, key=lambda one: parse(one.spec.capacity["storage"]).value, default=None)

    def _provision(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> PersistentVolume:
        name = f"pvc-{claim.metadata.uid}"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / name
        path.mkdir(exist_ok=True)
        # For whatever user the container has; the parent lets nobody else in.
        path.chmod(0o777)
        disk: Path | None = None
        if claim.spec.volume_mode == "Block":
            try:
                disk = block.make_disk(path, math.ceil(parse(claim.spec.resources.requests["storage"]).value))
            except OSError:
                remove_tree(path)
                raise
        metadata = ObjectMeta(name=name, annotations={PROVISIONED_BY: LOCAL_PROVISIONER})
        spec = PersistentVolumeSpec(
            capacity={"storage": claim.spec.resources.requests["storage"]},
            access_modes=claim.spec.access_modes,
            local=LocalVolumeSource(path=str(disk or path)),
            volume_mode=claim.spec.volume_mode,
            claim_ref=_claim_ref(claim),
            persistent_volume_reclaim_policy=storage_class.reclaim_policy or "Delete",
            storage_class_name=storage_class.metadata.name,
        )
        volume = self._registry.create(PersistentVolume(metadata=metadata, spec=spec))
        self._tell(claim, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        return volume

    def _bind(self, claim: PersistentVolumeClaim, volume: PersistentVolume, class_name: str) -> None:
        volume = replace(volume, spec=replace(volume.spec, claim_ref=_claim_ref(claim)))
        self._store.update(replace(volume, status=PersistentVolumeStatus(phase="Bound")))
        status = replace(
            claim.status, phase="Bound", access_modes=volume.spec.access_modes, capacity=volume.spec.capacity
        )
        spec = replace(claim.spec, volume_name=volume.metadata.name, storage_class_name=class_name)
        self._store.update(replace(claim, spec=spec, status=status))
        self._wanted.discard((claim.metadata.namespace, claim.metadata.name))

    def _set_phase(self, claim: PersistentVolumeClaim, phase: str) -> None:
        self._store.update(replace(claim, status=replace(claim.status, phase=phase)))

    def _tell(self, obj: Object, type_: str, reason: str, message: str) -> None:
        """Record an event, unless it was the last one about the object: claims are looked at again and again."""
        if self._told.get(obj.metadata.uid) != message:
            self._told[obj.metadata.uid] = message
            self._recorder.record(obj, type_, reason, message)

    # Volumes

    def _settle_volume(self, volume: Object) -> None:
        assert isinstance(volume, PersistentVolume)
        about = volume.spec.claim_ref
        if about is None or not about.uid:
            if volume.status.phase in ("", "Pending"):
                volume = self._set_volume_phase(volume, "Available")
            self._let_go(volume)
            return
        claim = self._store.find(PersistentVolumeClaim, about.namespace, about.name)
        if claim is not None and claim.metadata.uid == about.uid:
            return
        if volume.status.phase == "Failed":
            self._let_go(volume)
            return
        if volume.status.phase != "Released":
            volume = self._set_volume_phase(volume, "Released")
        if volume.spec.persistent_volume_reclaim_policy != "Delete":
            self._let_go(volume)
        elif volume.metadata.name not in self._removals:
            self._removals[volume.metadata.name] = asyncio.get_running_loop().create_task(self._remove(volume))

    def _let_go(self, volume: PersistentVolume) -> None:
        """A volume that is being deleted and that no claim has goes."""
        metadata = volume.metadata
        if metadata.deletion_timestamp is not None and VOLUME_FINALIZER in metadata.finalizers:
            self._registry.release(volume, VOLUME_FINALIZER)

    def _set_volume_phase(self, volume: PersistentVolume, phase: str, message: str = "") -> PersistentVolume:
        status = PersistentVolumeStatus(phase=phase, message=message, reason="VolumeFailedDelete" if message else "")
        return self._store.update(replace(volume, status=status))

    async def _remove(self, volume: PersistentVolume) -> None:
        """Delete a released volume and its files."""
        name = volume.metadata.name
        try:
            path = self._own_path(volume)
            if path is None:
                text = f"podrt deletes only what {LOCAL_PROVISIONER} made: remove the files, then the volume"
                self._set_volume_phase(volume, "Failed", text)
                self._tell(volume, WARNING, "VolumeFailedDelete", text)
                return
            try:
                await asyncio.to_thread(block.release, path / block.DISK, self.root)
                await asyncio.to_thread(remove_tree, path)
            except OSError as error:
                self._set_volume_phase(volume, "Failed", f"its files can't be deleted: {error.strerror}")
                return
            self._store.delete(PersistentVolume, "", name)
        except NotFoundError:
            pass  # Somebody else deleted the object meanwhile.
        finally:
            self._removals.pop(name, None)

    def _own_path(self, volume: PersistentVolume) -> Path | None:
        """The directory that this machine made for a volume; None if it made none. The object's own path is not
        believed: who writes the object must not choose what is deleted.
        """
        local = volume.spec.local
        if local is None or volume.metadata.annotations.get(PROVISIONED_BY) != LOCAL_PROVISIONER:
            return None
        path = self.root / volume.metadata.name
        return path if Path(local.path) in (path, path / block.DISK) and path.parent == self.root else None


def fits(claim: PersistentVolumeClaim, volume: PersistentVolume, class_name: str) -> bool:
    """Whether a free volume is what a claim asks for. Pure."""
    spec = volume.spec
    if (claim.spec.volume_mode or "Filesystem") != (spec.volume_mode or "Filesystem"):
        return False
    if claim.spec.volume_name:
        return claim.spec.volume_name == volume.metadata.name
    if spec.storage_class_name != class_name or not set(claim.spec.access_modes) <= set(spec.access_modes):
        return False
    if claim.spec.selector is not None:
        selection = LabelSelection.of(claim.spec.selector)
        if not selection.matches(volume.metadata.labels):
            return False
    return parse(spec.capacity["storage"]) >= parse(claim.spec.resources.requests["storage"])


def _claim_ref(claim: PersistentVolumeClaim) -> ObjectReference:
    return replace(reference(claim), resource_version="")
