"""docs/cri.md has every RPC of the bindings, and says of the right ones that they are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2

from podrt.cri.errors import _CODES
from podrt.cri.image_service import ImageService
from podrt.cri.runtime import RuntimeService

PAGE = Path(__file__).parents[2] / "docs" / "cri.md"
SERVICES = {"RuntimeService": RuntimeService, "ImageService": ImageService}


def rows(heading: str) -> dict[str, tuple[str, str]]:
    """The table below a heading: first column -> the other two."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    found = {row[0]: (row[1], row[-1]) for row in cells[2:]}
    assert len(found) == len(cells) - 2, "a row twice"
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_rpc_has_a_row(service: str) -> None:
    known = [method.name for method in api_pb2.DESCRIPTOR.services_by_name[service].methods]
    assert list(rows(service)) == known or set(rows(service)) == set(known)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_not_refused_is_there(service: str) -> None:
    for name, (does, different) in rows(service).items():
        assert name in vars(SERVICES[service]), f"{name} is not implemented, not even to refuse it"
        assert (not does) == different.startswith("UNIMPLEMENTED"), name


async def test_what_is_refused_says_why() -> None:
    refused = [name for name, (does, _) in rows("RuntimeService").items() if not does]
    assert refused == ["CheckpointContainer"]
    service = object.__new__(RuntimeService)
    for name in refused:
        with pytest.raises(Exception, match="podrt") as caught:
            await getattr(service, name)(None, None)
        assert type(caught.value).__name__ == "UnsupportedError"


def test_the_count_is_that_of_the_bindings() -> None:
    count = sum(len(one.methods) for one in api_pb2.DESCRIPTOR.services_by_name.values())
    assert f"all {count} calls" in PAGE.read_text()


def test_codes() -> None:
    told = set(rows("Errors")) | {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert {code.name for code in _CODES.values()} | {"UNKNOWN", "INTERNAL"} == told
    text = PAGE.read_text()
    assert all(re.search(rf"\b{code}\b", text) for code in told)
