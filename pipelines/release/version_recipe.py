"""The recipe that a registered version was trained with: written on the version as JSON, and read back.

Versions of earlier commits have no such tag; their recipe is read from the parameters of their run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecg_model.settings import to_dict
from pipelines.pretrain.recipes import RECIPES, Recipe, recipe_named
from pipelines.release.tags import RECIPE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FIELDS_ADDED: dict[str, Any] = {
    "clip_norm": None,
    "probe_epochs": 5.0,  # the online probe changes no weight
    "select": "last",
    "jepa.masking.per_record": False,
}
"""Fields that recipes gained, by dotted path. The value is what a training before the field amounts to: a stored recipe
that lacks the field is read with it. A field that is added now has `settings.ADDED` instead: it is not stored while it
has its default, so that products of before stay found."""


@dataclass(frozen=True)
class UnreadableRecipe:
    """A recipe of ours that this code cannot repeat."""

    reason: str
    """Which field is wrong and what to do, as the end of the sentence "it was trained with ..."."""


def recipe_tag(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the tag that stores a recipe on a version. recipe: JSON values."""
    return {RECIPE: json.dumps(dict(recipe), sort_keys=True)}


def recipe_of(version: ModelVersion, client: MlflowClient) -> Recipe | UnreadableRecipe | None:
    """Return the recipe of a registered version without its warm start, or None if it is none of ours."""
    if RECIPE in version.tags:
        return read_recipe(json.loads(version.tags[RECIPE]))
    return _recipe_of_params(client.get_run(version.run_id).data.params) if version.run_id else None


def read_recipe(values: Mapping[str, Any]) -> Recipe | UnreadableRecipe | None:
    """Return the recipe that these JSON values describe without its warm start, or None if its name is none of ours.

    A field that the values lack is newer than they are: it gets its value from `FIELDS_ADDED`, never a default.
    """
    name = values.get("name")
    if name not in RECIPES:
        return None
    usual = RECIPES[name]()
    stored, known = leaves(values), leaves(to_dict(usual, whole=True)).keys()
    unknown = sorted(stored.keys() - known)
    if unknown:
        return UnreadableRecipe(
            f"a recipe with {unknown[0]}={stored[unknown[0]]!r}, a field that this code does not know: update the code"
        )
    needed = leaves(usual.to_dict()).keys()
    missing = sorted(needed - stored.keys() - FIELDS_ADDED.keys())
    if missing:
        return UnreadableRecipe(
            f"a recipe without the field {missing[0]}, and this code does not know what trainings before that field "
            "amount to (FIELDS_ADDED in pipelines/release/version_recipe.py): update the code"
        )
    try:
        added = {path: value for path, value in FIELDS_ADDED.items() if path in needed}
        return Recipe.from_dict(nested({**added, **stored, "warm_start": None}))
    except ValueError as error:
        return UnreadableRecipe(f"a recipe that this code refuses ({error}): use the code that trained it")


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted paths, as `recipe_named` takes them."""
    by_path: dict[str, Any] = {}
    for key, value in values.items():
        by_path |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return by_path


def nested(by_path: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `leaves` made paths of."""
    values: dict[str, Any] = {}
    for path, value in by_path.items():
        *parts, name = path.split(".")
        inner = values
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return values


def _recipe_of_params(params: Mapping[str, str]) -> Recipe | None:
    """Return the recipe that a run's parameters describe, or None if its name is none of ours.

    A field that they lack is as the recipe of that name has it today.
    """
    name = params.get("name", "")
    if name not in RECIPES:
        return None
    paths = (leaves(RECIPES[name]().to_dict()).keys() & params.keys()) - {"warm_start"}
    return recipe_named(name, {path: params[path] for path in paths})
