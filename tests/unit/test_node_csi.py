"""CSI without a driver: the wire of its messages, objects and their rules, which socket a driver is found by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.api.table import table
from podrt.errors import InvalidError
from podrt.model.csi import CSIDriver, CSIDriverSpec, CSIPersistentVolumeSource
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod
from podrt.model.storage import PersistentVolume, PersistentVolumeSpec
from podrt.node import grpc_call
from podrt.node.grpc_call import GrpcError, block, mapping, number, parse, text, varint
from podrt.node.volumes import csi, csi_driver
from podrt.node.volumes.csi_driver import Wanted
from podrt.node.volumes.errors import Unavailable
from podrt.store.objects import Registry
from podrt.store.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def test_messages() -> None:
    # csi.proto's own example of a capability: mount{fs_type: "ext4"}, access_mode{SINGLE_NODE_WRITER}.
    wanted = Wanted("id", {}, "ext4", ("noatime",), 1, read_only=False)
    assert wanted.capability() == b"\x12\x0f\x0a\x04ext4\x12\x07noatime\x1a\x02\x08\x01"
    assert varint(300) == b"\xac\x02"
    assert number(1, 0) == text(1, "") == b"" and block(1, b"") == b"\x0a\x00"
    data = number(1, 300) + text(2, "é") + mapping(3, {"k": "v", "e": ""})
    assert parse(data) == [(1, 300), (2, "é".encode()), (3, b"\x0a\x01k\x12\x01v"), (3, b"\x0a\x01e")]
    # Fields of fixed length are not ours: 1 (64 bit) and 5 (32 bit).
    assert parse(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x08\x01") == [(1, 1)]


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x08", b"\x0b\x01", b"\x80", b"\x08" + b"\xff" * 9 + b"\xff\x01"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(GrpcError):
        parse(data)


def test_a_number_without_an_end_is_refused_at_once() -> None:
    """A Pod answers its own grpc probes: a megabyte of it kept the event loop for three minutes."""
    began = time.process_time()
    with pytest.raises(GrpcError):
        parse(b"\xff" * (1 << 20))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("code", ["", "²", "1" * 5000, "x"])
def test_what_is_no_status(code: str) -> None:
    with pytest.raises(GrpcError, match="no grpc-status"):
        grpc_call._answer(b"", {":status": "200", "grpc-status": code})


def test_ids_of_volumes_of_pods_are_theirs_alone() -> None:
    pods = [Pod(metadata=ObjectMeta(uid=uid)) for uid in ("u1", "u2")]
    handles = {csi.handle(pod, name) for pod in pods for name in ("a", "b")}
    assert len(handles) == 4 and csi.handle(pods[0], "a") in handles


@pytest.mark.parametrize(
    ("spec", "fs_type", "inline", "given"),
    [
        (CSIDriverSpec(), "ext4", False, True),
        (CSIDriverSpec(), "", False, False),
        (CSIDriverSpec(), "", True, True),
        (CSIDriverSpec(fs_group_policy="None"), "ext4", True, False),
        (CSIDriverSpec(fs_group_policy="File"), "", False, True),
    ],
)
def test_whose_files_are_given_to_the_group(spec: CSIDriverSpec, fs_type: str, inline: bool, given: bool) -> None:
    assert csi._gives_to_group(spec, fs_type, False, inline=inline) is given
    assert csi._gives_to_group(spec, fs_type, True, inline=inline) is False


async def test_a_driver_that_nobody_registered(tmp_path: Path) -> None:
    registry = tmp_path / csi_driver.REGISTRY
    registry.mkdir()
    (registry / "stale.sock").touch()
    with pytest.raises(Unavailable, match="not found in the list of registered CSI drivers"):
        await csi_driver.find(tmp_path, "a.b")


async def test_registrars_that_hang_are_not_waited_for_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def call(path: Path, method: str, request: bytes, seconds: float = csi_driver.TIMEOUT) -> grpc_call.Answer:
        asked.append(path.name)
        if path.name != "c.sock":
            await all_asked.wait()
            raise TimeoutError
        all_asked.set()
        assert seconds < csi_driver.TIMEOUT
        return grpc_call.Answer(0, "", text(1, "CSIPlugin") + text(2, "c") + text(3, "/c"))

    all_asked = asyncio.Event()
    monkeypatch.setattr(csi_driver, "call", call)
    (tmp_path / csi_driver.REGISTRY).mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / csi_driver.REGISTRY / f"{name}.sock").touch()
    async with asyncio.timeout(10):
        assert (await csi_driver.find(tmp_path, "c")).name == "c"
    assert asked == ["a.sock", "b.sock", "c.sock", "c.sock"]


def test_driver_objects(registry: Registry) -> None:
    made = registry.create(CSIDriver(metadata=ObjectMeta(name="csi.example.com")))
    assert made.spec.attach_required and made.spec.volume_lifecycle_modes == ("Persistent",)
    (row,) = table("csidrivers", [made])["rows"]
    assert row["cells"][:7] == ["csi.example.com", "true", "false", "false", "<unset>", "false", "Persistent"]


def driver(name: str = "a", **spec: Any) -> CSIDriver:
    return CSIDriver(metadata=ObjectMeta(name=name), spec=CSIDriverSpec(**spec))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (driver(fs_group_policy="All"), "spec.fsGroupPolicy"),
        (driver("x" * 64), "metadata.name"),
        (
            driver(requires_republish=True),
            "spec.requiresRepublish",
        ),
        (
            driver(volume_lifecycle_modes=("Once",)),
            "spec.volumeLifecycleModes[0]",
        ),
        (CSIPersistentVolumeSource(driver="a"), "spec.csi.volumeHandle"),
        (CSIPersistentVolumeSource(volume_handle="a"), "spec.csi.driver"),
    ],
)
def test_what_is_wrong(registry: Registry, value: Any, field: str) -> None:
    if isinstance(value, CSIPersistentVolumeSource):
        spec = PersistentVolumeSpec(capacity={"storage": "1Gi"}, access_modes=("ReadWriteOnce",), csi=value)
        value = PersistentVolume(metadata=ObjectMeta(name="v"), spec=spec)
    with pytest.raises(InvalidError) as caught:
        registry.create(value)
    assert [cause.field for cause in caught.value.causes] == [field]
