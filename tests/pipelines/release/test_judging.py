"""What decides on a release before scores do: simulated ECGs, also those of the encoder that a classifier reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.finding import Finding
from pipelines.release.aliases import promote
from pipelines.release.gate import GateConfig
from pipelines.release.judging import Judged, judge_release
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.release.tags import ECGS, PRETRAINED_ECGS, kind_of
from pipelines.tracking import Tracking
from tests.support.releases import judged, scored

pytestmark = pytest.mark.usefixtures("nothing_is_left_outside_the_store")

RECORDED, SIMULATED = kind_of(simulated=False), kind_of(simulated=True)


def released(store: Tracking, name: str, encoder: Path, score: Scores, *, reads: str | None) -> Release:
    """A classifier of recorded ECGs. reads: what its encoder was pretrained on, if that is known."""
    known = {} if reads is None else {PRETRAINED_ECGS: reads}
    return release_packaged(
        packaged_encoder(encoder),
        score,
        provenance={ECGS: RECORDED, **known},
        recipe={},
        git_commit="g",
        tracking=store,
        registered_name=name,
    )


@pytest.mark.parametrize(
    ("champion", "challenger", "says"),
    [
        (SIMULATED, RECORDED, "was trained on simulated ECGs, and this on recorded ones"),
        (RECORDED, SIMULATED, "simulated ECGs never take the place of recorded ones"),
        (None, RECORDED, "asked"),
    ],
    ids=["replaced", "kept", "compared"],
)
def test_a_classifier_on_a_simulated_encoder_counts_as_simulated(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, champion, challenger, says
) -> None:
    monkeypatch.setattr("pipelines.release.judging.serves", lambda *_, **__: Finding.passed("taken as served"))
    promote(judged(store, released(store, name, encoders[0], scored(0.9), reads=champion)), tracking=store)

    def contest(_: Release) -> Any:
        raise LookupError("asked")

    def judge(**more: Any) -> Judged:
        release = released(store, name, encoders[1], scored(0.8), reads=challenger)
        packaged, training = packaged_encoder(encoders[1]), Finding.passed("it went well")
        return judge_release(release, packaged, store, GateConfig(), training=training, contest=contest, **more)

    if says == "asked":
        with pytest.raises(LookupError, match="asked"):
            judge()
        return
    verdict = judge().verdict
    assert says in verdict.reason
    assert verdict.promote is (champion == SIMULATED)
    more = judge(more={"of_its_own": Finding.failed("it is not")}).verdict
    assert not more.promote
    assert "of_its_own: it is not" in more.reason
