"""Claims without Pods: what the class ``local`` makes of them, and what becomes of volumes."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim
from podrt.model.volume import (
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource,
    Volume,
    VolumeResourceRequirements,
)
from podrt.node.claims import Claims
from podrt.node.volumes import PodDirectory, PodVolumes, block
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def claim(name: str, **spec: str) -> PersistentVolumeClaim:
    requests = VolumeResourceRequirements(requests={"storage": "1Mi"})
    full = PersistentVolumeClaimSpec(access_modes=("ReadWriteOnce",), resources=requests, **spec)  # type: ignore[arg-type]
    return PersistentVolumeClaim(metadata=ObjectMeta(name=name, namespace="default"), spec=full)


async def test_a_disk_that_can_not_be_made_is_told_and_holds_up_no_other(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", full)
    registry.create(claim("big", volume_mode="Block"))
    registry.create(claim("other"))
    claims = Claims(tmp_path, registry, EventRecorder(registry.store, "test"))
    claims.start()
    try:
        found = {one.metadata.name: one.status.phase for one in registry.store.list(PersistentVolumeClaim).items}
        assert found == {"big": "Pending", "other": "Bound"}
        told = [one for one in registry.store.list(Event).items if one.involved_object.name == "big"]
        assert [(one.reason, one.message) for one in told] == [
            ("ProvisioningFailed", "failed to provision volume with StorageClass 'local': File too large")
        ]
        (volume,) = registry.store.list(PersistentVolume).items
        assert [one.name for one in (tmp_path / "volumes").iterdir()] == [volume.metadata.name], "nothing is left of it"
    finally:
        await claims.close()


async def test_a_volume_goes_with_its_claim_and_not_before(registry: Registry, tmp_path: Path) -> None:
    registry.create(claim("c"))
    claims = Claims(tmp_path, registry, EventRecorder(registry.store, "test"))
    claims.start()
    try:
        (volume,) = registry.store.list(PersistentVolume).items
        name = volume.metadata.name
        registry.delete(PersistentVolume, "", name)
        claims._settle()
        kept = registry.store.get(PersistentVolume, "", name)
        assert kept.metadata.deletion_timestamp is not None and kept.status.phase == "Bound"
        registry.delete(PersistentVolumeClaim, "default", "c")
        claims._settle()
        await claims.close()
        assert registry.store.find(PersistentVolume, "", name) is None
        assert not (tmp_path / "volumes" / name).exists()
    finally:
        await claims.close()


async def test_a_device_that_is_being_made_ready_is_not_given_up_half_way(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Pod is deleted meanwhile: who takes the device back must find it, not come before it."""
    registry.create(claim("c", volume_mode="Block"))
    claims = Claims(tmp_path, registry, EventRecorder(registry.store, "test"))
    claims.start()
    loop, began, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def device(path: Path, own: Path) -> Path:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()
        return path

    monkeypatch.setattr(block, "device", device)
    volume = Volume(name="v", persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name="c"))
    pod = Pod(metadata=ObjectMeta(name="p", namespace="default", uid="u"), spec=PodSpec(volumes=(volume,)))
    context: Any = SimpleNamespace(registry=registry, store=registry.store, claims=claims)
    made = PodVolumes(context, PodDirectory(tmp_path, "u"))
    turn = claims.turn(registry.store.list(PersistentVolume).items[0].metadata.name)
    task = asyncio.create_task(made._claim(pod, volume))
    try:
        await began.wait()
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        assert not task.done() and turn.locked()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not turn.locked()
    finally:
        go_on.set()
        await claims.close()
