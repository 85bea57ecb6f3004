"""Elastic tab stops, as in Go's text/tabwriter: a column is as wide as its widest cell in adjoining lines."""

from __future__ import annotations

from collections.abc import Sequence


def align(lines: Sequence[str], padding: int = 2) -> str:
    """``lines`` with their tabs replaced by spaces; each is ended by a newline."""
    cells = [line.split("\t") for line in lines]
    widths = [[0] * (len(row) - 1) for row in cells]
    for column in range(max((len(row) for row in cells), default=0)):
        index = 0
        while index < len(cells):
            start = index
            while index < len(cells) and len(widths[index]) > column:
                index += 1
            if index > start:
                width = max(len(cells[at][column]) for at in range(start, index)) + padding
                for at in range(start, index):
                    widths[at][column] = width
            else:
                index += 1
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, width_row, strict=False)) + row[-1] + "\n"
        for row, width_row in zip(cells, widths, strict=True)
    )
