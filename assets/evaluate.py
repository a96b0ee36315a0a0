"""One asset a probe: the pretrained encoder on one task, with the random-initialised one beside it."""

from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field

from assets import show
from assets.pretrain import encoder
from assets.resources import DataHome
from assets.sources import all_source_assets
from pipelines import versions
from pipelines.labels import TASKS, FoldProtocol, LabelTask

ABOVE_RANDOM = "probe_above_random_encoder"


class ProbeSettings(dg.Config):
    penalties: list[float] = Field(
        default=[1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
        description="Strengths of the probe's L2 penalty, the strongest first; validation chooses one.",
    )
    resamples: int = Field(default=1000, ge=1, description="Bootstrap resamples of the patients, for the intervals.")


class FoldProbeSettings(ProbeSettings):
    train_folds: list[int] = Field(default=[1, 2, 3, 4, 5, 6, 7, 8], description="Folds that the probe is fitted on.")
    validation_folds: list[int] = Field(default=[9], description="Folds that every choice is made on.")
    test_folds: list[int] = Field(default=[10], description="Folds that are scored, once.")


def fold_probe(task: LabelTask) -> dg.AssetsDefinition:
    """`probe/<task>` of a task that is split by the source's folds."""

    @dg.asset(**_about(task))
    def probe(data_home: DataHome, config: FoldProbeSettings) -> dg.MaterializeResult:
        with show.mistakes_explained():
            folds = FoldProtocol(
                train=tuple(config.train_folds),
                validation=tuple(config.validation_folds),
                test=tuple(config.test_folds),
            )
        return _probed(replace(task, protocol=folds), data_home, config)

    assert isinstance(probe, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return probe


def partition_probe(task: LabelTask) -> dg.AssetsDefinition:
    """`probe/<task>` of a task that is split by the source's partitions."""

    @dg.asset(**_about(task))
    def probe(data_home: DataHome, config: ProbeSettings) -> dg.MaterializeResult:
        return _probed(task, data_home, config)

    assert isinstance(probe, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return probe


def _about(task: LabelTask) -> dict[str, Any]:
    key = ["probe", task.name]
    return {
        "key": key,
        "deps": [encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", task.source])],
        "group_name": "evaluate",
        "description": f"{task.title}: a linear probe on the frozen encoder, macro AUC with a bootstrap interval by "
        "patient, and the random-initialised encoder's beside it.",
        "code_version": versions.PROBE,
        "kinds": {"python"},
        "check_specs": [
            dg.AssetCheckSpec(
                ABOVE_RANDOM,
                asset=key,
                blocking=True,
                description="The pretrained encoder's test macro AUC is above the random one's. A task with too few "
                "records is not judged, and says so.",
            )
        ],
    }


def _probed(task: LabelTask, data_home: DataHome, config: ProbeSettings) -> dg.MaterializeResult:
    from pipelines import gallery
    from pipelines.evaluate.pair import probe_pair
    from pipelines.evaluate.probe import ProbeConfig

    with show.mistakes_explained():
        probe = ProbeConfig(penalties=tuple(config.penalties), resamples=config.resamples)
        pair = probe_pair(data_home.open().workspace(), task, probe)
    return show.materialized(
        pair.pretrained,
        {
            **pair.figures(),
            "by class": show.table(pair.by_class(), pair.reason or "No class was scored."),
            **show.pictures(ROC=gallery.roc(pair)),
        },
        [show.checked(ABOVE_RANDOM, pair.above_random())],
    )


probe_assets = [
    fold_probe(task) if isinstance(task.protocol, FoldProtocol) else partition_probe(task) for task in TASKS.values()
]
