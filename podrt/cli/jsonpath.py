"""kubectl's JSONPath templates: ``{.items[*].metadata.name}``, filters, ranges, slices and recursive descent.

A template is text with ``{...}`` holes. In a hole: a path, a quoted string, or ``range PATH`` ... ``end``. Not
supported: scripts and unions of different paths. See https://kubernetes.io/docs/reference/kubectl/jsonpath/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from podrt.cli.errors import CliError

Step = Callable[[list[Any], Any], list[Any]]
Node = tuple[str, Any]

_NAME = re.compile(r"(?:\\.|[^.\[\]{}()\s,@$'\"=!<>])+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>|=~")


def _fail(expression: str, why: str) -> CliError:
    return CliError(f"error parsing jsonpath {expression}, {why}")


class _Path:
    """Parser of one path; ``text[at:]`` is what is left."""

    def __init__(self, text: str, at: int, strict: bool) -> None:
        self.text = text
        self.at = at
        self.strict = strict
        self.missing: list[str] = []

    def parse(self) -> tuple[bool, list[Step]]:
        """Whether the path starts at the root, and its steps."""
        absolute = True
        if self.text.startswith(("@", "$"), self.at):
            absolute = self.text[self.at] == "$"
            self.at += 1
        steps: list[Step] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if self.text.startswith("..", self.at):
                self.at += 2
                steps.append(_descend)
                if self.at < len(self.text) and self.text[self.at] != "[":
                    steps.append(self._field(strict=False))
            elif char == ".":
                self.at += 1
                if self.at < len(self.text) and self.text[self.at] not in " [":
                    steps.append(self._field(self.strict))
            elif char == "[":
                steps.append(self._bracket())
            elif not steps and _NAME.match(self.text, self.at):
                steps.append(self._field(self.strict))
            else:
                break
        return absolute, steps

    def _field(self, strict: bool) -> Step:
        if self.text.startswith("*", self.at):
            self.at += 1
            return _wildcard
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise _fail(self.text, f"a field name is expected at position {self.at}")
        self.at = match.end()
        return _get(re.sub(r"\\(.)", r"\1", match[0]), strict)

    def _bracket(self) -> Step:
        end = _closing(self.text, self.at)
        inner = self.text[self.at + 1 : end].strip()
        self.at = end + 1
        if inner == "*":
            return _wildcard
        if inner.startswith("?(") and inner.endswith(")"):
            return _filter(inner[2:-1].strip())
        if inner[:1] in "'\"" and inner[-1:] == inner[:1] and len(inner) > 1 and inner.count(inner[0]) == 2:
            return _get(inner[1:-1], self.strict)
        if re.fullmatch(r"-?\d*(:-?\d*){1,2}", inner):
            return _slice(*(int(part) if part else None for part in inner.split(":")))
        parts = [part.strip() for part in inner.split(",")]
        if all(re.fullmatch(r"-?\d+", part) for part in parts):
            return _indexes([int(part) for part in parts], self.strict)
        if all(re.fullmatch(r"'[^']*'|\"[^\"]*\"", part) for part in parts):
            return _fields([part[1:-1] for part in parts])
        raise _fail(self.text, f"[{inner}] is not understood")


def _closing(text: str, at: int) -> int:
    """The index of the bracket that closes the one at ``at``; quotes and nested brackets are skipped."""
    depth, quoted = 0, ""
    for index in range(at, len(text)):
        char = text[index]
        if quoted:
            quoted = "" if char == quoted and text[index - 1] != "\\" else quoted
        elif char in "'\"":
            quoted = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
            if depth == 0:
                return index
    raise _fail(text, "unclosed bracket or quote")


def _get(name: str, strict: bool) -> Step:
    def step(values: list[Any], _: Any) -> list[Any]:
        found = [value[name] for value in values if isinstance(value, dict) and name in value]
        if strict and values and not found:
            raise CliError(f"error executing jsonpath: {name} is not found")
        return found

    return step


def _fields(names: list[str]) -> Step:
    return lambda values, _: [v[name] for v in values if isinstance(v, dict) for name in names if name in v]


def _wildcard(values: list[Any], _: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, list):
            found += value
        elif isinstance(value, dict):
            found += [value[key] for key in sorted(value)]
    return found


def _descend(values: list[Any], root: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.append(value)
        found += _descend(_wildcard([value], root), root)
    return found


def _slice(start: int | None, stop: int | None, step: int | None = None) -> Step:
    if step is not None and step <= 0:
        raise CliError("error parsing jsonpath: the step of a slice must be above 0")
    return lambda values, _: [item for value in values if isinstance(value, list) for item in value[start:stop:step]]


def _indexes(numbers: list[int], strict: bool) -> Step:
    def step(values: list[Any], _: Any) -> list[Any]:
        found: list[Any] = []
        for value in values:
            if not isinstance(value, list):
                continue
            for number in numbers:
                if -len(value) <= number < len(value):
                    found.append(value[number])
                elif strict:
                    raise CliError(
                        f"error executing jsonpath: array index out of bounds: index {number}, length {len(value)}"
                    )
        return found

    return step


def _operand(text: str, at: int) -> tuple[Callable[[Any, Any], list[Any]], int]:
    """A path or a literal of a filter, and where it ends."""
    if text[at : at + 1] in ("'", '"'):
        end = text.find(text[at], at + 1)
        if end < 0:
            raise _fail(text, "unclosed quote")
        literal: Any = text[at + 1 : end]
        return (lambda *_: [literal]), end + 1
    number = _NUMBER.match(text, at)
    if number:
        value = json.loads(number[0])
        return (lambda *_: [value]), number.end()
    for word, constant in (("true", True), ("false", False)):
        if text.startswith(word, at):
            return (lambda *_, constant=constant: [constant]), at + len(word)
    path = _Path(text, at, strict=False)
    absolute, steps = path.parse()
    if path.at == at:
        raise _fail(text, f"a value is expected at position {at}")

    def evaluate(current: Any, root: Any) -> list[Any]:
        values = [root if absolute else current]
        for step in steps:
            values = step(values, root)
        return values

    return evaluate, path.at


def _filter(text: str) -> Step:
    left, at = _operand(text, 0)
    rest = text[at:].strip()
    match = _OPERATOR.match(rest)
    if match is None:
        if rest:
            raise _fail(text, f"an operator is expected before {rest!r}")
        return lambda values, root: [item for item in _items(values) if left(item, root)]
    right_text = rest[match.end() :].strip()
    right, end = _operand(right_text, 0)
    if right_text[end:].strip():
        raise _fail(text, f"unexpected {right_text[end:].strip()!r}")
    operator = match[0]

    def step(values: list[Any], root: Any) -> list[Any]:
        return [item for item in _items(values) if _compare(left(item, root), operator, right(item, root))]

    return step


def _items(values: list[Any]) -> list[Any]:
    return [item for value in values if isinstance(value, list) for item in value]


def _compare(left: list[Any], operator: str, right: list[Any]) -> bool:
    if not left or not right:
        return False
    a, b = left[0], right[0]
    if operator == "==":
        return bool(a == b)
    if operator == "!=":
        return bool(a != b)
    if isinstance(a, str) and isinstance(b, str) and operator == "=~":
        return re.search(b, a) is not None
    numbers = isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool)
    if not numbers and not (isinstance(a, str) and isinstance(b, str)):
        return False
    results: dict[str, Callable[[Any, Any], bool]] = {
        "<": lambda x, y: x < y,
        "<=": lambda x, y: x <= y,
        ">": lambda x, y: x > y,
        ">=": lambda x, y: x >= y,
    }
    return operator in results and results[operator](a, b)


class Template:
    """A parsed template. ``strict``: a missing field is an error (kubectl's -o jsonpath lets it pass)."""

    def __init__(self, text: str, strict: bool = False) -> None:
        self._strict = strict
        nodes, rest = self._parse(_holes(text), 0, nested=False)
        assert rest is None
        self._nodes = nodes

    def _parse(self, pieces: list[Node], at: int, nested: bool) -> tuple[list[Node], int | None]:
        nodes: list[Node] = []
        while at < len(pieces):
            kind, value = pieces[at]
            at += 1
            if kind == "text":
                nodes.append(("text", value))
                continue
            hole = value.strip()
            if hole == "end":
                if not nested:
                    raise _fail("{end}", "not in range")
                return nodes, at
            if hole.startswith("range") and hole[5:6] in (" ", "\t"):
                body, after = self._parse(pieces, at, nested=True)
                assert after is not None
                at = after
                nodes.append(("range", (self._path(hole[5:].strip()), body)))
            else:
                nodes += self._expressions(hole)
        if nested:
            raise _fail("{range}", "unterminated range: {end} is missing")
        return nodes, None

    def _path(self, text: str) -> tuple[bool, list[Step]]:
        path = _Path(text, 0, self._strict)
        parsed = path.parse()
        if text[path.at :].strip():
            raise _fail(text, f"unexpected {text[path.at :].strip()!r}")
        return parsed

    def _expressions(self, hole: str) -> list[Node]:
        """Several expressions may follow each other in one hole: ``{.a "\\t" .b}``."""
        nodes: list[Node] = []
        at = 0
        while at < len(hole):
            if hole[at] in " \t,\n":
                at += 1
            elif hole[at] in "'\"":
                match = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"").match(hole, at)
                if match is None:
                    raise _fail(hole, "unterminated quoted string")
                nodes.append(("text", _unescape(match[0][1:-1])))
                at = match.end()
            else:
                path = _Path(hole, at, self._strict)
                parsed = path.parse()
                if path.at == at:
                    raise _fail(hole, f"unrecognized character {hole[at]!r}")
                nodes.append(("path", parsed))
                at = path.at
        return nodes

    def render(self, root: Any) -> str:
        parts: list[str] = []
        self._render(self._nodes, root, root, parts)
        return "".join(parts)

    def values(self, root: Any) -> list[Any]:
        """What the paths of the template find, without turning it into text."""
        return [value for kind, node in self._nodes if kind == "path" for value in _walk(node, root, root)]

    def _render(self, nodes: list[Node], current: Any, root: Any, parts: list[str]) -> None:
        for kind, value in nodes:
            if kind == "text":
                parts.append(value)
            elif kind == "path":
                parts.append(" ".join(to_text(item) for item in _walk(value, current, root)))
            else:
                path, body = value
                for item in _walk(path, current, root):
                    self._render(body, item, root, parts)


def _walk(path: tuple[bool, list[Step]], current: Any, root: Any) -> list[Any]:
    # Inside a range kubectl takes ``.name`` from the current item, not from the root.
    values = [current]
    for step in path[1]:
        values = step(values, root)
    return values


def _unescape(text: str) -> str:
    table = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: table.get(match[1], match[1]), text)


def _holes(text: str) -> list[Node]:
    pieces: list[Node] = []
    at = 0
    while at < len(text):
        start = text.find("{", at)
        if start < 0:
            pieces.append(("text", text[at:]))
            break
        if start > at:
            pieces.append(("text", text[at:start]))
        end = _closing(text, start)
        pieces.append(("hole", text[start + 1 : end]))
        at = end + 1
    return pieces


def to_text(value: Any) -> str:
    """A found value as kubectl prints it: strings bare, the rest as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def relaxed(expression: str) -> str:
    """``.metadata.name`` and ``metadata.name`` as ``{.metadata.name}``, for --sort-by, custom-columns and wait."""
    text = expression.strip()
    if text.startswith("{") and text.endswith("}"):
        return text
    return "{" + (text if text.startswith((".", "[", "$", "@")) else "." + text) + "}"
