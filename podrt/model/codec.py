"""Bytes to objects and back.

:func:`decode` is for what comes from outside: it knows the kind by apiVersion and kind, finds every unknown, duplicate
and mistyped field and treats the first two as ``fieldValidation`` asks. What the store wrote itself is decoded by
msgspec alone.
"""

from __future__ import annotations

import enum
import json
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
import yaml

from podrt.errors import Cause, MalformedError
from podrt.model.decode import ABSENT, Fields, Findings, TooLargeError, plain, struct_checker
from podrt.model.kinds import BY_KIND, Object, Resource

S = TypeVar("S", bound=msgspec.Struct)

MAX_BYTES = 3 * 1024 * 1024
"""The most that Kubernetes takes as one request, too."""
MAX_WARNINGS = 50


class FieldValidation(enum.Enum):
    """What to do with unknown and duplicate fields: the query parameter of the same name."""

    STRICT = "Strict"
    """Refuse the request and name all of them."""
    WARN = "Warn"
    """Drop them (the last of duplicates stays) and return a warning for each."""
    IGNORE = "Ignore"
    """Drop them without a word."""

    @classmethod
    def of(cls, text: str | None) -> FieldValidation:
        """From the query parameter; absent means Warn. Raises MalformedError."""
        try:
            return cls(text or "Warn")
        except ValueError:
            raise MalformedError(
                f'fieldValidation: Unsupported value: "{plain(text or "")}": '
                'supported values: "Ignore", "Strict", "Warn"'
            ) from None


class Decoded(NamedTuple):
    """An object and the warnings to send along with the answer."""

    object: Object
    warnings: tuple[str, ...]


def parse(data: bytes | str, content_type: str = "application/json") -> Any:
    """A JSON or YAML document as dictionaries (:class:`Fields`), lists and scalars.

    ``content_type``: JSON unless ``yaml`` is in it. Raises MalformedError for what can't be read.
    """
    if len(data) > MAX_BYTES:
        raise MalformedError(f"the document is larger than {MAX_BYTES} bytes")
    try:
        text = data if isinstance(data, str) else data.decode()
        return _parse_yaml(text) if "yaml" in content_type else _parse_json(text)
    except UnicodeDecodeError as error:
        raise MalformedError(f"the document is not UTF-8: {error}") from error
    except RecursionError:
        raise MalformedError("the document is nested too deeply") from None


def _parse_json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise MalformedError(f"the document is not valid JSON: {constant} is not a number")

    try:
        return json.loads(text, object_pairs_hook=Fields, parse_constant=refuse)
    except ValueError as error:
        raise MalformedError(f"the document is not valid JSON: {error}") from error


class _Loader(yaml.CSafeLoader):
    """YAML to what JSON can say: times stay text, keys are text, duplicates are noted."""

    def construct_fields(self, node: yaml.MappingNode) -> Fields:
        self.flatten_mapping(node)
        pairs: list[tuple[str, Any]] = []
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool):
                key = "true" if key else "false"
            elif isinstance(key, int | float):
                key = str(key)
            elif not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text, not a list, mapping or null", key_node.start_mark
                )
            pairs.append((key, self.construct_object(value_node, deep=True)))
        return Fields(pairs)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_fields)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_text)


def _parse_yaml(text: str) -> Any:
    try:
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise MalformedError(f"the document is not valid YAML: {error}") from error
    if len(documents) != 1:
        raise MalformedError(f"expected one YAML document, got {len(documents)}: send them one by one")
    return documents[0]


def convert(
    struct: type[S], document: Any, validation: FieldValidation = FieldValidation.STRICT, what: str = ""
) -> tuple[S, tuple[str, ...]]:
    """A parsed document as ``struct``, with warnings. ``what`` says in errors what it is (default: the struct's name).

    Raises MalformedError with all causes.
    """
    what = what or struct.__name__
    findings = Findings()
    try:
        checked = struct_checker(struct)(document, "", findings)
    except TooLargeError:
        raise MalformedError(f"{what} has too many values") from None
    except RecursionError:
        raise MalformedError(f"{what} is nested too deeply") from None
    forgivable = findings.unknown + findings.duplicate
    strict = forgivable if validation is FieldValidation.STRICT else []
    if findings.wrong:
        raise _failure(what, findings.wrong + strict, "")
    if strict:
        raise _failure(what, strict, "strict decoding error: ")
    assert checked is not ABSENT
    try:
        obj = msgspec.convert(checked, struct)
    except msgspec.ValidationError as error:
        # The checkers know every rule of the structs, so this is a rule they missed; its message has the path.
        raise MalformedError(f"{what} cannot be read: {error}") from error
    return obj, _warnings(forgivable) if validation is FieldValidation.WARN else ()


def _warnings(causes: list[Cause]) -> tuple[str, ...]:
    """Each becomes a header of the answer, so there is a bound to them."""
    warnings = [cause.message for cause in causes[:MAX_WARNINGS]]
    if len(causes) > MAX_WARNINGS:
        warnings.append(f"and {len(causes) - MAX_WARNINGS} more unknown or duplicate fields")
    return tuple(warnings)


def _failure(what: str, causes: list[Cause], prefix: str) -> MalformedError:
    messages = ", ".join(cause.message for cause in causes)
    return MalformedError(f"{what} cannot be handled as a {what.split()[0]}: {prefix}{messages}", causes)


def kind_of(document: Any) -> Resource:
    """The resource that a parsed document is an object of. Raises MalformedError."""
    if not isinstance(document, dict):
        raise MalformedError("the document is not an object: expected a mapping with apiVersion and kind")
    version, kind = document.get("apiVersion"), document.get("kind")
    for key, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            raise MalformedError(
                f"Object '{key}' is missing: every object needs apiVersion and kind", [Cause(key, "Required value")]
            )
    resource = BY_KIND.get((version, kind))  # type: ignore[arg-type]
    if resource is None:
        raise MalformedError(
            f'no kind "{plain(str(kind))}" is registered for version "{plain(str(version))}"; this server has '
            + ", ".join(f"{entry.api_version} {entry.kind}" for entry in BY_KIND.values()),
            [Cause("kind", f'no kind "{plain(str(kind))}" in "{plain(str(version))}"')],
        )
    return resource


def decode_document(
    document: Any, validation: FieldValidation = FieldValidation.STRICT, expected: Resource | None = None
) -> Decoded:
    """A parsed document as an object. With ``expected``, apiVersion and kind may be absent but not differ.

    Raises MalformedError that names every field that is wrong.
    """
    if expected is not None and isinstance(document, dict):
        document = _with_kind(document, expected)
    resource = kind_of(document)
    what = f'{resource.kind} in version "{resource.api_version}"'
    return Decoded(*convert(resource.struct, document, validation, what))


def _with_kind(document: dict[str, Any], expected: Resource) -> dict[str, Any]:
    for key, value in (("apiVersion", expected.api_version), ("kind", expected.kind)):
        given = document.get(key)
        if given is None or given == "":
            document[key] = value
        elif given != value:
            raise MalformedError(
                f"{key} in the body ({plain(str(given))}) does not match the {key} of the request ({value})",
                [Cause(key, f"must be {value}")],
            )
    return document


def decode(
    data: bytes | str,
    validation: FieldValidation = FieldValidation.STRICT,
    *,
    content_type: str = "application/json",
    expected: Resource | None = None,
) -> Decoded:
    """An object from a request's body; see :func:`parse` and :func:`decode_document`. Raises MalformedError."""
    return decode_document(parse(data, content_type), validation, expected)


def encode(obj: msgspec.Struct) -> bytes:
    """JSON."""
    return msgspec.json.encode(obj)


def to_document(obj: msgspec.Struct) -> dict[str, Any]:
    """An object as plain dictionaries and lists, as a patch needs it."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(obj))
    return document
