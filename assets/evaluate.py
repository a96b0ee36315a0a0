"""One asset per probe: an encoder on one task, beside its baselines.

`probe/<task>` is of our encoder, `reference_probe/<task>` of the author's released one, `reference_cpc_probe/<task>` of
a published ECG-CPC. `probe/<evaluation>` is an evaluation of the suite, of our encoder; no other asset depends on it.
"""

from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from assets import show
from assets.forms import Part, form
from assets.pretrain import encoder
from assets.reference import reference_cpc_encoder, reference_encoder
from assets.resources import DataHome, Launcher
from assets.sources import all_source_assets
from pipelines import versions
from pipelines.encoders.names import OURS, REFERENCE, REFERENCE_CPC, EncoderNames
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.suite.names import SUITE, Evaluation
from pipelines.tasks.catalogue import TASKS, LabelTask
from pipelines.tasks.splits import FoldProtocol

ABOVE_RANDOM = "probe_above_random_encoder"
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN

PROBE = Part(ProbeConfig, only=("penalties", "resamples", "min_positives"))
FOLDS = Part(FoldProtocol, names={"train": "train_folds", "validation": "validation_folds", "test": "test_folds"})


class ProbeSettings(form(PROBE)):
    """Settings of a probe."""


class FoldProbeSettings(form(PROBE, FOLDS)):
    """Settings of a probe on a task that is split by the source's folds."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The probes of one encoder: `<prefix>/<task>`."""

    encoder_names: EncoderNames
    encoder: dg.AssetsDefinition
    prefix: str
    whose: str
    """The encoder in words, for descriptions."""
    must_beat_random: bool
    """Whether the following assets are blocked if a probe is not above the random encoder's."""


def probes_of(suite: Suite) -> list[dg.AssetsDefinition]:
    """Return one asset per task."""
    return [
        _fold_probe(suite, task) if isinstance(task.protocol, FoldProtocol) else _partition_probe(suite, task)
        for task in TASKS.values()
    ]


def _fold_probe(suite: Suite, task: LabelTask) -> dg.AssetsDefinition:
    """Return the probe of a task that is split by the source's folds."""

    @dg.asset(**_about(suite, task))
    def probe(data_home: DataHome, config: FoldProbeSettings) -> dg.MaterializeResult:
        with show.mistakes_explained():
            folds = FOLDS.read(config)
        return _probed(suite, replace(task, protocol=folds), data_home, config)

    assert isinstance(probe, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return probe


def _partition_probe(suite: Suite, task: LabelTask) -> dg.AssetsDefinition:
    """Return the probe of a task that is split by the source's partitions."""

    @dg.asset(**_about(suite, task))
    def probe(data_home: DataHome, config: ProbeSettings) -> dg.MaterializeResult:
        return _probed(suite, task, data_home, config)

    assert isinstance(probe, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return probe


def _about(suite: Suite, task: LabelTask) -> dict[str, Any]:
    key = [suite.prefix, task.name]
    return {
        "key": key,
        "deps": [suite.encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", task.source])],
        "group_name": "evaluate",
        "description": f"{task.title}: a linear probe on {suite.whose}, frozen: macro AUC with a bootstrap interval by "
        "patient, beside those of the random encoder and of handcrafted features.",
        "code_version": versions.PROBE,
        "retry_policy": show.ONCE_MORE,
        "kinds": {"python"},
        "pool": "gpu",
        "check_specs": [
            dg.AssetCheckSpec(
                ABOVE_RANDOM,
                asset=key,
                blocking=suite.must_beat_random,
                description="Pretraining helped: the validation macro AUC is above the random encoder's, and the 95 % "
                "interval of the paired difference lies above zero. An interval that includes zero is a warning"
                f"{', one below zero blocks the release' if suite.must_beat_random else ''}. A task with too few "
                "records is not judged.",
            )
        ],
    }


def _probed(suite: Suite, task: LabelTask, data_home: DataHome, config: dg.Config) -> dg.MaterializeResult:
    from assets import previews
    from pipelines.evaluate.suite.baselines import beside_ours, probe_pair

    workspace = data_home.open().workspace()
    with show.mistakes_explained():
        probe = PROBE.read(config)
        pair = probe_pair(workspace, task, probe, suite.encoder_names)
    return show.materialized(
        pair.pretrained,
        {
            **pair.figures(),
            **({} if suite.encoder_names == OURS else beside_ours(workspace, task, pair, probe)),
            "by class": show.table(pair.by_class(), pair.reason or "No class was scored."),
            **show.pictures(ROC=previews.roc(pair)),
        },
        [show.checked(ABOVE_RANDOM, pair.above_random(), ERROR if pair.below_random else WARN)],
    )


probe_assets = probes_of(
    Suite(
        encoder_names=OURS,
        encoder=encoder,
        prefix="probe",
        whose="the pretrained encoder",
        must_beat_random=True,
    )
)
reference_probe_assets = probes_of(
    Suite(
        encoder_names=REFERENCE,
        encoder=reference_encoder,
        prefix="reference_probe",
        whose="the author's released encoder",
        must_beat_random=False,  # it is for comparison only
    )
)
reference_cpc_probe_assets = probes_of(
    Suite(
        encoder_names=REFERENCE_CPC,
        encoder=reference_cpc_encoder,
        prefix="reference_cpc_probe",
        whose="the published ECG-CPC",
        must_beat_random=False,
    )
)


def _evaluation(evaluation: Evaluation) -> dg.AssetsDefinition:
    """Return the asset of an evaluation of the suite with our encoder."""

    @dg.asset(
        key=["probe", evaluation.name],
        deps=[encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", evaluation.task.source])],
        group_name="evaluate_suite",
        description=f"{evaluation.task.title}: macro AUC of the pretrained encoder with a bootstrap interval by "
        "patient, beside its baselines.",
        code_version=versions.PROBE,
        retry_policy=show.ONCE_MORE,
        kinds={"python"},
        pool="gpu",
    )
    def evaluated(context: dg.AssetExecutionContext, data_home: DataHome, launcher: Launcher) -> dg.MaterializeResult:
        from assets import previews
        from pipelines.evaluate.probes.step import ProbeFacts
        from pipelines.evaluate.suite.run import evaluate_encoder

        workspace = data_home.open().workspace()
        with show.mistakes_explained():
            rows = evaluate_encoder(workspace, evaluation, launch=lambda command: launcher.run(context, command))
        facts = ProbeFacts.of(rows[0].product)
        auc = facts.test_macro_auc
        return show.materialized(
            rows[0].product,
            {
                **({"not scored": facts.reason} if auc is None else {"test macro AUC": auc.value}),
                "beside": show.table([row.row() for row in rows], "Nothing was scored."),
                **show.pictures(scores=previews.evaluated(rows)),
            },
        )

    return evaluated


suite_assets = [_evaluation(evaluation) for evaluation in SUITE.values()]
