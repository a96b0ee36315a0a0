"""The code location: every asset and its checks, the jobs, and the resources they ask for."""

from __future__ import annotations

import dagster as dg

from assets.corpus import corpus
from assets.evaluate import probe_assets
from assets.pretrain import encoder
from assets.release import champion, released_encoder
from assets.resources import DataHome
from assets.sources import all_source_assets
from orchestration.jobs import harvest_jobs, train_job

defs = dg.Definitions(
    assets=[
        *all_source_assets,
        corpus,
        encoder,
        *probe_assets,
        released_encoder,
        champion,
    ],
    jobs=[*harvest_jobs, train_job],
    resources={"data_home": DataHome(), "pipes": dg.PipesSubprocessClient()},
)
