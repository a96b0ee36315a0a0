"""Labels of one's own ECGs from a csv, as a task: `record_id,label`, a line a label.

A record with several lines has several labels; an ECG that is not in the file takes no part.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluate.features import shards_of
from pipelines.evaluate.probe import read_records
from pipelines.labels import LabelClass, LabelTask, PatientProtocol
from pipelines.stage import Workspace

COLUMNS = ("record_id", "label")


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """The labels of each record, in the file's order. Raises ValueError, with the line, for what is no such csv."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets write it, too
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}: save it as a csv in UTF-8") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}: let the first line be {','.join(COLUMNS)}")
    found: dict[str, list[str]] = {}
    for row in rows:
        record, label = ((row[name] or "").strip() for name in COLUMNS)
        if not record or not label:
            raise ValueError(f"{path}, line {rows.line_num}: give a record_id and a label, or leave it out")
        found.setdefault(record, []).append(label)
    return {record: tuple(dict.fromkeys(labels)) for record, labels in found.items()}


def own_task(workspace: Workspace, path: Path, source: str) -> LabelTask:
    """The task of a csv about harmonized ECGs of a source, split by patient: 70 % to train, 10 to choose, 20 to test.

    Where every record has one label it is multi-class, else multi-label. Raises ValueError for records that are not
    among the ECGs, and for fewer than two labels.
    """
    labels = read_labels(path)
    shards = shards_of(workspace, source)
    if not shards:
        raise ValueError(f"no ECGs of {source} in {workspace.root}: harmonize them first")
    _require_known(path, labels, Counter(read_records(shards).column("record_id").to_pylist()), source)
    names = sorted({label for of_record in labels.values() for label in of_record})
    if len(names) < 2:
        raise ValueError(f"{path}: {len(names)} labels ({', '.join(names)}): label the others too, with a second one")
    single = all(len(of_record) == 1 for of_record in labels.values())
    return LabelTask(
        name=f"own_{re.sub('[^A-Za-z0-9]+', '_', path.stem).strip('_').lower() or 'labels'}",
        title=f"own labels of {path.name}",
        source=source,
        classes=tuple(LabelClass(name=name, title=name, codes=(name,)) for name in names),
        protocol=PatientProtocol(),
        kind="multi-class" if single else "multi-label",
        codes=labels,
    )


def _require_known(path: Path, labels: Mapping[str, object], times: Mapping[str, int], source: str) -> None:
    unknown = [record for record in labels if record not in times]
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(labels)} records are not among the {len(times):,} harmonized ECGs of "
            f"{source}, such as {unknown[0]!r}: mend the ids, or leave out what was dropped"
        )
    twice = [record for record in labels if times[record] > 1]
    if twice:
        raise ValueError(
            f"{path}: {len(twice)} records are in more than one drop of {source}, such as {twice[0]!r}: "
            "which one is meant cannot be told; give drops ids of their own"
        )
