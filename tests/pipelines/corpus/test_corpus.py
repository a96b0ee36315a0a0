"""The corpus: no duplicate, nothing that is evaluated on, a stable split by patient, and signals that load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ecg_foundry.layout import absent_note
from ecg_model.leads import LEADS
from pipelines.cache import Product, Workspace
from pipelines.corpus.checks import corpus_is_apart
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.index import load_signals
from pipelines.corpus.selection import Candidate, select
from pipelines.corpus.split import LEAST_VALIDATION, split_by_patient
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import open_shard
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.records import Record
from tests.support.copies import regular
from tests.support.registered import harmonized


def ecg(at: int, *, patient: str | None = None, content: int | None = None) -> Record:
    """A record with the signal number `content` (its own by default), already at 250 Hz."""
    x_LT = np.random.default_rng(at if content is None else content).integers(-900, 900, (8, 2500)) / 1000
    return Record(record_id=f"r{at}", signal_LT=x_LT.astype(np.float32), leads=LEADS, rate=250, patient_id=patient)


def shard(workspace: Workspace, name: str, records: Sequence[Record], *, role: str = "pretraining") -> Product:
    source = name.split("/")[0]

    def make(out: Path) -> dict[str, object]:
        counts = harmonize(records, out, source=source, limits=QualityLimits())
        return {**counts.facts(), "role": role}

    inputs = {"raw": str([(item.record_id, item.patient_id, float(item.signal_LT.sum())) for item in records])}
    return workspace.build(f"ecgs/{name}", version="1", config={}, inputs=inputs, make=make)


def index(product: Product) -> list[dict[str, object]]:
    return pq.read_table(product.path / "index.parquet").to_pylist()


def exclusions(product: Product) -> dict[str, str]:
    rows = pq.read_table(product.path / "exclusions.parquet").to_pylist()
    return {f"{row['shard']} {row['record_id']}": row["reason"] for row in rows}


def test_the_index_names_each_record_and_loads_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/02", [ecg(at) for at in range(100, 130)])
    shard(workspace, "chapman/01", [ecg(at) for at in range(30)])
    shard(workspace, "code15/0", [ecg(at, patient=f"p{at // 2}") for at in range(200, 240)])
    product = materialize_corpus(workspace, CorpusConfig(validation_share=0.3))
    rows = index(product)
    assert [row["shard"] for row in rows] == ["chapman/01"] * 30 + ["chapman/02"] * 30 + ["code15/0"] * 40
    described = json.loads((product.path / "corpus.json").read_text())
    assert described["counts"]["train"] + described["counts"]["validation"] == 100
    assert described["counts"]["by_source"] == {"chapman": 60, "code15": 40}
    for split in ("train", "validation"):
        chosen = [row for row in rows if row["split"] == split]
        signals_NLT = load_signals(tmp_path, product.path, split)
        assert len(signals_NLT) == len(chosen) == described["counts"][split] > 0
        for row, signal_LT in zip(chosen, signals_NLT, strict=True):
            stored = open_shard(tmp_path / described["shards"][row["shard"]]["path"])
            np.testing.assert_array_equal(signal_LT, stored.signals()[row["row"]])
            expected = ecg(int(str(row["record_id"])[1:])).signal_LT
            np.testing.assert_allclose(signal_LT * 0.001, expected, atol=1e-6)


def test_equal_signals_are_taken_once_across_sources(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [ecg(1), ecg(2), ecg(3, content=1)])
    shard(workspace, "code15/0", [ecg(11, content=2), ecg(12)])
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == ["r1", "r2", "r12"]
    assert exclusions(product) == {"chapman/01 r3": "duplicate", "code15/0 r11": "duplicate"}
    assert product.facts["excluded"]["duplicate"] == 2


def test_what_is_evaluated_on_stays_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [ecg(1), ecg(2), ecg(3), ecg(4, content=3)])
    shard(workspace, "clinic/a", [ecg(5, patient="x"), ecg(6, patient="y")])
    shard(workspace, "ptbxl/00", [ecg(90, content=3), ecg(91, patient="x")], role="evaluation")
    shard(workspace, "clinic/b", [ecg(92, patient="y")], role="evaluation")
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == ["r1", "r2", "r5"]
    assert exclusions(product) == {
        "chapman/01 r3": "evaluation record",
        "chapman/01 r4": "evaluation record",
        "clinic/a r6": "evaluation patient",
    }
    assert "ptbxl/00" not in json.loads((product.path / "corpus.json").read_text())["shards"]


def copy_of(base: Record, name: str, *, gain: float = 1.0, patient: str | None = None) -> Record:
    """The same recording at 100 Hz, scaled, rounded to 5 uV."""
    x_LT = resample_poly(base.signal_LT, 2, 5, axis=-1) * gain
    return replace(
        base, record_id=name, rate=100, patient_id=patient, signal_LT=(np.rint(x_LT * 200) / 200).astype(np.float32)
    )


def smooth(at: int, *, patient: str | None = None) -> Record:
    """A record that 100 Hz can hold."""
    base = ecg(at, patient=patient)
    return replace(base, signal_LT=resample_poly(base.signal_LT[:, :500], 5, 1, axis=-1).astype(np.float32))


def test_copies_at_another_rate_gain_and_rounding_are_taken_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [smooth(1), smooth(2), copy_of(smooth(1), "c1", gain=1.7)])
    shard(workspace, "code15/0", [copy_of(smooth(2), "c2", gain=0.4), smooth(3)])
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == ["r1", "r2", "r3"]
    assert exclusions(product) == {"chapman/01 c1": "near duplicate", "code15/0 c2": "near duplicate"}
    details = pq.read_table(product.path / "exclusions.parquet")["detail"].to_pylist()
    assert details == [f"nearly the same signal as r{n} of chapman/01" for n in (1, 2)]


def test_a_copy_of_an_evaluation_record_stays_out_whoever_came_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [smooth(1), smooth(2), smooth(3), copy_of(smooth(1), "c1")])
    shard(workspace, "ptbxl/00", [copy_of(smooth(1), "e1", gain=0.9)], role="evaluation")
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == ["r2", "r3"]
    assert exclusions(product) == dict.fromkeys(("chapman/01 r1", "chapman/01 c1"), "copy of an evaluation record")
    assert product.facts["considered"] == 4 == 2 + sum(product.facts["excluded"].values())


def test_a_patient_is_evaluated_on_in_every_source_that_shares_an_ecg(tmp_path: Path) -> None:
    """The clinic's x has r1, which is evaluated on; its r2 is also in the registry, as an ECG of patient y there."""
    workspace = Workspace(tmp_path)
    shard(workspace, "clinic/a", [smooth(1, patient="x"), smooth(2, patient="x"), smooth(3, patient="z")])
    shard(workspace, "registry/a", [copy_of(smooth(2), "c2", patient="y"), smooth(4, patient="y"), smooth(5)])
    shard(workspace, "ptbxl/00", [copy_of(smooth(1), "e1")], role="evaluation")
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == ["r3", "r5"]
    assert exclusions(product) == {
        "clinic/a r1": "copy of an evaluation record",
        "clinic/a r2": "evaluation patient",
        "registry/a c2": "evaluation patient",
        "registry/a r4": "evaluation patient",
    }


def test_regular_rhythms_in_step_stay_and_a_copy_names_the_one_it_is_near_to(tmp_path: Path) -> None:
    """Each is near to the next, as a chain; a patient of the first is evaluated on."""
    workspace = Workspace(tmp_path)
    chain = [
        replace(ecg(at, patient=f"p{at}"), signal_LT=regular(0.8 + 0.0006 * at, seed=at).astype(np.float32))
        for at in range(12)
    ]
    again = replace(chain[7], record_id="again", patient_id="q", signal_LT=chain[7].signal_LT * np.float32(0.9))
    shard(workspace, "clinic/a", [*chain[1:], again])
    shard(workspace, "ptbxl/00", [chain[0]], role="evaluation")
    product = materialize_corpus(workspace, CorpusConfig())
    assert [row["record_id"] for row in index(product)] == [f"r{at}" for at in range(1, 12)]
    assert exclusions(product) == {"clinic/a again": "near duplicate"}
    details = pq.read_table(product.path / "exclusions.parquet")["detail"].to_pylist()
    assert details == ["nearly the same signal as r7 of clinic/a"]
    finding = corpus_is_apart(workspace, product)
    assert finding.holds, finding.seen


def test_who_is_a_copy_of_two_is_left_out_for_evaluation_first_and_reaches_both() -> None:
    """1 is like the held-out 0 and like 2; so 2 and whoever shares a person with it may be evaluated on."""
    held_out, *rows = (Candidate("s/1", at, "s", f"r{at}", None, str(at)) for at in range(5))
    copies = [(0,), (1,), (0, 1), (3,), (3,)]
    kept, excluded = select(rows, [held_out], copies)
    assert [row.record_id for row in kept] == ["r3"]
    assert [(row["record_id"], row["reason"], row["detail"]) for row in excluded] == [
        ("r1", "evaluation patient", "record r1 has an ECG of a patient who is evaluated on"),
        ("r2", "copy of an evaluation record", "nearly the same signal as r0 of s/1"),
        ("r4", "near duplicate", "nearly the same signal as r3 of s/1"),
    ]


def test_a_copy_of_what_is_not_selected_is_selected() -> None:
    rows = [Candidate("s/1", at, "s", f"r{at}", None, str(at)) for at in range(3)]
    rows[0] = replace(rows[0], notes=(absent_note(["V6"]),))
    kept, excluded = select(rows, [], [(0,), (0,), (2,)])
    assert [row.record_id for row in kept] == ["r1", "r2"]
    assert [row["reason"] for row in excluded] == ["leads not recorded"]


@given(data=st.data(), n=st.integers(1, 30), held=st.integers(0, 10))
@settings(deadline=None, max_examples=100)
def test_nothing_that_is_kept_touches_evaluation_and_all_else_is_excluded(
    data: st.DataObject, n: int, held: int
) -> None:
    """Any groups of copies, any patients: selected records are of different groups, and of nobody in a held-out one."""
    groups = data.draw(st.lists(st.integers(0, 12), min_size=n + held, max_size=n + held))
    patients = data.draw(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=n + held, max_size=n + held))
    everyone = [Candidate("s/1", at, "s", f"r{at}", patients[at], str(at)) for at in range(n + held)]
    first = [groups.index(group) for group in groups]
    kept, excluded = select(everyone[held:], everyone[:held], [(number,) for number in first])
    assert {row.record_id for row in kept} | {row["record_id"] for row in excluded} == {
        f"r{at}" for at in range(held, n + held)
    }
    assert len(kept) + len(excluded) == n
    kept_groups = [groups[row.row] for row in kept]
    assert len(set(kept_groups)) == len(kept_groups)
    assert not set(kept_groups) & set(groups[:held])
    assert not {row.person for row in kept} & {row.person for row in everyone[:held]}
    reached = {row.person for row in everyone if groups[row.row] in groups[:held]}
    assert not {row.person for row in kept} & reached
    if held == 0:
        assert set(kept_groups) == set(groups)


def test_counts_add_up(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [ecg(at, content=at % 7) for at in range(20)])
    facts = materialize_corpus(workspace, CorpusConfig()).facts
    assert facts["considered"] == 20 == facts["train"] + facts["validation"] + sum(facts["excluded"].values())
    assert facts["patients"] == 7


def test_sources_can_be_chosen(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [ecg(1), ecg(2)])
    shard(workspace, "code15/0", [ecg(3), ecg(4)])
    product = materialize_corpus(workspace, CorpusConfig(sources=("code15",)))
    assert {row["source"] for row in index(product)} == {"code15"}
    with pytest.raises(ValueError, match=r"no harmonized pretraining shard of ningbo .* harmonize a partition first"):
        materialize_corpus(workspace, CorpusConfig(sources=("ningbo",)))


def test_the_same_shards_give_the_same_corpus_and_other_shards_another(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name)
        shard(workspace, "chapman/01", [ecg(at) for at in range(25)])
        product = materialize_corpus(workspace, CorpusConfig())
        digests.append((product.digest, product.facts["digest"]))
        assert materialize_corpus(workspace, CorpusConfig()).cached
    assert digests[0] == digests[1]
    shard(workspace, "ptbxl/00", [ecg(500)], role="evaluation")
    unaffected = materialize_corpus(workspace, CorpusConfig())
    assert (unaffected.cached, unaffected.digest) == (False, digests[0][0])
    shard(workspace, "chapman/02", [ecg(at) for at in range(25, 30)])
    assert materialize_corpus(workspace, CorpusConfig()).facts["digest"] != digests[0][1]
    assert materialize_corpus(workspace, CorpusConfig(seed=1)).facts["digest"] != digests[0][1]


def rows(count: int, per_patient: int = 1, offset: int = 0) -> list[Candidate]:
    return [
        Candidate("s/1", at, "s", f"r{at}", None if per_patient == 1 else f"p{at // per_patient}", str(at))
        for at in range(offset, offset + count)
    ]


@given(count=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_both_splits_are_filled_and_no_patient_is_in_both(count: int, share: float, seed: int) -> None:
    config = CorpusConfig(validation_share=share, seed=seed)
    for per_patient in (1, 3):
        members = rows(count, per_patient)
        persons = {member.person for member in members}
        if len(persons) < 2:
            continue
        splits = split_by_patient(members, config)
        sides = {name: {m.person for m, s in zip(members, splits, strict=True) if s == name} for name in set(splits)}
        assert set(sides) == {"train", "validation"}
        assert not sides["train"] & sides["validation"]


@given(before=st.integers(150, 400), added=st.integers(1, 400), seed=st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_added_records_move_nobody(before: int, added: int, seed: int) -> None:
    config = CorpusConfig(seed=seed, validation_share=0.1)
    old = split_by_patient(rows(before), config)
    both = split_by_patient([*rows(added, offset=before), *rows(before)], config)
    assert both[added:] == old


@given(count=st.integers(5, 200), seed=st.integers(0, 100), per_patient=st.integers(2, 4))
@settings(deadline=None, max_examples=60)
def test_a_small_corpus_validates_on_enough_ecgs_or_nearly_a_fifth(count: int, seed: int, per_patient: int) -> None:
    for each in (1, per_patient):
        validating = split_by_patient(rows(count, each), CorpusConfig(seed=seed)).count("validation")
        assert validating >= min(LEAST_VALIDATION, count // 5) - each + 1


def test_evaluation_data_alone_is_told_with_the_way_to_pretrain_on_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "georgia/g1", [ecg(1)], role="evaluation")
    with pytest.raises(ValueError, match=r"those of georgia are for evaluation: .* or own ECGs$"):
        materialize_corpus(workspace, CorpusConfig())
    harmonized(workspace, {"ptbxl/00000": "a"})
    with pytest.raises(ValueError, match=r"those of georgia, ptbxl are for evaluation: .* or set unlabelled_folds"):
        materialize_corpus(workspace, CorpusConfig())
    with pytest.raises(ValueError, match=r"shard of chapman in .*: harmonize a partition first$"):
        materialize_corpus(workspace, CorpusConfig(sources=("chapman",)))


def test_the_validation_share_is_kept(tmp_path: Path) -> None:
    splits = split_by_patient(rows(20000), CorpusConfig(validation_share=0.05))
    assert splits.count("validation") / 20000 == pytest.approx(0.05, abs=0.005)


def test_a_corpus_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ValueError, match="no harmonized pretraining shard of any source"):
        materialize_corpus(workspace, CorpusConfig())
    shard(workspace, "clinic/a", [ecg(1, patient="x"), ecg(2, patient="x")])
    with pytest.raises(ValueError, match="2 records of 1 patients: harmonize more"):
        materialize_corpus(workspace, CorpusConfig())
    assert workspace.current("corpus") is None


def test_a_shard_that_has_gone_and_an_unknown_split_are_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    gone = shard(workspace, "chapman/01", [ecg(1), ecg(2), ecg(3)])
    product = materialize_corpus(workspace, CorpusConfig())
    with pytest.raises(ValueError, match=r"split 'test' .* has no records"):
        load_signals(tmp_path, product.path, "test")  # pyright: ignore[reportArgumentType]
    gone.path.rename(gone.path.with_name("elsewhere"))
    with pytest.raises(ValueError, match="harmonize the partition first"):
        load_signals(tmp_path, product.path, "train")


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_leaves_a_split_empty_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="validation_share"):
        CorpusConfig(validation_share=share)


def test_no_sources_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one source"):
        CorpusConfig(sources=())


def test_a_shard_that_was_made_again_elsewhere_is_found_by_the_next_corpus(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    records = [ecg(at) for at in range(30)]
    first = shard(workspace, "clinic/a", records)
    materialize_corpus(workspace, CorpusConfig())

    def again(folder: Path) -> dict[str, object]:
        shutil.copytree(first.path, folder, dirs_exist_ok=True)
        (folder / "done.json").unlink()
        return first.facts

    second = workspace.build("ecgs/clinic/a", version="another", config={}, inputs={}, make=again)
    assert second.digest == first.digest
    shutil.rmtree(first.path)
    found = materialize_corpus(workspace, CorpusConfig())
    assert len(load_signals(workspace.root, found.path, "train")) + len(
        load_signals(workspace.root, found.path, "validation")
    ) == len(records)


def test_unlabelled_folds_of_evaluation_sources_are_trained_on_and_the_others_held_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folds = [replace(ecg(at, patient=f"p{at // 2}"), fold=1 + at // 4) for at in range(12)]
    other_rate = [copy_of(smooth(at), f"c{at}", patient=f"q{at}") for at in (50, 51)]
    shard(workspace, "ptbxl100/00", [*folds, replace(smooth(50), fold=3)], role="evaluation")
    shard(workspace, "ptbxl/00", [replace(record, fold=3) for record in other_rate], role="evaluation")
    shard(workspace, "chapman/01", [ecg(100), ecg(101), ecg(102, content=9), smooth(51)])
    ours = CorpusConfig(sources=("ptbxl100",), unlabelled_folds=(1, 2))
    product = materialize_corpus(workspace, ours)
    assert [row["record_id"] for row in index(product)] == [f"r{at}" for at in range(8)]
    assert product.facts["by_source"] == {"ptbxl100": 8}
    assert corpus_is_apart(workspace, product).holds
    signals = [load_signals(tmp_path, product.path, split) for split in ("train", "validation")]
    assert sum(map(len, signals)) == 8

    all_sources = materialize_corpus(workspace, CorpusConfig(unlabelled_folds=(1, 2)))
    assert all_sources.facts["by_source"] == {"chapman": 2, "ptbxl100": 8}
    assert sorted(exclusions(all_sources).values()) == ["copy of an evaluation record", "evaluation record"]
    assert corpus_is_apart(workspace, all_sources).holds
    assert materialize_corpus(workspace, CorpusConfig()).facts["by_source"] == {"chapman": 2}
    with pytest.raises(ValueError, match=r"unlabelled_folds \(1, 10\): use folds of 1 to 8; 9 and 10 are scored on"):
        CorpusConfig(unlabelled_folds=(1, 10))
    with pytest.raises(ValueError, match="no harmonized pretraining shard of ptbxl100"):
        materialize_corpus(workspace, CorpusConfig(sources=("ptbxl100",)))
