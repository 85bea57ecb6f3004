"""create configmap and create secret generic: what is made of literals, files and env files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from podrt.api import protobuf
from podrt.cli import generators
from podrt.cli.describe_config import describe_config_map, describe_limit_range, describe_quota, describe_secret
from podrt.cli.describe_other import describe_namespace
from podrt.cli.errors import CliError
from podrt.cli.tabs import align
from tests.unit.test_cli_support import FakeServer, client, podrt, server

__all__ = ["client", "server"]


def test_config_map_of_all_sources(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "one").write_text("1")
    (tmp_path / "dir" / "two").write_bytes(b"\xff")
    (tmp_path / "dir" / "sub").mkdir()
    (tmp_path / "env").write_text("# comment\n\nA=b=c\n  D=\n")
    files = (str(tmp_path / "dir"), f"own={tmp_path / 'dir' / 'one'}")
    made = generators.config_map("x", generators.data(("k=v=w",), files, (str(tmp_path / "env"),)))
    assert made["metadata"] == {"name": "x"}
    assert made["data"] == {"k": "v=w", "one": "1", "own": "1", "A": "b=c", "D": ""}
    assert made["binaryData"] == {"two": "/w=="}


def test_secret() -> None:
    made = generators.secret("x", "", generators.data(("k=v",), (), ()))
    assert (made["type"], made["data"]) == ("Opaque", {"k": base64.b64encode(b"v").decode()})
    assert generators.secret("x", "kubernetes.io/tls", {})["type"] == "kubernetes.io/tls"


@pytest.mark.parametrize(("literals", "words"), [(("hunter2",), "KEY=VALUE"), (("a=1", "a=2"), 'key "a"')])
def test_wrong_literals(literals: tuple[str, ...], words: str) -> None:
    with pytest.raises(CliError, match=words) as caught:
        generators.data(literals, (), ())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("configmap", "c", "--from-literal", "a=b"), {"kind": "ConfigMap", "data": {"a": "b"}}),
        (("cm", "c", "--from-literal=a=b"), {"kind": "ConfigMap", "data": {"a": "b"}}),
        (
            ("secret", "generic", "c", "--from-literal=a=b", "--type=t"),
            {"kind": "Secret", "type": "t", "data": {"a": "Yg=="}},
        ),
        (("namespace", "c"), {"kind": "Namespace"}),
        (("sa", "c"), {"kind": "ServiceAccount"}),
        (
            ("priorityclass", "c", "--value=-5", "--preemption-policy=Never"),
            {"kind": "PriorityClass", "value": -5, "preemptionPolicy": "Never", "globalDefault": False},
        ),
    ],
)
def test_what_is_printed_for_a_dry_run(server: FakeServer, args: tuple[str, ...], expected: dict[str, Any]) -> None:
    result = podrt(server, "create", *args, "--dry-run=client", "-o", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["metadata"]["name"] == "c" and expected.items() <= found.items()


def test_wrong_calls(server: FakeServer) -> None:
    for args in (("secret", "c"), ("configmap",), ("secret", "tls", "c"), ("namespace", "a", "b"), ("pod", "x")):
        assert podrt(server, "create", *args).exit_code == 2


def test_descriptions() -> None:
    metadata = {"name": "x", "namespace": "ns"}
    text = align(describe_secret({"metadata": metadata, "type": "Opaque", "data": {"k": "aHVudGVyMg==", "e": ""}}))
    assert "k:  7 bytes" in text and "e:  0 bytes" in text and "hunter2" not in text and "aHVud" not in text
    text = align(describe_config_map({"metadata": metadata, "data": {"k": "a\n\tb"}, "binaryData": {"z": "/w=="}}))
    assert "k:\n----\na\n        b\n" in text and "z: 1 bytes" in text
    status = {"hard": {"pods": "4"}, "used": {"pods": "1"}}
    assert "pods        1     4" in align(describe_quota({"metadata": metadata, "status": status}))
    item = {"type": "Container", "max": {"cpu": "2"}, "default": {"memory": "1Gi"}}
    lines = align(describe_limit_range({"metadata": metadata, "spec": {"limits": [item]}})).splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["Container", "cpu", "-", "2", "-", "-", "-"],
        ["Container", "memory", "-", "-", "-", "1Gi", "-"],
    ]


def test_a_namespace_shows_its_limits() -> None:
    quota = {"metadata": {"name": "q"}, "status": {"hard": {"pods": "4"}, "used": {"pods": "1"}}}
    item = {"type": "Container", "max": {"cpu": "2"}}
    text = align(describe_namespace({"metadata": {"name": "n"}}, [quota], [{"spec": {"limits": [item]}}]))
    assert "Resource Quotas" in text and "Resource Limits" in text
    assert ["pods", "1", "4"] in [line.split() for line in text.splitlines()]
    text = align(describe_namespace({"metadata": {"name": "n"}}))
    assert "No resource quota." in text and "No LimitRange resource." in text


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message of fields with a length (all shorter than 128 bytes)."""
    return b"".join(bytes([number << 3 | 2, len(data)]) + data for number, data in fields)


def enveloped(kind: bytes, raw: bytes) -> bytes:
    return b"k8s\0" + message((1, message((1, b"v1"), (2, kind))), (2, raw), (3, b""), (4, b""))


def test_config_maps_and_secrets_come_as_protobuf() -> None:
    head = (1, message((1, b"x")))
    body = message(
        head, (2, message((1, b"k"), (2, b"v"))), (2, message((1, b"e"))), (3, message((1, b"b"), (2, b"\xff")))
    )
    found = protobuf.document(enveloped(b"ConfigMap", body + b"\x20\x01"))
    assert found == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x"},
        "data": {"k": "v", "e": ""},
        "binaryData": {"b": "/w=="},
        "immutable": True,
    }
    body = message(head, (2, message((1, b"k"), (2, b"\xff"))), (3, b"Opaque"))
    found = protobuf.document(enveloped(b"Secret", body))
    assert (found["data"], found["type"]) == ({"k": "/w=="}, "Opaque")
