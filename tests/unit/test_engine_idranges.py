"""Ranges of host ids: none is given out twice, whoever holds the others."""

from __future__ import annotations

import pytest

from podrt.engine import idranges
from podrt.engine.specs import IdMap, SandboxSpec
from podrt.errors import ExhaustedError


def spec(*maps: IdMap) -> SandboxSpec:
    return SandboxSpec(name="p", namespace="ns", uid="u", uid_maps=maps, gid_maps=maps)


def test_slots_differ() -> None:
    first = idranges.choose("one", set())
    assert idranges.choose("one", set()) == first
    assert idranges.choose("one", {first}) == (first + 1) % idranges.SLOTS
    with pytest.raises(ExhaustedError, match="16000"):
        idranges.choose("one", set(range(idranges.SLOTS)))


def test_a_slot_is_taken_by_its_own_maps() -> None:
    assert idranges.taken([spec(*idranges.maps(5)), spec()]) == {5}


@pytest.mark.parametrize(
    ("outside", "count", "slots"),
    [
        (0, 65536, set()),
        (idranges.FIRST - 1, 1, set()),
        (idranges.FIRST - 1, 2, {0}),
        (idranges.FIRST + 10, 65536, {0, 1}),
        (idranges.FIRST + (idranges.SLOTS - 1) * idranges.RANGE + 1, 1 << 20, {idranges.SLOTS - 1}),
        (idranges.FIRST + idranges.SLOTS * idranges.RANGE, 10, set()),
    ],
)
def test_a_range_of_anothers_choice_takes_all_slots_that_it_touches(outside: int, count: int, slots: set[int]) -> None:
    assert idranges.taken([spec(IdMap(inside=0, outside=outside, count=count))]) == slots
