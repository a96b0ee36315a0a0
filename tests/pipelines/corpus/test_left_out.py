"""Records that are left out: each with its step, reason and detail, and a sample that has some of each reason."""

from __future__ import annotations

from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.left_out import LeftOut, Step, left_out, some_of_each_reason
from pipelines.corpus.step import materialize_corpus
from pipelines.records import DroppedRecord, DropReason
from tests.support.shards import record, shard


def test_each_record_that_a_step_left_out_is_there_with_its_detail(workspace: Workspace) -> None:
    lost = DroppedRecord("r9", DropReason.TOO_SHORT, "4000 samples, 5000 are needed")
    kept = [record(f"r{at}", seed=at, patient=f"p{at}") for at in range(8)]
    shard(workspace, "own", "pretraining", [*kept, record("again", seed=0, patient="p0"), lost])
    shard(workspace, "other", "evaluation", [record("x", seed=99), DroppedRecord("y", DropReason.FLAT_LEAD, "V1")])
    (dropped,) = left_out(workspace, "own")
    assert dropped == LeftOut(
        source="own",
        partition="a",
        record_id="r9",
        step=Step.HARMONIZE,
        reason="too short",
        detail="4000 samples, 5000 are needed",
    )
    materialize_corpus(workspace, CorpusConfig())
    found = [(one.source, one.record_id, one.step, one.reason) for one in left_out(workspace)]
    assert found == [
        ("other", "y", "harmonize", "flat lead"),
        ("own", "r9", "harmonize", "too short"),
        ("own", "again", "corpus", "duplicate"),
    ]
    *_, copy = left_out(workspace, "own")
    assert copy.detail == "the same signal as r0 of own/a"


def test_a_sample_has_some_of_each_reason_in_order() -> None:
    reasons = ["short"] * 40 + ["flat"] + ["short"] * 40 + ["gone"] * 3
    records = [
        LeftOut(source="s", partition="p", record_id=str(at), step=Step.HARMONIZE, reason=reason, detail="")
        for at, reason in enumerate(reasons)
    ]
    assert [one.record_id for one in some_of_each_reason(records, 5)] == ["0", "1", "40", "81", "82"]
    assert some_of_each_reason(records, 100) == records
    assert some_of_each_reason([], 5) == []
