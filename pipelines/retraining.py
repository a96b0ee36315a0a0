"""Whether to train again: what was trained and judged before, against the corpus and the recipe of now.

A training is due where no version of the registered model that the gate has judged was made of this corpus by this
recipe. So a challenger that lost is not trained a second time to lose again. Where the weights start from is no part
of the question: warm or from scratch, the same corpus and recipe were tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipelines import versions
from pipelines.evaluate.subject import OURS
from pipelines.pretrain.recipes import RECIPES, Recipe, differences, recipe_named
from pipelines.sources.base import Role
from pipelines.stage import DONE, Product, Workspace, digest_of

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

CHAMPION = "champion"

Start = Literal["scratch", "champion"]


@dataclass(frozen=True, kw_only=True)
class RetrainingConfig:
    """recipe: its name; empty: the champion's own recipe. changes: of its fields, as `recipe_named` takes them.
    start: from random weights, or from the champion's."""

    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    start: Start = "scratch"

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"start={self.start!r}: use {' or '.join(get_args(Start))}")
        if self.changes and not self.recipe:
            raise ValueError(f"changes={dict(self.changes)}: name the recipe that they are of")

    @classmethod
    def from_environment(cls) -> RetrainingConfig:
        """ECG_RETRAIN_RECIPE, ECG_RETRAIN_CHANGES (a JSON object) and ECG_RETRAIN_START; ValueError naming what is
        wrong."""
        text = os.environ.get("ECG_RETRAIN_CHANGES") or "{}"
        try:
            changes = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f'ECG_RETRAIN_CHANGES={text!r}: use a JSON object such as {{"epochs": 3}}') from error
        if not isinstance(changes, dict):
            raise ValueError(f'ECG_RETRAIN_CHANGES={text!r}: use a JSON object such as {{"epochs": 3}}')
        return cls(
            recipe=os.environ.get("ECG_RETRAIN_RECIPE") or "",
            changes=changes,
            start=os.environ.get("ECG_RETRAIN_START") or "scratch",  # pyright: ignore[reportArgumentType]  # checked
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that is due. why: in words. key: the same for the same training.

    recipe, changes, warm_start: as the asset `encoder` takes them. corpus: the settings of the corpus, as it was built
    last, or nothing for the usual ones.
    """

    why: str
    key: str
    recipe: str
    changes: Mapping[str, Any]
    warm_start: str
    corpus: Mapping[str, Any]


@dataclass(frozen=True)
class NotDue:
    """No training is due; why not, in words."""

    why: str


def plan(workspace: Workspace, tracking: Tracking, config: RetrainingConfig) -> Plan | NotDue:
    """The training that is due, or why there is none. Looks at the registry and at what is built; builds nothing.

    The corpus of now is the one that is built, where the harmonized shards are still those that it was built of;
    where they are not, a new one is due and a training with it. Raises ValueError for a recipe that there is not.
    """
    trained = _trained(tracking)
    champion = next((one for one in trained if one.is_champion), None)
    if champion is None:
        return NotDue("there is no champion yet: train and release a first encoder by hand")
    shards = _shards(workspace)
    if not shards:
        return NotDue(f"no harmonized ECGs in {workspace.root}: materialize ecgs/<source> first")
    if config.recipe:
        recipe = recipe_named(config.recipe, config.changes)
    elif champion.recipe is not None:
        recipe = champion.recipe
    else:
        raise ValueError(
            f"version {champion.version}, the champion, was trained by a recipe that is not among "
            f"{', '.join(RECIPES)}: set ECG_RETRAIN_RECIPE"
        )
    corpus = workspace.current("corpus")
    if corpus is None or not _is_of(corpus, shards):
        why = "the harmonized ECGs changed since the corpus was built" if corpus else "no corpus is built"
        data = digest_of({name: shard.digest for name, shard in shards.items()})
        return _planned(f"{why} ({len(shards)} shards)", data, recipe, corpus, champion, config)
    digest = corpus.facts["digest"]
    for one in trained:
        if one.verdict is not None and (one.corpus_digest, one.recipe) == (digest, recipe):
            same = f"corpus {digest[:12]} and recipe {recipe.digest[:12]}"
            return NotDue(f"{same} are those of version {one.version}: {one.verdict}")
    changes = [] if champion.corpus_digest == digest else [f"corpus {champion.corpus_digest[:12]} -> {digest[:12]}"]
    if champion.recipe != recipe:
        theirs = champion.recipe
        changes += ["another recipe"] if theirs is None else differences(theirs.to_dict(), recipe.to_dict())
    why = f"changed since version {champion.version}, the champion: {'; '.join(changes)}"
    return _planned(why, digest, recipe, corpus, champion, config)


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A registered version. recipe: without what it was started from; None where it is none of ours."""

    version: int
    is_champion: bool
    corpus_digest: str
    verdict: str | None
    recipe: Recipe | None


def _trained(tracking: Tracking) -> list[_Trained]:
    """The versions of our model, the newest first."""
    client = tracking.client()
    found = client.search_registered_models(filter_string=f"name = '{OURS.model}'")
    if not found:
        return []
    champion = str(found[0].aliases.get(CHAMPION))
    return sorted(
        (
            _Trained(
                version=int(one.version),
                is_champion=str(one.version) == champion,
                corpus_digest=one.tags.get("corpus_digest", "unknown"),
                verdict=one.tags.get("verdict"),
                recipe=_recipe_of(client.get_run(one.run_id).data.params) if one.run_id else None,
            )
            for one in client.search_model_versions(f"name = '{OURS.model}'")
        ),
        key=lambda one: -one.version,
    )


def _recipe_of(params: Mapping[str, str]) -> Recipe | None:
    """The recipe that a run's parameters describe. A field that recipes have gained since is as it is by default."""
    name = params.get("name", "")
    if name not in RECIPES:
        return None
    fields = (_leaves(RECIPES[name]().to_dict()).keys() & params.keys()) - {"warm_start"}
    return recipe_named(name, {path: params[path] for path in fields})


def _planned(
    why: str, data: str, recipe: Recipe, corpus: Product | None, champion: _Trained, config: RetrainingConfig
) -> Plan:
    warm = f"models:/{OURS.model}/{champion.version}" if config.start == CHAMPION else ""
    usual = _leaves(RECIPES[recipe.name]().to_dict())
    return Plan(
        why=why,
        key=digest_of({"data": data, "recipe": recipe.to_dict(), "warm_start": warm})[:24],
        recipe=recipe.name,
        changes={path: value for path, value in _leaves(recipe.to_dict()).items() if value != usual[path]},
        warm_start=warm,
        corpus={} if corpus is None else _done(corpus)["config"],
    )


def _shards(workspace: Workspace) -> dict[str, Product]:
    """All harmonized shards, by product."""
    names = sorted(p.parent.relative_to(workspace.root).as_posix() for p in workspace.root.glob("ecgs/*/*/current"))
    products = {name: workspace.current(name) for name in names}
    return {name: product for name, product in products.items() if product is not None}


def _is_of(corpus: Product, shards: Mapping[str, Product]) -> bool:
    """Whether the corpus was built of these shards, less those that it was told to leave out, by the step as it is."""
    done = _done(corpus)
    sources = done["config"]["sources"]
    wanted = {
        name: shard.digest
        for name, shard in shards.items()
        if sources is None or shard.facts["role"] == Role.EVALUATION or name.split("/")[1] in sources
    }
    return done["version"] == versions.CORPUS and done["inputs"] == wanted


def _done(product: Product) -> dict[str, Any]:
    return json.loads((product.path / DONE).read_text())


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted paths, as `recipe_named` takes them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
