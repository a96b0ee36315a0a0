"""Short records and absent leads: dropped, or filled and named, by configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_foundry.layout import absent_leads
from ecg_model.leads import LEADS, LEADS_12, LIMB
from ecg_model.signal import prepare
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.selection import Exclusion
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import open_shard
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.step import materialize_ecgs
from pipelines.harmonize.window import Incomplete
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.incoming.step import materialize_drop
from pipelines.records import Record
from tests.support.drops import (
    LIMITS,
    MARKED,
    array_fields,
    complete,
    describe,
    ecgs,
    reasons,
    shard_of,
    write_npy,
)


def test_short_records_are_dropped_or_repeated_by_configuration(drop: Path, tmp_path: Path) -> None:
    x_LT = ecgs(1, seconds=6)[0]
    np.savez(drop / "a.npz", six=x_LT, four=x_LT[:, :2000], five=x_LT[:, :2500])
    describe(drop / "a.npz", **array_fields())
    shard = shard_of(drop, tmp_path / "dropped")
    assert set(reasons(shard).values()) == {"too short"}
    shard = shard_of(drop, tmp_path / "repeated", Incomplete(repeat_from=5))
    assert reasons(shard) == {"four": "too short"}
    rows = shard.records().to_pylist()
    assert [row["record_id"] for row in rows] == ["six", "five"]
    assert rows[0]["samples"] == 3000
    assert rows[0]["notes"] == ["repeated to fill the window: 6.00 s were recorded"]
    expected = prepare(np.concatenate([x_LT, x_LT[:, :2000]], axis=1), leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] / 1000, expected, atol=0.00051)
    with pytest.raises(ValueError, match="repeat_from 4: use seconds, from 5 to 10"):
        Incomplete(repeat_from=4)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(LEADS_12), min_size=1), st.randoms(use_true_random=False))
def test_absent_leads_are_zeros_that_are_named_and_the_others_are_what_they_are(chosen: set[str], random: Any) -> None:
    leads = sorted(chosen)
    random.shuffle(leads)
    x_LT = ecgs(1)[0].astype(np.float32)
    subset = Record(
        record_id="r", signal_LT=x_LT[[LEADS_12.index(one) for one in leads]], leads=tuple(leads), rate=500.0
    )
    whole = Record(record_id="w", signal_LT=x_LT, leads=LEADS_12, rate=500.0)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        harmonize([whole, subset], Path(folder), source="t", limits=LIMITS, incomplete=MARKED)
        shard = open_shard(folder)
        computed = {"I", "II"} - chosen if len(chosen & set(LIMB)) > 1 else set()
        there = chosen | computed
        if not there & set(LEADS):
            assert reasons(shard) == {"r": "lead missing"}
            return
        complete_LT, signal_LT = shard.signals()
        row = shard.records().to_pylist()[1]
    absent = tuple(lead for lead in LEADS if lead not in there)
    assert absent_leads(row["notes"]) == absent
    for at, lead in enumerate(LEADS):
        if lead in computed:  # these ECGs are noise, whose limb leads contradict each other
            assert signal_LT[at].any()
            continue
        np.testing.assert_array_equal(signal_LT[at], 0 if lead in absent else complete_LT[at])
    assert row["quality_flat_leads"] == 0
    assert row["quality_saturation_share"] < 0.01
    derived = chosen & {"III", "aVR", "aVL", "aVF"}
    assert (row["quality_einthoven"] is None) == (not ({"I", "II"} <= chosen and derived))


def test_without_the_setting_a_lead_that_is_missing_drops_its_record(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1, 2), **array_fields(("I", "II")))
    shard = shard_of(drop, tmp_path / "out", Incomplete())
    assert reasons(shard) == {"a0": "lead missing"}


def test_the_corpus_takes_complete_records_alone(home: Home, drop: Path) -> None:
    write_npy(drop / "whole.npy", ecgs(20), **array_fields(patient_ids=list(range(20))))
    write_npy(drop / "some.npy", ecgs(5, 7, seed=1), **array_fields(LEADS_12[:7]))
    shutil.copytree(drop, home.incoming / "again")
    write_npy(home.incoming / "again" / "whole.npy", ecgs(20)[:, :8], **array_fields(LEADS_12[:8]))
    for name in ("again", "ward-7"):
        complete(home.incoming / name)
        materialize_drop(home, name)
        materialize_ecgs(home.workspace(), INCOMING, name, limits=LIMITS, incomplete=MARKED)
    corpus = materialize_corpus(home.workspace(), CorpusConfig(validation_share=0.2))
    facts = corpus.facts
    assert facts["train"] + facts["validation"] == 20
    assert facts["excluded"][Exclusion.LEADS_ABSENT] == 30
    assert facts["by_source"] == {"incoming": 20}
    assert facts["patients"] == 20
