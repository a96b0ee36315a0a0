"""The default training, which is the champion's, and whether a new training is due.

The default recipe and corpus settings are the champion's, whether a click, the automation or the schedule starts the
training. ECG_RETRAIN_RECIPE names another recipe; ECG_RETRAIN_START says whether weights start from the champion's. For
recorded ECGs only a champion of recorded ECGs counts, for simulated ECGs only one of simulated ECGs.

A training is due if no version that the gate has judged was trained on this corpus with this recipe. So a challenger
that lost is not trained a second time to lose again. The start of the weights does not count: warm or from scratch, the
same corpus and recipe were tried.
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
from pipelines.device import torch_device
from pipelines.encoders.names import OURS
from pipelines.hashing import digest_of
from pipelines.pretrain.recipes import RECIPES, Recipe, changed, differences, recipe_named
from pipelines.pretrain.step import EncoderFacts
from pipelines.release.tags import CHAMPION, CORPUS_SETTINGS, ECGS, kind_of
from pipelines.release.version_recipe import UnreadableRecipe, read_recipe, recipe_of

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

Start = Literal["scratch", "champion"]


@dataclass(frozen=True, kw_only=True)
class RetrainingConfig:
    """What the environment says about the default training."""

    recipe: str = ""
    """A recipe's name; empty: the champion's own recipe."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changed fields of the named recipe, as `recipe_named` takes them."""
    start: Start = "scratch"
    """Random weights, or the champion's."""

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"start={self.start!r}: use {' or '.join(get_args(Start))}")
        if self.changes and not self.recipe:
            raise ValueError(f"changes={dict(self.changes)}: name the recipe that they change")
        if self.recipe:
            recipe_named(self.recipe, self.changes)  # refuses an unknown recipe or field

    @classmethod
    def from_environment(cls) -> RetrainingConfig:
        """Read ECG_RETRAIN_RECIPE, ECG_RETRAIN_CHANGES (a JSON object) and ECG_RETRAIN_START.

        Raises ValueError naming the wrong one.
        """
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
    """A training that was asked for."""

    recipe: Recipe
    """Without its warm start."""
    warm_start: str
    """The registered encoder that weights start from; empty: random weights."""
    done: Product | None = None
    """The existing encoder of this training, made the current one; None: it has to be trained."""


def requested_training(
    workspace: Workspace,
    tracking: Tracking,
    *,
    simulated: bool,
    recipe: str,
    changes: Mapping[str, Any],
    warm_start: str,
) -> Training:
    """Return the training that the settings of the asset `encoder` ask for.

    Without a recipe's name it is the default recipe, started as ECG_RETRAIN_START says. It is not trained again if an
    encoder of the current corpus' ECGs with that recipe exists, whatever that was started from: with the champion as
    the start it would be another training at every move of the alias.

    simulated: whether the workspace's ECGs are simulated
    recipe, changes: a recipe's name, or empty, and changed fields
    warm_start: a registered encoder, or empty

    Raises ValueError for an unknown recipe or field, and if the champion's recipe cannot be repeated.
    """
    if recipe:
        return Training(recipe=recipe_named(recipe, changes), warm_start=warm_start)
    config, champion = RetrainingConfig.from_environment(), _champion(tracking, simulated)
    wanted = changed(_default_recipe(workspace, champion, config), changes)
    if warm_start:
        return Training(recipe=wanted, warm_start=warm_start)
    done = _trained_alike(workspace, wanted)
    if done is not None:
        return Training(recipe=wanted, warm_start="", done=workspace.make_current(done))
    return Training(recipe=wanted, warm_start=_start(champion, config))


def refuse_training(
    workspace: Workspace,
    tracking: Tracking,
    *,
    simulated: bool,
    recipe: str,
    changes: Mapping[str, Any],
    warm_start: str,
    device: str,
    processes: int,
    accumulate: int,
) -> None:
    """Raise ValueError if the training that these settings ask for would be refused, before its corpus is built.

    The settings are those of `requested_training` and `materialize_encoder`.
    """
    from pipelines.release.registry import version_named

    if recipe:
        wanted = recipe_named(recipe, changes)
    else:
        config = RetrainingConfig.from_environment()
        wanted = changed(_default_recipe(workspace, _champion(tracking, simulated), config), changes)
    wanted.require_even_shares(processes=processes, accumulate=accumulate)
    if warm_start:
        version_named(warm_start, tracking=tracking)
    if device.startswith("cuda"):
        torch_device(device)


def requested_corpus(
    workspace: Workspace, tracking: Tracking, given: Mapping[str, Any], *, simulated: bool, from_champion: bool = True
) -> CorpusConfig:
    """Return the settings of the corpus that is asked for.

    Fields that are not given are the champion's, without a champion the last encoder's, or else the defaults; if not
    `from_champion`, they are the defaults.
    """
    base = _default_corpus(workspace, _champion(tracking, simulated)) if from_champion else CorpusConfig()
    return config_from({**asdict(base), **given})


def corpus_settings(workspace: Workspace, encoder: Product) -> dict[str, str]:
    """Return the tag that says how the corpus of this encoder was built, or no tag if that is not known any more."""
    settings = settings_of(workspace, encoder.inputs.get("corpus", ""))
    return {} if settings is None else {CORPUS_SETTINGS: json.dumps(asdict(settings), sort_keys=True)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that is due, with default settings."""

    why: str
    key: str
    """The same for the same training."""


@dataclass(frozen=True)
class NotDue:
    """No training is due, and why not."""

    why: str


def plan(workspace: Workspace, tracking: Tracking, config: RetrainingConfig, *, simulated: bool) -> Plan | NotDue:
    """Return the training that is due, or why there is none. Reads the registry and the workspace; builds nothing.

    The corpus has the champion's settings. If it is not built, it is due, and a training with it; that training is
    skipped if the corpus turns out equal to one that was trained on. Raises ValueError if the recipe cannot be used.
    """
    trained = _trained(tracking, simulated)
    champion = next((version for version in trained if version.is_champion), None)
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
    for version in trained:
        if version.verdict is not None and (version.corpus_digest, version.recipe) == (digest, recipe):
            same = f"corpus {digest[:12]} and recipe {recipe.digest[:12]}"
            return NotDue(f"{same} are those of version {version.version}: {version.verdict}")
    changes = [] if champion.corpus_digest == digest else [f"corpus {champion.corpus_digest[:12]} -> {digest[:12]}"]
    if champion.recipe != recipe:
        before = champion.recipe
        changes += differences(before.to_dict(), recipe.to_dict()) if isinstance(before, Recipe) else ["another recipe"]
    why = f"changed since version {champion.version}, the champion: {'; '.join(changes)}"
    return Plan(why=why, key=digest_of({"data": digest, **start})[:24])


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What a registered version was trained on, and with."""

    version: int
    is_champion: bool
    corpus_digest: str
    corpus: CorpusConfig | None
    """The settings of its corpus; None: they were not stored."""
    verdict: str | None
    recipe: Recipe | UnreadableRecipe | None
    """Without its warm start; None: none of ours."""


def _champion(tracking: Tracking, simulated: bool) -> _Trained | None:
    return next(iter(_trained(tracking, simulated, champion_alone=True)), None)


def _trained(tracking: Tracking, simulated: bool, *, champion_alone: bool = False) -> list[_Trained]:
    """Return the versions of our model that were trained on ECGs of this kind, the newest first."""
    client = tracking.client()
    models = client.search_registered_models(filter_string=f"name = '{OURS.model}'")
    if not models:
        return []
    champion, kind = str(models[0].aliases.get(CHAMPION)), kind_of(simulated=simulated)
    versions_of_kind = (
        version
        for version in client.search_model_versions(f"name = '{OURS.model}'")
        if version.tags.get(ECGS, kind) == kind and (not champion_alone or str(version.version) == champion)
    )
    trained = [
        _Trained(
            version=int(version.version),
            is_champion=str(version.version) == champion,
            corpus_digest=version.tags.get("corpus_digest", "unknown"),
            corpus=config_from(json.loads(version.tags[CORPUS_SETTINGS])) if CORPUS_SETTINGS in version.tags else None,
            verdict=version.tags.get("verdict"),
            recipe=recipe_of(version, client),
        )
        for version in versions_of_kind
    ]
    return sorted(trained, key=lambda version: -version.version)


def _default_recipe(workspace: Workspace, champion: _Trained | None, config: RetrainingConfig) -> Recipe:
    """Return the recipe that is trained if none is named.

    It is that of `config`, or the champion's; without a champion that of the last training, or else `demo`. Raises
    ValueError if the champion's or the last training's recipe cannot be repeated.
    """
    if config.recipe:
        return recipe_named(config.recipe, config.changes)
    if champion is not None:
        if isinstance(champion.recipe, Recipe):
            return champion.recipe
        if champion.recipe is None:
            trained_by = f"a recipe that is not among {', '.join(RECIPES)}: set ECG_RETRAIN_RECIPE"
        else:
            trained_by = f"{champion.recipe.reason}, or set ECG_RETRAIN_RECIPE"
        raise ValueError(f"version {champion.version}, the champion, was trained by {trained_by}")
    encoder = workspace.current(OURS.product)
    last = None if encoder is None else read_recipe(encoder.config)
    if isinstance(last, UnreadableRecipe):
        raise ValueError(f"the current encoder was trained by {last.reason}, or name a recipe")
    return last or recipe_named("demo")


def _default_corpus(workspace: Workspace, champion: _Trained | None) -> CorpusConfig:
    """Return the settings of the champion's corpus, or without a champion those of the last training's corpus.

    Versions of earlier commits name only the digest of their corpus.
    """
    if champion is None:
        encoder = workspace.current(OURS.product)
        last = None if encoder is None else settings_of(workspace, encoder.inputs.get("corpus", ""))
        return last or CorpusConfig()
    return champion.corpus or settings_of(workspace, champion.corpus_digest) or CorpusConfig()


def _start(champion: _Trained | None, config: RetrainingConfig) -> str:
    return f"models:/{OURS.model}/{champion.version}" if champion and config.start == CHAMPION else ""


def _trained_alike(workspace: Workspace, recipe: Recipe) -> Product | None:
    """Return an existing encoder of the current corpus' ECGs with this recipe, the current one first, or None."""
    digest = CorpusFacts.of(workspace.require("corpus")).digest
    wanted = (versions.ENCODER, digest, recipe.to_dict())
    for encoder in workspace.finished(OURS.product):
        trained = (encoder.version, EncoderFacts.of(encoder).corpus_digest, {**encoder.config, "warm_start": None})
        if trained == wanted:
            return encoder
    return None
