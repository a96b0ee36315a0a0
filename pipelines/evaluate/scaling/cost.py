"""What the trainings of a plan cost: their FLOPs, and their time at a speed that was measured here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS, SCALING_ENCODERS
from pipelines.evaluate.scaling.plan import Run
from pipelines.pretrain.flops import flops_per_sample
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import TIMING_FILE, EncoderFacts


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast trainings were here."""

    ecgs: float
    """ECGs a second."""
    recipe: Recipe


@cache
def _flops_of(recipe: Recipe) -> float:
    return flops_per_sample(recipe.jepa)


def run_flops(run: Run) -> float:
    """Return the FLOPs of a run's updates; probes come on top."""
    return _flops_of(_networks(run.recipe)) * run.steps * run.recipe.batch


def measured_speeds(workspace: Workspace) -> list[Speed]:
    """Return the speeds of the trainings that ended in this workspace, the latest first."""
    timed = [
        (file.stat().st_mtime, encoder)
        for encoder in _encoders(workspace)
        if (file := encoder.path / TIMING_FILE).is_file() and EncoderFacts.of(encoder).recipe
    ]
    speeds = []
    for _, encoder in sorted(timed, key=lambda one: -one[0]):
        ecgs = json.loads((encoder.path / TIMING_FILE).read_text())["samples_per_second"]
        if ecgs > 0:
            speeds.append(Speed(ecgs=ecgs, recipe=Recipe.from_dict(EncoderFacts.of(encoder).recipe)))
    return speeds


def seconds_of(run: Run, speeds: Sequence[Speed]) -> float | None:
    """Return how long a run takes, or None if nothing was measured.

    By the latest training of the same networks, or, if there is none, by the FLOP/s of the latest training.
    """
    networks = _networks(run.recipe)
    ecgs = run.steps * run.recipe.batch
    for speed in speeds:
        if _networks(speed.recipe) == networks:
            return ecgs / speed.ecgs
    if not speeds:
        return None
    return run_flops(run) / (speeds[0].ecgs * _flops_of(_networks(speeds[0].recipe)))


def _encoders(workspace: Workspace) -> Iterator[Product]:
    yield from workspace.finished(OURS.product)
    yield from workspace.listed(f"{SCALING_ENCODERS}/*").values()


def _networks(recipe: Recipe) -> Recipe:
    """Return a recipe with the same cost of an ECG, whatever its length and its random numbers."""
    return replace(recipe, name="x", seed=0, epochs=None, steps=1, probe_epochs=None, warm_start=None)
