"""Facts come back as they were written, also those of earlier versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cache import Workspace
from pipelines.facts import Facts, written_if_set


@dataclass(frozen=True, kw_only=True)
class Estimate:
    value: float
    low: float


@dataclass(frozen=True, kw_only=True)
class Scored(Facts):
    scored: bool
    auc: Estimate | None = written_if_set()
    trials: tuple[Estimate, ...] = ()
    by_label: dict[str, Estimate] | None = written_if_set()
    counts: dict[str, int]


@pytest.mark.parametrize("auc", [None, Estimate(value=0.8, low=0.7)])
def test_facts_of_a_product_come_back(tmp_path: Path, auc: Estimate | None) -> None:
    facts = Scored(
        scored=auc is not None,
        auc=auc,
        trials=(Estimate(value=1, low=0),),
        by_label=None if auc is None else {"NORM": auc},
        counts={"train": 3},
    )
    workspace = Workspace(tmp_path)
    workspace.build("probe/x", version="1", config={}, inputs={}, make=lambda folder: facts.to_dict())
    product = workspace.require("probe/x")
    assert Scored.of(product) == facts
    assert ("auc" in product.facts) == (auc is not None), "what is None is not written"


def test_facts_of_earlier_versions_take_the_defaults_and_further_keys_are_ignored() -> None:
    facts = Scored.from_dict({"scored": True, "counts": {}, "later": 1})
    assert facts == Scored(scored=True, counts={})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(KeyError, match="Scored without counts"):
        Scored.from_dict({"scored": True})


def test_a_product_that_lacks_a_fact_is_named_with_the_remedy(tmp_path: Path) -> None:
    product = Workspace(tmp_path).build("probe/x", version="1", config={}, inputs={}, make=lambda folder: {"auc": None})
    with pytest.raises(ValueError, match=r"probe/x: its done.json has Scored without scored, counts: remove .* again"):
        Scored.of(product)
