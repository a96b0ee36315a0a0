"""Labels that a table joins in one cell."""

from __future__ import annotations

import re

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_LIST = re.compile(rf"[\[({{]\s*(?:(?:{_QUOTED})(?:\s*,\s*|\s+|(?=[\])}}])))*[\])}}]")


def split_labels(cell: str) -> list[str]:
    """Return the labels of a cell: joined by `;` or `|`, or texts as Python and NumPy list them, `['AF', 'LBBB']`.

    A comma is part of a label. Spaces around a label are not, and several within it are one. An empty cell gives one
    empty label.
    """
    cell = cell.strip()
    if _LIST.fullmatch(cell):
        labels = [re.sub(r"\\(.)", r"\1", quoted[1:-1]) for quoted in re.findall(_QUOTED, cell)]
    else:
        labels = re.split("[;|]", cell)
    return [" ".join(label.split()) for label in labels]
