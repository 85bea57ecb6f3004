"""Sets of completion indexes as Jobs write them: ``0,2-4``."""

from __future__ import annotations

from collections.abc import Iterable

LIMIT = 100_000


class IndexesError(ValueError):
    """The text is no set of indexes."""


def parse_indexes(text: str, completions: int | None = None) -> set[int]:
    """The indexes of ``0,2-4``; they must rise, and be below ``completions``. Raises IndexesError."""
    found: set[int] = set()
    last = -1
    for part in text.split(",") if text else ():
        first_text, dash, end_text = part.partition("-")
        if not (first_text.isascii() and first_text.isdigit()) or (
            dash and not (end_text.isascii() and end_text.isdigit())
        ):
            raise IndexesError(f"{part!r} is neither an index nor a range such as 2-4")
        first, end = int(first_text[:10]), int((end_text if dash else first_text)[:10])
        if first <= last or end < first:
            raise IndexesError("indexes must be listed in rising order, each once")
        if end > LIMIT or (completions is not None and end >= completions):
            raise IndexesError(f"index {end} is not below completions")
        found.update(range(first, end + 1))
        last = end
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """``0,2-4`` of any set of indexes; runs of two are written ``0,1``, as Kubernetes does."""
    parts: list[str] = []
    ordered = sorted(set(indexes))
    start = 0
    while start < len(ordered):
        end = start
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        if end - start >= 2:
            parts.append(f"{ordered[start]}-{ordered[end]}")
        else:
            parts += [str(index) for index in ordered[start : end + 1]]
        start = end + 1
    return ",".join(parts)
