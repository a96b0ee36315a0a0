"""One person is in training or in validation, however a drop says whose ECGs are whose."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecg_model.leads import LEADS_12
from pipelines.corpus.checks import corpus_is_apart
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import CorpusFacts, materialize_corpus
from pipelines.formats.shard import open_shard
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.incoming import own_data
from pipelines.incoming.step import materialize_drop
from tests.support.drops import LIMITS, complete, describe

SUBJECTS, STUDIES = 20, 6
CONFIG = CorpusConfig(validation_share=0.3)


def write_mimic(drop: Path, comment: str) -> dict[str, int]:
    """Write a drop laid out as MIMIC-IV-ECG, by subject and study. Returns the subject of each record."""
    rng, subject_of = np.random.default_rng(0), {}
    for subject in range(10_000_032, 10_000_032 + SUBJECTS):
        for _ in range(STUDIES):
            study = str(40_000_000 + len(subject_of))
            folder = drop / "files" / f"p{subject // 10_000}" / f"p{subject}" / f"s{study}"
            folder.mkdir(parents=True)
            adu_TL = rng.normal(0, 60, (2500, 12)).astype("<i2")
            adu_TL.tofile(folder / f"{study}.dat")
            sums = adu_TL.sum(axis=0).astype("<i2")  # modulo 65,536
            lines = [f"{study} 12 250 2500 09:16:00 29/08/2180"]
            lines += [
                f"{study}.dat 16 200.0(0)/mV 16 0 {first} {total} 0 {lead}"
                for first, total, lead in zip(adu_TL[0], sums, LEADS_12, strict=True)
            ]
            (folder / f"{study}.hea").write_text("\n".join([*lines, f"# {comment.format(subject=subject)}", ""]))
            subject_of[study] = subject
    complete(drop)
    return subject_of


def splits_of_subjects(home: Home, subject_of: dict[str, int]) -> tuple[dict[int, set[str]], CorpusFacts]:
    """Harmonize the drop and make a corpus. Returns the splits in which each subject's ECGs are."""
    workspace = home.workspace()
    materialize_drop(home, "ward-7")
    ecgs = materialize_ecgs(workspace, own_data(home), "ward-7", limits=LIMITS)
    assert open_shard(ecgs.path).records().num_rows == len(subject_of)
    corpus = materialize_corpus(workspace, CONFIG)
    facts, finding = CorpusFacts.of(corpus), corpus_is_apart(workspace, corpus)
    assert finding.holds, finding.seen
    assert ("of unknown patients" in finding.seen) == bool(facts.unknown_patients)
    splits: dict[int, set[str]] = defaultdict(set)
    for row in pq.read_table(corpus.path / "index.parquet").to_pylist():
        splits[subject_of[row["record_id"]]].add(row["split"])
    assert facts.train + facts.validation == len(subject_of)
    assert facts.train
    assert facts.validation
    return splits, facts


@pytest.mark.parametrize(
    ("comment", "fields"), [("<subject_id>: {subject}", {}), ("Age: 60", {"patient_from": "folder 3"})]
)
def test_no_subject_of_mimic_is_in_training_and_validation(
    home: Home, drop: Path, comment: str, fields: dict[str, str]
) -> None:
    describe(drop / "drop", **fields)
    splits, facts = splits_of_subjects(home, write_mimic(drop, comment))
    assert [len(of_subject) for of_subject in splits.values()] == [1] * SUBJECTS
    assert (facts.patients, facts.unknown_patients) == (SUBJECTS, {})


def test_a_corpus_says_that_its_patients_are_unknown(home: Home, drop: Path) -> None:
    splits, facts = splits_of_subjects(home, write_mimic(drop, "Age: 60"))
    assert max(len(of_subject) for of_subject in splits.values()) == 2, "each ECG counts as a patient of its own"
    assert facts.unknown_patients == {"incoming": SUBJECTS * STUDIES}
