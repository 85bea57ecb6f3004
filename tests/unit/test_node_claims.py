"""Claims without Pods: what the class ``local`` makes of them, and what becomes of volumes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim
from podrt.model.volume import PersistentVolumeClaimSpec, VolumeResourceRequirements
from podrt.node.claims import Claims
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
