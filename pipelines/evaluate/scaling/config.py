"""Settings of scaling curves. No torch: the launchpad's form is made from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pipelines.evaluate.suite.names import evaluation
from pipelines.pretrain.recipes import Recipe, recipe_named

Fixed = Literal["epochs", "updates"]

_NEXT = re.compile(r",(?=[a-z0-9_.]+=)")


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """What is trained, on which shares of the corpus, and what it is judged by."""

    recipes: tuple[str, ...] = ("demo",)
    """A curve each: names of recipes, such as small, with changes after a colon, such as
    small:name=narrow,jepa.encoder.dim=96,jepa.encoder.heads=3 for another size of the model."""
    changes: tuple[str, ...] = ()
    """Fields to change in every recipe, each as FIELD=VALUE, such as epochs=5."""
    shares: tuple[float, ...] = field(default=(0.01, 0.03, 0.1, 0.3, 1.0), metadata={"gt": 0, "le": 1})
    """Shares of the corpus's training patients; each lies inside the next. At least four are needed to fit a law."""
    seeds: tuple[int, ...] = field(default=(0, 1, 2), metadata={"ge": 0, "lt": 2**32})
    """Each share is trained once a seed, which draws its patients and the training's random numbers."""
    fixed: Fixed = "epochs"
    """What is the same for every share: `epochs` passes over its ECGs, so that smaller shares get fewer updates, or
    `updates`, so that smaller shares repeat their ECGs more often."""
    evaluation: str = "ptbxl_superclass"
    """The evaluation whose test macro AUC is drawn, such as ptbxl100_superclass or cpsc2018__attention_pool."""

    def __post_init__(self) -> None:
        for name in ("recipes", "shares", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name}=(): give at least one")
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"{name}={values}: {twice[0]} is given twice: give each once")
        for share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"shares={share:g}: use shares above 0 and up to 1, such as 0.03 for 3 %")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ValueError(f"seeds={seed}: use numbers from 0 to 2^32 - 1")
        if self.fixed not in get_args(Fixed):
            raise ValueError(f"fixed={self.fixed!r}: use 'epochs' or 'updates'")
        evaluation(self.evaluation)
        self.curves()

    def curves(self) -> dict[str, Recipe]:
        """Return the recipe of each curve, by its name. Raises ValueError as `recipe_named` does."""
        curves: dict[str, Recipe] = {}
        for text in self.recipes:
            name, _, changes = text.partition(":")
            fields = _changes([*self.changes, *_NEXT.split(changes)])
            if "seed" in fields:
                raise ValueError(f"recipes={text!r}: seed={fields['seed']}: give seeds={fields['seed']} instead")
            recipe = recipe_named(name.strip(), fields)
            if recipe.warm_start is not None:
                raise ValueError(
                    f"recipes={text!r}: warm_start={recipe.warm_start!r}: a curve begins at random weights"
                )
            if recipe.name in curves:
                raise ValueError(
                    f"recipes={text!r}: two curves are named {recipe.name!r}: name one otherwise, such as "
                    f"{name}:name={recipe.name}-2,..."
                )
            curves[recipe.name] = recipe
        return curves


def _changes(assignments: Sequence[str]) -> dict[str, str]:
    """Return changes of a recipe by field."""
    changes: dict[str, str] = {}
    for assignment in filter(None, assignments):
        path, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"change {assignment!r} of a recipe: write FIELD=VALUE, such as epochs=5")
        changes[path.strip()] = value.strip()
    return changes
