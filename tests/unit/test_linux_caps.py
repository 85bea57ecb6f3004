"""Which capabilities a container gets."""

from __future__ import annotations

import pytest

from podrt.errors import InvalidError
from podrt.linux import caps


def resolve(add: list[str], drop: list[str], privileged: bool = False) -> set[str]:
    return {name.removeprefix("CAP_") for name in caps.resolve(add, drop, privileged, available=caps.ALL)}


DEFAULT = {name.removeprefix("CAP_") for name in caps.DEFAULT}
ALL = {name.removeprefix("CAP_") for name in caps.ALL}


def test_there_are_fourteen_defaults() -> None:
    assert len(caps.DEFAULT) == 14
    assert "CAP_SYS_ADMIN" not in caps.DEFAULT


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT),
        (["NET_ADMIN"], [], DEFAULT | {"NET_ADMIN"}),
        (["cap_net_admin"], [], DEFAULT | {"NET_ADMIN"}),
        ([], ["KILL"], DEFAULT - {"KILL"}),
        ([], ["ALL"], set()),
        (["KILL"], ["ALL"], {"KILL"}),
        (["ALL"], [], ALL),
        (["all"], ["SYS_ADMIN"], ALL - {"SYS_ADMIN"}),
        (["KILL"], ["KILL"], DEFAULT - {"KILL"}),
        (["ALL", "BPF"], ["ALL"], {"BPF"}),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert resolve(add, drop) == expected


def test_privileged_has_all() -> None:
    assert resolve([], ["ALL"], privileged=True) == ALL


@pytest.mark.parametrize(("add", "drop"), [(["NOPE"], []), ([], ["CAP_"]), ([""], [])])
@pytest.mark.parametrize("privileged", [False, True])
def test_unknown_names_are_refused(add: list[str], drop: list[str], privileged: bool) -> None:
    with pytest.raises(InvalidError, match="unknown capability"):
        resolve(add, drop, privileged)


def test_never_more_than_there_is() -> None:
    have = [name for name in caps.ALL if name != "CAP_SYS_RESOURCE"]
    got = caps.resolve(["SYS_RESOURCE"], [], available=have)
    assert set(got) == set(caps.DEFAULT)
    assert caps.lacking(["SYS_RESOURCE", "KILL"], have) == ("CAP_SYS_RESOURCE",)
