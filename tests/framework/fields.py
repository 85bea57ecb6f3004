"""docs/pod-api.md: what is done with each field of a Pod, and which test shows it.

Tests name the fields that they show with ``@pytest.mark.fields("spec.hostname", ...)``. The markers are read from the
source, without importing it, so that the page can be checked in a moment and on any machine. Paths are those of
:data:`podrt.model.support.TABLE`; a probe's or hook's field counts for all probes or both hooks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from podrt.model.container import Container, LifecycleHandler, Probe
from podrt.model.security import PodSecurityContext, SecurityContext
from podrt.model.status import ContainerStatus, PodStatus
from podrt.model.support import STATUS, TABLE, State, Support
from podrt.model.volume import REMOVED_SOURCES, Volume

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "pod-api.md"
REFUSALS = "tests/unit/test_model_support.py::test_every_refused_field_is_refused_by_name"
"""Shows all refused fields."""
ACCEPTED = "tests/unit/test_model_support.py::test_what_is_accepted_is_kept"
"""Shows all accepted ones of a spec."""
_SHOWN = 2

_ONE_OF = (
    (re.compile(r"\.(readiness|startup)Probe\."), ".livenessProbe."),
    (re.compile(r"\.postStart\."), ".preStop."),
    (re.compile(r"^spec\.(init|ephemeral)Containers\[\]\."), "spec.containers[]."),
    (re.compile(r"^status\.(init|ephemeral)ContainerStatuses\[\]\."), "status.containerStatuses[]."),
)


class Group(NamedTuple):
    """One table of the page: paths are ``prefix.name``."""

    title: str
    prefix: str
    names: tuple[str, ...]


def _hooks() -> tuple[str, ...]:
    return (
        "postStart",
        "preStop",
        "stopSignal",
        *(f"preStop.{one}" for one in LifecycleHandler.__struct_encode_fields__),
    )


GROUPS = (
    Group("PodSpec", "spec", tuple(name.split(".")[1] for name in TABLE if re.fullmatch(r"spec\.\w+", name))),
    Group("Container", "spec.containers[]", Container.__struct_encode_fields__),
    Group("Probe and its handlers", "spec.containers[].livenessProbe", Probe.__struct_encode_fields__),
    Group("Lifecycle and its handlers", "spec.containers[].lifecycle", _hooks()),
    Group("SecurityContext", "spec.containers[].securityContext", SecurityContext.__struct_encode_fields__),
    Group("PodSecurityContext", "spec.securityContext", PodSecurityContext.__struct_encode_fields__),
    Group("Volume", "spec.volumes[]", Volume.__struct_encode_fields__),
    Group("PodStatus", "status", PodStatus.__struct_encode_fields__),
    Group("ContainerStatus", "status.containerStatuses[]", ContainerStatus.__struct_encode_fields__),
)
"""The 176 fields."""


def known(path: str) -> Support | None:
    """What is done with the field of a path, as a marker may name it; None if there is no such field."""
    return TABLE.get(path) or STATUS.get(path) or TABLE.get(canonical(path)) or STATUS.get(canonical(path))


def canonical(path: str) -> str:
    """The path under which the page has a field."""
    for pattern, replacement in _ONE_OF:
        path = pattern.sub(replacement, path)
    return path


def rows() -> list[str]:
    """The paths of all 176 fields, in the page's order."""
    return [f"{group.prefix}.{name}" for group in GROUPS for name in group.names]


def below() -> list[str]:
    """The further entries of the table: fields within one of the 176 that have an entry of their own."""
    return sorted({canonical(path) for path in TABLE} - set(rows()))


def markers() -> Iterator[tuple[str, str]]:
    """(field as the marker names it, test as pytest names it), for each marker in the tests."""
    for path in sorted(TESTS.glob("*/test_*.py")):
        text = path.read_text()
        if "mark.fields" not in text:
            continue
        where = path.relative_to(TESTS.parent)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for field in _fields_of(node, str(where)):
                    yield field, f"{where}::{node.name}"


def _fields_of(node: ast.FunctionDef | ast.AsyncFunctionDef, where: str) -> Iterator[str]:
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.fields":
            continue
        for argument in decorator.args:
            if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                raise ValueError(f"{where}:{argument.lineno}: a marker's fields must be plain strings")
            yield argument.value


def evidence() -> dict[str, list[str]]:
    """Tests by canonical path."""
    found: dict[str, list[str]] = {}
    for field, test in markers():
        tests = found.setdefault(canonical(field), [])
        if test not in tests:
            tests.append(test)
    return found


def page() -> str:
    """The text of docs/pod-api.md."""
    tests = evidence()
    states = [_support(path).state for path in rows()]
    count = {state: states.count(state) for state in State}
    lines = [
        "# The fields of a Pod",
        "",
        f"Of the {len(states)} fields of Kubernetes' Pod API {count[State.SUPPORTED]} are supported, "
        f"{count[State.ACCEPTED]} are accepted (read, kept and shown; the note says why nothing depends on them on one "
        f"machine) and {count[State.REFUSED]} are refused by name when a Pod is created. None is dropped in silence. "
        f"Of the refused ones {len(REMOVED_SOURCES)} are volume drivers that Kubernetes itself has given up.",
        "",
        "A status field is supported if it is told as a kubelet tells it. "
        "Init and ephemeral containers have the fields of containers.",
        "",
        "`docs/generate` makes this page of `podrt/model/support.py` and the `fields` markers of the tests.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group.title} ({len(group.names)})", "", f"Below `{group.prefix}`:", ""]
        lines += _table([(name, f"{group.prefix}.{name}") for name in group.names], tests)
    lines += ["", "## Within these", "", "What has an entry of its own:", ""]
    lines += _table([(path, path) for path in below()], tests)
    return "\n".join(lines) + "\n"


def _table(entries: list[tuple[str, str]], tests: dict[str, list[str]]) -> Iterator[str]:
    yield "| field | | note | shown by |"
    yield "|---|---|---|---|"
    for name, path in entries:
        support = _support(path)
        shown = tests.get(path, [])
        if not shown and support.state is State.REFUSED:
            shown = [REFUSALS]
        elif not shown and support.state is State.ACCEPTED and not path.startswith("status."):
            shown = [ACCEPTED]
        # One of each tier says more than two of one.
        shown = sorted(shown, key=lambda test: (shown.index(test) != 0, "/root/" not in test))[:_SHOWN]
        yield f"| {name} | {support.state.value} | {_note(support)} | {'<br>'.join(map(_link, shown))} |"


def _support(path: str) -> Support:
    support = known(path)
    assert support is not None, path
    return support


def _note(support: Support) -> str:
    if not support.values:
        return support.note
    values = ", ".join(f"`{value}`" if value else "empty" for value in support.values)
    return f"only {values}" + (f"; {support.note}" if support.note else "")


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})"
