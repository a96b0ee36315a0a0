"""Pretrain the encoder that is asked for: by the asset `encoder`, or by `ecg run pretrain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.cache import Product
from pipelines.home import Home
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import materialize_encoder
from pipelines.program import Launch
from pipelines.release.retraining import requested_training
from pipelines.release.steps import warm_start as started
from pipelines.tracking import Tracking


def pretrain_requested(
    home: Home,
    tracking: Tracking,
    launch: Launch,
    *,
    recipe: str = "",
    changes: Mapping[str, Any] | None = None,
    warm_start: str = "",
    **computing: Any,
) -> Product:
    """Return the encoder of the settings, trained if it is not here yet.

    recipe, changes, warm_start: as `requested_training` takes them
    computing: device, processes, accumulate and recompute, as `materialize_encoder` takes them

    Raises ValueError as both do.
    """
    workspace = home.workspace()
    training = requested_training(
        workspace,
        tracking,
        simulated=home.simulated,
        recipe=recipe,
        changes=changes or {},
        warm_start=warm_start,
    )
    if training.done is not None:
        return training.done
    with started(training.warm_start, tracking) as (start, file):
        return materialize_encoder(
            workspace,
            Recipe.from_dict({**training.recipe.to_dict(), **start}),
            launch,
            **computing,
            warm_start=file,
            track=home.tracking_uri,
            artifact_root=home.artifact_root,
        )
