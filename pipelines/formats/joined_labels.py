"""Labels that a table joins in one cell."""

from __future__ import annotations

import ast
import re


def split_labels(cell: str) -> list[str]:
    """Return the labels of a cell: joined by `;` or `|`, or a list of texts as Python writes it, `['AF', 'LBBB']`.

    A comma is part of a label. An empty cell gives one empty label.
    """
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            listed = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return [one.strip() for one in listed]
    return [one.strip() for one in re.split("[;|]", cell)]
