"""Printing objects as kubectl does: tables padded by three spaces, JSON, YAML, names, JSONPath, own columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from podrt.cli.errors import CliError
from podrt.cli.session import colored, out

Row = Sequence[str]
Object = dict[str, Any]

_GOOD = {"Running", "Ready", "Active", "Bound", "Available", "True"}
_DONE = {"Completed", "Succeeded"}
_WAIT = {"Pending", "ContainerCreating", "PodInitializing", "Terminating", "NotReady", "Unknown"}
_GREEN, _YELLOW, _RED, _DIM = "32", "33", "31", "2"
FORMATS = "json|yaml|name|wide|jsonpath=|jsonpath-file=|custom-columns=|custom-columns-file="


class Table:
    """Prints rows; widths are remembered, so that the lines of a watch stay aligned with those before."""

    def __init__(self, headers: Row | None, status_column: int = -1) -> None:
        self._headers = headers
        self._widths: list[int] = []
        self._status = status_column if colored() else -1

    def write(self, rows: Iterable[Row]) -> None:
        """Print the header (once) and ``rows``."""
        rows = list(rows)
        lines = ([self._headers] if self._headers is not None else []) + rows
        self._widen(lines)
        if self._headers is not None:
            out(self._line(self._headers, ""))
            self._headers = None
        for row in rows:
            out(self._line(row, _color(row[self._status]) if 0 <= self._status < len(row) else ""))

    def _widen(self, lines: Iterable[Row]) -> None:
        for line in lines:
            for index, cell in enumerate(line):
                if index == len(self._widths):
                    self._widths.append(6)
                self._widths[index] = max(self._widths[index], len(cell) + 3)

    def _line(self, row: Row, color: str) -> str:
        last = len(row) - 1
        cells = []
        for index, cell in enumerate(row):
            text = cell if index == last else cell.ljust(self._widths[index])
            if color and index == self._status:
                text = f"\x1b[{color}m{cell}\x1b[0m" + text[len(cell) :]
            cells.append(text)
        return "".join(cells)


def _color(status: str) -> str:
    if status in _GOOD:
        return _GREEN
    if status in _DONE:
        return _DIM
    word = status.split(",")[0]
    if word in _WAIT or word.startswith(("Init:0", "Init:1", "Init:2", "Init:3")):
        return _YELLOW
    return _GREEN if word == "Ready" else _RED


def table_rows(
    table: Object,
    wide: bool,
    with_namespace: bool = False,
    label_columns: Sequence[str] = (),
    show_labels: bool = False,
    kind_prefix: str = "",
    columns: Sequence[Object] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a ``meta.k8s.io/v1`` Table. ``columns``: definitions of an earlier Table of this watch."""
    definitions = table.get("columnDefinitions") or columns or ()
    shown = [index for index, column in enumerate(definitions) if wide or not column.get("priority")]
    headers = [str(definitions[index]["name"]).upper() for index in shown]
    rows: list[list[str]] = []
    for row in table.get("rows") or ():
        cells = row.get("cells") or []
        metadata = (row.get("object") or {}).get("metadata") or {}
        line = [cell_text(cells[index]) if index < len(cells) else "" for index in shown]
        if kind_prefix and line:
            line[0] = f"{kind_prefix}/{line[0]}"
        if with_namespace:
            line.insert(0, str(metadata.get("namespace", "")))
        labels = metadata.get("labels") or {}
        line += [str(labels.get(name, "")) for name in label_columns]
        if show_labels:
            line.append(labels_text(labels))
        rows.append(line)
    if with_namespace:
        headers.insert(0, "NAMESPACE")
    headers += [name.rpartition("/")[2].upper() for name in label_columns]
    if show_labels:
        headers.append("LABELS")
    return headers, rows


def cell_text(cell: object) -> str:
    """One cell: the first line of a string, marked where more follows."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    text = str(cell)
    head = text.splitlines()[0] if text else ""
    return head if head == text else head + "..."


def labels_text(labels: dict[str, Any] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def object_printer(output: str, wide_ok: bool = False) -> Callable[[Object], str] | None:
    """From ``-o`` a function of an object (or List) to text; None for tables. Raises CliError for an unknown one."""
    name, _, argument = output.partition("=")
    if output == "" or (output == "wide" and wide_ok):
        return None
    if output == "json":
        return lambda value: json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    if output == "yaml":
        from podrt.cli.yamlio import dump

        return dump
    if output == "name":
        return _names
    if name in ("jsonpath", "jsonpath-as-json", "jsonpath-file") and argument:
        return _jsonpath(_from_file(argument) if name == "jsonpath-file" else argument, name == "jsonpath-as-json")
    if name in ("custom-columns", "custom-columns-file") and argument:
        return _custom(argument) if name == "custom-columns" else _custom_file(_from_file(argument))
    if name in ("jsonpath", "jsonpath-file", "custom-columns", "custom-columns-file"):
        raise CliError(f"-o {name} needs a template: -o {name}=...")
    raise CliError(
        f'unable to match a printer suitable for the output format "{output}", allowed formats are: {FORMATS}'
    )


def _from_file(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def objects_of(value: Object) -> list[Object]:
    """The items of a List, or the object itself."""
    items = value.get("items")
    return list(items) if isinstance(items, list) and str(value.get("kind", "")).endswith("List") else [value]


def full_name(value: Object) -> str:
    """``pod/web``, ``deployment.apps/web``."""
    group = str(value.get("apiVersion", "v1")).rpartition("/")[0]
    kind = str(value.get("kind", "")).lower()
    return f"{kind}.{group}/{object_name(value)}" if group else f"{kind}/{object_name(value)}"


def object_name(value: Object) -> str:
    return str((value.get("metadata") or {}).get("name", ""))


def _names(value: Object) -> str:
    return "".join(full_name(item) + "\n" for item in objects_of(value))


def _jsonpath(template: str, as_json: bool) -> Callable[[Object], str]:
    from podrt.cli.jsonpath import Template

    parsed = Template(template)
    if as_json:
        return lambda value: json.dumps(parsed.values(value), indent=4, ensure_ascii=False) + "\n"
    return parsed.render


def _custom(spec: str) -> Callable[[Object], str]:
    pairs = []
    for part in _split_columns(spec):
        header, colon, path = part.partition(":")
        if not colon or not header or not path:
            raise CliError(f"unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")
        pairs.append((header, path))
    return _columns(pairs)


def _split_columns(spec: str) -> list[str]:
    """Split at commas outside brackets (``[?(@.type=="a,b")]`` stays whole)."""
    parts, depth = [""], 0
    for char in spec:
        depth += (char in "[(") - (char in "])")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _custom_file(text: str) -> Callable[[Object], str]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise CliError("a custom-columns file has a line of headers and a line with as many paths")
    return _columns(list(zip(lines[0], lines[1], strict=True)))


def _columns(pairs: Sequence[tuple[str, str]]) -> Callable[[Object], str]:
    from podrt.cli.jsonpath import Template, relaxed, to_text

    templates = [Template(relaxed(path)) for _, path in pairs]

    def render(value: Object) -> str:
        lines = [[header for header, _ in pairs]]
        for item in objects_of(value):
            cells = [",".join(to_text(found) for found in template.values(item)) for template in templates]
            lines.append([cell or "<none>" for cell in cells])
        return format_columns(lines)

    return render


def format_columns(lines: Sequence[Row], padding: int = 3, minimum: int = 6) -> str:
    """Lines padded to columns, each ended by a newline; the last cell of a line is not padded."""
    widths: list[int] = []
    for line in lines:
        for index, cell in enumerate(line[:-1]):
            if index == len(widths):
                widths.append(minimum)
            widths[index] = max(widths[index], len(cell) + padding)
    return "".join(
        "".join(cell.ljust(widths[index]) for index, cell in enumerate(line[:-1])) + (line[-1] if line else "") + "\n"
        for line in lines
    )


def emit(text: str) -> None:
    """Write text to stdout as it is."""
    import sys

    sys.stdout.write(text)
    sys.stdout.flush()
