"""The objectives that a recipe can choose."""

from __future__ import annotations

from ecg_model.config import CPCConfig
from pipelines.pretrain.objectives.cpc import CPCObjective
from pipelines.pretrain.objectives.jepa import JEPAObjective
from pipelines.pretrain.objectives.objective import Objective
from pipelines.pretrain.recipes import Recipe


def objective_of(recipe: Recipe) -> Objective:
    """Return the objective of a recipe, with initial weights from torch's global generator."""
    chosen = recipe.objective
    if isinstance(chosen, CPCConfig):
        return CPCObjective(chosen)
    return JEPAObjective(chosen, ema_start=recipe.ema_start, ema_end=recipe.ema_end)
