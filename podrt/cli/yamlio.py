"""YAML as Kubernetes reads and writes it.

Kubernetes reads YAML into JSON: keys are strings, dates stay strings, ``22:22`` is no sexagesimal number, ``1e3`` is a
number, and a key given twice is an error (PyYAML would keep the last silently). Imported only where YAML is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from podrt.cli.errors import CliError

_MAX_NODES = 2_000_000
_MAX_DEPTH = 200
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """PyYAML's safe loader with the scalars of Go's YAML library."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are made strings here: as Python's 1 and true are equal, a dict would merge them before."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self._key(key_node)
            if key in seen:
                raise yaml.YAMLError(f'line {key_node.start_mark.line + 1}: key "{key}" already set in map')
            seen.add(key)
        self.flatten_mapping(node)
        return {self._key(key_node): self.construct_object(value, deep=deep) for key_node, value in node.value}

    def _key(self, node: Any) -> str:
        key = self.construct_object(node, deep=True)
        if isinstance(key, bool):
            return "true" if key else "false"
        if isinstance(key, str | int | float):
            return str(key)
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key must be a string, not {key!r}")


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    if len(text) > 1 and text[0] == "0" and text[1].isdigit():
        return sign * int(text, 8)
    return sign * int(text, 0)


def _construct_float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_DROPPED = {f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "int", "float", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in entries if tag not in _DROPPED]
    for first, entries in _BASE.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class _Dumper(yaml.SafeDumper):
    """Block style, sorted keys, multi-line strings as literal blocks, no aliases: what kubectl prints."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Any, data: str) -> Any:
    style = "|" if "\n" in data and not re.search(r"[ \t]\n|[ \t]$", data) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _represent_text)


def load_all(text: str, origin: str) -> Iterator[Any]:
    """The documents of ``text`` as JSON values; empty ones are left out. Raises CliError that names ``origin``."""
    try:
        for document in yaml.load_all(text, Loader=_Loader):
            if document is not None:
                yield _jsonable(document, origin, [_MAX_NODES], 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}:" if mark else ""
        raise CliError(f"error parsing {origin}: error converting YAML to JSON: yaml:{where} {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        text = str(error).replace("\n", " ")
        raise CliError(f"error parsing {origin}: error converting YAML to JSON: yaml: {text}") from None


def _jsonable(value: Any, origin: str, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH:
        raise CliError(
            f"error parsing {origin}: the document is too large, too deep or contains itself through aliases"
        )
    if isinstance(value, dict):
        return {key: _jsonable(item, origin, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item, origin, left, depth + 1) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CliError(f"error parsing {origin}: {value} has no form in JSON")
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    if value is None or isinstance(value, str | int):
        return value
    raise CliError(f"error parsing {origin}: a value of type {type(value).__name__} has no form in JSON")


def dump(value: Any) -> str:
    """YAML of a JSON value, ending in a newline."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True, width=4096
    )
    return text
