from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.tasks.catalogue import PTBXL_SUPERCLASSES, SUITE_TASKS, TASKS, LabelClass, LabelTask
from pipelines.tasks.splits import (
    PAPER_FOLDS,
    FoldProtocol,
    PartitionProtocol,
    PatientProtocol,
    Split,
    drawn_by,
    of_patients,
    patients,
    protocol_from_dict,
    unnamed,
)
from pipelines.tasks.vocabularies import PTBXL_STATEMENTS
from tests.support.paths import SHARED

SUPERCLASS = TASKS["ptbxl_superclass"]
CPSC = TASKS["cpsc2018"]


def records(labels: list[list[str]], **columns: list) -> pa.Table:
    ids = [f"r{i}" for i in range(len(labels))]
    given = {"record_id": ids, "patient_id": [None] * len(ids), "labels": labels, **columns}
    types = {"record_id": pa.string(), "patient_id": pa.string(), "labels": pa.list_(pa.string()), "fold": pa.int8()}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in given.items()})


def real_ptbxl() -> pa.Table:
    path = SHARED / "real" / "ptbxl_database.csv"
    if not path.is_file():
        pytest.skip("../shared/real/ptbxl_database.csv is absent")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    # Every likelihood in this file is 100.0, so the codes are the quoted strings.
    codes = [[part.strip("{' ").rstrip("'") for part in row["scp_codes"].split(": 100.0")][:-1] for row in rows]
    codes = [[code.lstrip(", '") for code in row] for row in codes]
    return records(codes, patient_id=[row["patient_id"] for row in rows], fold=[int(row["strat_fold"]) for row in rows])


def test_the_statements_of_ptbxl_are_those_of_scp_statements():
    path = SHARED / "real" / "scp_statements.csv"
    if not path.is_file():
        pytest.skip("../shared/real/scp_statements.csv is absent")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    published = {
        row[""]: (
            row["description"].strip(),
            (row["diagnostic_class"], row["diagnostic_subclass"]) if row["diagnostic"] == "1.0" else None,
            row["form"] == "1.0",
            row["rhythm"] == "1.0",
        )
        for row in rows
    }
    assert {s.code: (s.title, s.diagnostic, s.form, s.rhythm) for s in PTBXL_STATEMENTS} == published
    superclasses = defaultdict(set)
    for code, (_, diagnostic, _, _) in published.items():
        if diagnostic is not None:
            superclasses[diagnostic[0]].add(code)
    assert {c.name: set(c.codes) for c in PTBXL_SUPERCLASSES} == superclasses


@pytest.mark.parametrize(
    ("name", "classes", "codes"),
    [
        ("all", 71, 71),
        ("diagnostic", 44, 44),
        ("subclass", 23, 44),
        ("superclass", 5, 44),
        ("form", 19, 19),
        ("rhythm", 12, 12),
    ],
)
def test_ptbxl_has_six_sets_of_labels_of_the_published_sizes(name, classes, codes):
    task = SUITE_TASKS[f"ptbxl_{name}"]
    assert len(task.classes) == classes
    assert len({code for c in task.classes for code in c.codes}) == sum(len(c.codes) for c in task.classes) == codes


def test_the_challenge_scored_27_codes_as_24_classes():
    classes = SUITE_TASKS["georgia"].classes
    assert len(classes) == 24
    assert len({code for c in classes for code in c.codes}) == 27
    y_NC, names = SUITE_TASKS["georgia"].targets(records([["59118001"], ["713427006", "63593006"], ["1"]]))
    classes = [[n for n, y in zip(names, row, strict=True) if y] for row in y_NC]
    assert classes == [["RBBB"], ["RBBB", "PAC"], []]


def test_real_ptbxl_rows_fall_into_the_published_splits():
    table = real_ptbxl()
    y_NC, names = SUPERCLASS.targets(table)
    assert names == ("NORM", "MI", "STTC", "CD", "HYP")
    labelled_N = SUPERCLASS.takes_part(y_NC)
    # Of 1.0.3's 21,799 rows this file holds folds 1-9 without fold 10: train 17,418 and validation 2,183 in all.
    split_N = SUPERCLASS.protocol.split(table)
    assert (split_N == Split.TRAIN).sum() == 17_418
    assert (split_N == Split.VALIDATION).sum() == 2_183
    assert (labelled_N & (split_N == Split.TRAIN)).sum() == 17_084
    assert (labelled_N & (split_N == Split.VALIDATION)).sum() == 2_146
    used = {(p, s) for p, s in zip(patients(table), split_N, strict=True)}
    assert len(used) == len({p for p, _ in used}), "a patient is in two splits"


def test_any_code_of_a_class_counts_and_other_codes_do_not():
    y_NC, names = SUPERCLASS.targets(records([["NORM", "SR"], ["IMI", "AMI", "LVH"], ["SR", "NDT_"], []]))
    assert [[n for n, y in zip(names, row, strict=True) if y] for row in y_NC] == [["NORM"], ["MI", "HYP"], [], []]


def test_who_takes_part_in_multi_label_and_multi_class():
    y_NC, _ = SUPERCLASS.targets(records([["NORM"], ["IMI", "LVH"], ["SR"]]))
    assert SUPERCLASS.takes_part(y_NC).tolist() == [True, True, False]
    assert replace(SUPERCLASS, kind="multi-class").takes_part(y_NC).tolist() == [True, False, False]


def test_no_records_have_no_targets():
    y_NC, _ = CPSC.targets(records([]))
    assert y_NC.shape == (0, 9)
    assert CPSC.protocol.split(records([], partition=[])).shape == (0,)


def test_cpsc_codes_mean_what_the_challenge_says():
    code = {"NSR": "426783006", "VEB": "164884008", "STE": "164931005", "STD": "429622005", "PAC": "284470004"}
    y_NC, names = CPSC.targets(records([[c] for c in code.values()]))
    assert [names[row.argmax()] for row in y_NC] == list(code)
    assert len(names) == 9
    assert (y_NC.sum(axis=1) == 1).all()


def test_folds_split_as_told_and_a_missing_fold_is_unused():
    table = records([[]] * 5, fold=[1, 8, 9, 10, None])
    assert FoldProtocol().split(table).tolist() == ["train", "train", "validation", "test", "unused"]
    assert PAPER_FOLDS.split(table).tolist() == ["train", "train", "train", "test", "unused"]
    assert not PAPER_FOLDS.has_validation
    small = FoldProtocol(train=(1,), validation=(8,), test=(9,))
    assert small.split(table).tolist() == ["train", "validation", "test", "unused", "unused"]


@settings(deadline=None, max_examples=50)
@given(
    people=st.lists(st.tuples(st.sampled_from(["g1", "g2", "g7", "g9"]), st.integers(0, 30)), min_size=1, max_size=60),
    share=st.floats(0, 0.9),
)
def test_partition_splits_keep_patients_whole_and_stay_when_partitions_join(people, share):
    people = [(p, f"{p}-{who}") for p, who in people]  # a patient within one partition
    protocol = PartitionProtocol(train=("g1", "g2"), test=("g7",), validation_share=share)
    table = records([[]] * len(people), patient_id=[w for _, w in people], partition=[p for p, _ in people])
    split_N = protocol.split(table)
    for (partition, _), split in zip(people, split_N, strict=True):
        wanted = {"g7": {"test"}, "g9": {"unused"}}.get(partition, {"train", "validation"})
        assert split in wanted
    assert len({(w, s) for (_, w), s in zip(people, split_N, strict=True)}) == len({w for _, w in people})
    early = [i for i, (p, _) in enumerate(people) if p == "g1"]
    assert np.array_equal(protocol.split(table.take(pa.array(early, pa.int64()))), split_N[early])


def test_a_split_by_patient_keeps_patients_whole_and_has_the_shares_that_were_asked():
    protocol = PatientProtocol(validation_share=0.15, test_share=0.25, seed=3)
    table = records([[]] * 6000, patient_id=[str(i // 2) for i in range(6000)])
    split_N = protocol.split(table)
    assert (split_N[::2] == split_N[1::2]).all()
    assert abs((split_N == Split.VALIDATION).mean() - 0.15) < 0.03
    assert abs((split_N == Split.TEST).mean() - 0.25) < 0.03
    assert np.array_equal(protocol.split(table.slice(100, 50)), split_N[100:150])
    assert (replace(protocol, seed=4).split(table) != split_N).any()
    assert PatientProtocol().split(table.slice(0, 0)).shape == (0,)


@pytest.mark.parametrize("task", SUITE_TASKS.values(), ids=lambda task: task.name)
def test_a_protocol_survives_json(task):
    assert protocol_from_dict(json.loads(json.dumps(task.protocol.to_dict()))) == task.protocol


def test_the_validation_share_is_about_what_was_asked():
    protocol = PartitionProtocol(train=("g1",), test=("g7",), validation_share=0.25)
    split_N = protocol.split(records([[]] * 4000, partition=["g1"] * 4000))
    assert abs((split_N == Split.VALIDATION).mean() - 0.25) < 0.03


def test_an_unknown_patient_is_the_record_itself():
    table = records([[], [], []], patient_id=["7", None, "7"])
    assert patients(table) == ["patient 7", "record r1", "patient 7"]


def test_where_no_patient_is_named_it_is_not_called_by_patient():
    who = patients(records([[], [], []], patient_id=["7", None, "7"]))
    assert unnamed(who) == 1
    assert [drawn_by(3, n) for n in (0, 1, 3)] == [
        "patient",
        "patient, and by ECG if no patient is named",
        "ECG (the source names no patients)",
    ]
    assert of_patients(1200, 900, 0) == "1,200 ECGs of 900 patients"
    assert of_patients(30, 20, 5) == "25 ECGs of 15 patients and 5 of no named patient"
    assert of_patients(1200, 1200, 1200) == "1,200 ECGs, patients not named"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FoldProtocol(test=()), "to test on"),
        (lambda: FoldProtocol(train=(1, 2), validation=(2,)), "once"),
        (lambda: PartitionProtocol(train=("g1",), test=("g1",)), "once"),
        (lambda: PartitionProtocol(train=("g1",), test=("g7",), validation_share=1.0), "validation_share=1.0"),
        (lambda: PatientProtocol(validation_share=0.5, test_share=0.5), "test_share=0.5"),
        (lambda: replace(SUPERCLASS, kind="binary"), "kind='binary'"),
        (
            lambda: LabelTask(
                name="one",
                title="",
                source="ptbxl",
                classes=(LabelClass(name="A", title="", codes=("a",)),),
                protocol=FoldProtocol(),
            ),
            "at least two classes",
        ),
    ],
)
def test_a_task_that_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_table_without_the_column_says_which():
    with pytest.raises(ValueError, match="without the column 'fold'"):
        FoldProtocol().split(records([[]]))
    with pytest.raises(ValueError, match="without the column 'partition'"):
        CPSC.protocol.split(records([[]]))
