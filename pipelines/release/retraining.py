"""What is trained where nobody says otherwise, and whether to train again.

The recipe and the corpus' settings are the champion's, by a click, by the automation and by the schedule alike;
ECG_RETRAIN_RECIPE names another recipe, ECG_RETRAIN_START whether weights start from the champion's. A champion of
recorded ECGs says nothing of what is trained on simulated ones, nor the other way round.

A training is due where no version of the registered model that the gate has judged was made of this corpus by this
recipe. So a challenger that lost is not trained a second time to lose again. Where the weights start from is no part
of the question: warm or from scratch, the same corpus and recipe were tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import CorpusFacts, built_corpus, config_from, settings_of, shard_digests
from pipelines.encoders.names import OURS
from pipelines.hashing import digest_of
from pipelines.pretrain.recipes import RECIPES, Recipe, differences, recipe_named

if TYPE_CHECKING:
    from pipelines.tracking import Tracking
from pipelines.release.tags import CORPUS_SETTINGS, ECGS, kind_of

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
        if self.recipe:
            recipe_named(self.recipe, self.changes)  # refuses a recipe or a field that there is not

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
class Training:
    """recipe: without what the weights start from. warm_start: a registered encoder, or empty for random weights.
    done: the encoder that there is of this training, made the current one; None where it is to be trained."""

    recipe: Recipe
    warm_start: str
    done: Product | None = None


def requested_training(
    workspace: Workspace,
    tracking: Tracking,
    *,
    simulated: bool,
    recipe: str,
    changes: Mapping[str, Any],
    warm_start: str,
) -> Training:
    """What the settings of `encoder` ask for. Without a recipe's name it is the standing recipe, started as
    ECG_RETRAIN_START has it, and not trained where an encoder of the current corpus' ECGs by that recipe is there,
    whatever it was started from: the champion as a start would make it another training at every move of the alias.
    simulated: whether the workspace's ECGs are.

    Raises ValueError for a recipe or a field that there is not, and where the champion's recipe is none of ours.
    """
    if recipe:
        return Training(recipe=recipe_named(recipe, changes), warm_start=warm_start)
    config, champion = RetrainingConfig.from_environment(), _champion(tracking, simulated)
    standing = _default_recipe(workspace, champion, config)
    wanted = recipe_named(standing.name, {**_changes(standing), **changes})
    if warm_start:
        return Training(recipe=wanted, warm_start=warm_start)
    done = _trained_alike(workspace, wanted)
    if done is not None:
        return Training(recipe=wanted, warm_start="", done=workspace.make_current(done))
    return Training(recipe=wanted, warm_start=_start(champion, config))


def requested_corpus(
    workspace: Workspace, tracking: Tracking, given: Mapping[str, Any], *, simulated: bool
) -> CorpusConfig:
    """What the settings of `corpus` ask for: the fields that are given, the others as the champion's corpus has them,
    without a champion as the last encoder's has, or as usual."""
    return config_from({**asdict(_default_corpus(workspace, _champion(tracking, simulated))), **given})


def corpus_settings(workspace: Workspace, encoder: Product) -> dict[str, str]:
    """The tag that says how the corpus of this encoder was built; none where it is not known any more."""
    settings = settings_of(workspace, encoder.inputs.get("corpus", ""))
    return {} if settings is None else {CORPUS_SETTINGS: json.dumps(asdict(settings), sort_keys=True)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that is due, by no settings at all. why: in words. key: the same for the same training."""

    why: str
    key: str


@dataclass(frozen=True)
class NotDue:
    """No training is due; why not, in words."""

    why: str


def plan(workspace: Workspace, tracking: Tracking, config: RetrainingConfig, *, simulated: bool) -> Plan | NotDue:
    """The training that is due, or why there is none. Looks at the registry and at what is built; builds nothing.

    The corpus of now has the settings of the champion's. Where it is not built, it is due, and a training with it,
    which is found to be done where the corpus comes out as another that was trained on. Raises ValueError for a recipe
    that there is not.
    """
    trained = _trained(tracking, simulated)
    champion = next((one for one in trained if one.is_champion), None)
    if champion is None:
        kind = kind_of(simulated=simulated)
        return NotDue(f"there is no champion of {kind} ECGs yet: train and release a first encoder by hand")
    settings = _default_corpus(workspace, champion)
    shards = shard_digests(workspace, settings)
    if not shards:
        return NotDue(f"no harmonized ECGs in {workspace.root}: materialize ecgs/<source> first")
    recipe = _default_recipe(workspace, champion, config)
    start = {"recipe": recipe.to_dict(), "warm_start": _start(champion, config)}
    corpus = built_corpus(workspace, settings)
    if corpus is None:
        changed = "changed since the corpus was built" if workspace.current("corpus") else "have no corpus yet"
        key = digest_of({"data": shards, "settings": asdict(settings), **start})[:24]
        return Plan(why=f"the harmonized ECGs {changed} ({len(shards)} shards)", key=key)
    digest = CorpusFacts.of(corpus).digest
    for one in trained:
        if one.verdict is not None and (one.corpus_digest, one.recipe) == (digest, recipe):
            same = f"corpus {digest[:12]} and recipe {recipe.digest[:12]}"
            return NotDue(f"{same} are those of version {one.version}: {one.verdict}")
    changes = [] if champion.corpus_digest == digest else [f"corpus {champion.corpus_digest[:12]} -> {digest[:12]}"]
    if champion.recipe != recipe:
        theirs = champion.recipe
        changes += ["another recipe"] if theirs is None else differences(theirs.to_dict(), recipe.to_dict())
    why = f"changed since version {champion.version}, the champion: {'; '.join(changes)}"
    return Plan(why=why, key=digest_of({"data": digest, **start})[:24])


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A registered version. corpus: the settings of its corpus; None where they were not kept. recipe: without what it
    was started from; None where it is none of ours."""

    version: int
    is_champion: bool
    corpus_digest: str
    corpus: CorpusConfig | None
    verdict: str | None
    recipe: Recipe | None


def _champion(tracking: Tracking, simulated: bool) -> _Trained | None:
    return next(iter(_trained(tracking, simulated, champion_alone=True)), None)


def _trained(tracking: Tracking, simulated: bool, *, champion_alone: bool = False) -> list[_Trained]:
    """The versions of our model that were trained on ECGs of this kind, the newest first."""
    client = tracking.client()
    found = client.search_registered_models(filter_string=f"name = '{OURS.model}'")
    if not found:
        return []
    champion, kind = str(found[0].aliases.get(CHAMPION)), kind_of(simulated=simulated)
    return sorted(
        (
            _Trained(
                version=int(one.version),
                is_champion=str(one.version) == champion,
                corpus_digest=one.tags.get("corpus_digest", "unknown"),
                corpus=config_from(json.loads(one.tags[CORPUS_SETTINGS])) if CORPUS_SETTINGS in one.tags else None,
                verdict=one.tags.get("verdict"),
                recipe=_recipe_of(client.get_run(one.run_id).data.params) if one.run_id else None,
            )
            for one in client.search_model_versions(f"name = '{OURS.model}'")
            if one.tags.get(ECGS, kind) == kind and (not champion_alone or str(one.version) == champion)
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


def _default_recipe(workspace: Workspace, champion: _Trained | None, config: RetrainingConfig) -> Recipe:
    """The recipe of no name: that of `config`, or the champion's; before there is one, of what was trained last, and
    `demo` before all else."""
    if config.recipe:
        return recipe_named(config.recipe, config.changes)
    if champion is not None and champion.recipe is None:
        raise ValueError(
            f"version {champion.version}, the champion, was trained by a recipe that is not among "
            f"{', '.join(RECIPES)}: set ECG_RETRAIN_RECIPE"
        )
    if champion is not None and champion.recipe is not None:
        return champion.recipe
    encoder = workspace.current(OURS.product)
    last = None if encoder is None else _recipe_of(_leaves(encoder.config))
    return last or recipe_named("demo")


def _default_corpus(workspace: Workspace, champion: _Trained | None) -> CorpusConfig:
    """The settings of the champion's corpus; before there is one, of what was trained on last. Versions that were
    registered before these were kept name its digest."""
    if champion is None:
        encoder = workspace.current(OURS.product)
        last = None if encoder is None else settings_of(workspace, encoder.inputs.get("corpus", ""))
        return last or CorpusConfig()
    return champion.corpus or settings_of(workspace, champion.corpus_digest) or CorpusConfig()


def _start(champion: _Trained | None, config: RetrainingConfig) -> str:
    return f"models:/{OURS.model}/{champion.version}" if champion and config.start == CHAMPION else ""


def _trained_alike(workspace: Workspace, recipe: Recipe) -> Product | None:
    """An encoder that is there of the current corpus' ECGs by this recipe, the current one first."""
    digest = CorpusFacts.of(workspace.require("corpus")).digest
    wanted = (versions.ENCODER, digest, recipe.to_dict())
    for one in workspace.finished(OURS.product):
        if (one.version, one.facts.get("corpus_digest"), {**one.config, "warm_start": None}) == wanted:
            return one
    return None


def _changes(recipe: Recipe) -> dict[str, Any]:
    """How it differs from the recipe of its name, as `recipe_named` takes it."""
    usual = _leaves(RECIPES[recipe.name]().to_dict())
    return {path: value for path, value in _leaves(recipe.to_dict()).items() if value != usual[path]}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted paths, as `recipe_named` takes them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
