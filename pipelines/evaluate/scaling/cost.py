"""What the trainings of a plan cost: their FLOPs, and their time at a speed that was measured here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS, SCALING_ENCODERS
from pipelines.evaluate.scaling.plan import Run
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import TIMING_FILE, EncoderFacts

Speeds = Mapping[Recipe, float]
"""ECGs a second, by networks and objective (`networks`)."""


def networks(recipe: Recipe) -> Recipe:
    """Return a recipe with the same cost of an ECG, whatever its name, its length and its random numbers."""
    return replace(recipe, name="x", seed=0, epochs=None, steps=1, probe_epochs=None, warm_start=None)


@cache
def _flops_of(recipe: Recipe) -> float:
    """Return the FLOPs of a training step for one ECG."""
    return objective_of(recipe).flops_per_sample()


def run_flops(run: Run) -> float:
    """Return the FLOPs of a run's updates; probes come on top."""
    return _flops_of(networks(run.recipe)) * run.steps * run.recipe.batch


def measured_speeds(workspace: Workspace) -> Speeds:
    """Return the best speed of the trainings that ended in this workspace: other programs only slow them down."""
    speeds: dict[Recipe, float] = {}
    for encoder in _encoders(workspace):
        timing, facts = encoder.path / TIMING_FILE, EncoderFacts.of(encoder)
        if timing.is_file() and facts.recipe:
            of = networks(Recipe.from_dict(facts.recipe))
            speeds[of] = max(speeds.get(of, 0.0), json.loads(timing.read_text())["samples_per_second"])
    return {of: speed for of, speed in speeds.items() if speed > 0}


def seconds_of(run: Run, speeds: Speeds) -> float | None:
    """Return how long a run takes, or None if nothing was measured.

    By the speed of the same networks, or, if these were not measured, by the FLOP/s of those nearest in cost: small
    networks use less of a machine than large ones.
    """
    if not speeds:
        return None
    own = networks(run.recipe)
    flops = _flops_of(own)
    near = own if own in speeds else min(speeds, key=lambda of: abs(math.log(_flops_of(of) / flops)))
    return run_flops(run) / (speeds[near] * _flops_of(near))


def _encoders(workspace: Workspace) -> Iterator[Product]:
    yield from workspace.finished(OURS.product)
    yield from workspace.listed(f"{SCALING_ENCODERS}/*").values()
