"""Every malformed Pod of the table is refused by the right field and for the right reason; nothing is stored."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.errors import Cause, InvalidError, MalformedError
from podrt.model import codec
from podrt.model.kinds import BY_NAME
from podrt.model.pod import Pod
from podrt.store.objects import Registry
from podrt.store.store import Store
from tests.framework import malformed


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One for all cases: what is refused leaves nothing in it."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("malformed") / "store.db")) as store:
        yield Registry(store)


def create(registry: Registry, body: object) -> Pod:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    obj = codec.decode(data, expected=BY_NAME["pods"]).object
    assert isinstance(obj, Pod)
    return registry.create(obj)


def refusal(registry: Registry, body: object) -> tuple[str, tuple[Cause, ...]]:
    with pytest.raises((InvalidError, MalformedError)) as caught:
        create(registry, body)
    assert isinstance(caught.value, InvalidError | MalformedError)
    return str(caught.value), caught.value.causes


def test_the_pod_that_all_cases_start_from_is_good(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path / "store.db")) as store:
        assert create(Registry(store), malformed.GOOD).metadata.uid


def test_the_table_is_large_and_its_names_are_unique() -> None:
    names = [case.name for case in malformed.CASES]
    assert len(names) >= 120
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", malformed.CASES, ids=lambda case: case.name)
def test_malformed_pod_is_refused_by_field(registry: Registry, case: malformed.Case) -> None:
    text, causes = refusal(registry, case.body())
    assert case.field in text
    if case.reason:
        assert (case.field, case.reason) in {(cause.field, cause.reason) for cause in causes}, causes
    assert registry.store.count(Pod) == 0


@pytest.mark.parametrize("case", malformed.CASES, ids=lambda case: case.name)
def test_a_case_is_refused_for_its_own_reason_only(registry: Registry, case: malformed.Case) -> None:
    """Nothing but the field in question is named, so no case passes because of another mistake of the table."""
    _, causes = refusal(registry, case.body())
    top = {cause.field.split("[")[0].split(".")[0] for cause in causes}
    assert top <= {case.field.split("[")[0].split(".")[0]}, causes
