"""The list that validation fills, with one method for each kind of complaint, in Kubernetes' words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podrt.errors import Cause


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    return f'"{text}"' if len(text) <= 256 else f'"{text[:256]}..."'


class Causes(list[Cause]):
    """Everything that is wrong with an object. ``field`` is always a path such as ``spec.containers[0].name``."""

    def required(self, field: str, detail: str = "") -> None:
        self.append(Cause(field, f"Required value: {detail}" if detail else "Required value", "FieldValueRequired"))

    def invalid(self, field: str, value: Any, detail: str) -> None:
        self.append(Cause(field, f"Invalid value: {_shown(value)}: {detail}", "FieldValueInvalid"))

    def not_supported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        known = ", ".join(f'"{entry}"' for entry in supported)
        message = f"Unsupported value: {_shown(value)}: supported values: {known}"
        self.append(Cause(field, message, "FieldValueNotSupported"))

    def forbidden(self, field: str, detail: str) -> None:
        self.append(Cause(field, f"Forbidden: {detail}", "FieldValueForbidden"))

    def duplicate(self, field: str, value: Any) -> None:
        self.append(Cause(field, f"Duplicate value: {_shown(value)}", "FieldValueDuplicate"))

    def not_found(self, field: str, value: Any) -> None:
        self.append(Cause(field, f"Not found: {_shown(value)}", "FieldValueNotFound"))

    def too_long(self, field: str, limit: int) -> None:
        self.append(Cause(field, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong"))

    def too_many(self, field: str, count: int, limit: int) -> None:
        message = f"Too many: {count}: must have at most {limit} items"
        self.append(Cause(field, message, "FieldValueTooMany"))

    # What many fields have in common

    def check(self, field: str, value: Any, errors: Iterable[str]) -> None:
        """``invalid`` for each message of a validator of :mod:`podrt.model.names`."""
        for error in errors:
            self.invalid(field, value, error)

    def one_of(self, field: str, value: str | None, supported: Iterable[str], *, required: bool = False) -> None:
        """An enumeration; an absent value is fine unless ``required``."""
        if value is None or value == "":
            if required:
                self.required(field)
        elif value not in supported:
            self.not_supported(field, value, sorted(supported))

    def between(self, field: str, value: int | None, low: int, high: int) -> None:
        if value is not None and not low <= value <= high:
            self.invalid(field, value, f"must be between {low} and {high}, inclusive")

    def at_least(self, field: str, value: int | None, low: int) -> None:
        if value is not None and value < low:
            self.invalid(field, value, f"must be greater than or equal to {low}")
