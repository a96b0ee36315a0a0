"""The comparison of any two encoders."""

import dagster as dg
from pydantic import Field

from assets import show
from assets.release import champion
from assets.resources import DataHome
from pipelines import versions


class ComparisonSettings(dg.Config):
    """Which encoders are compared."""

    first: str = Field(
        default="models:/ecg-encoder@champion",
        description="models:/NAME@ALIAS, models:/NAME/VERSION, the path of an encoder.safetensors, `pretrained` (the "
        "data home's own), `reference` or `reference-cpc` (the imported ones), or `random` (the other with its initial "
        "weights).",
    )
    second: str = Field(default="random", description="The other one, named in the same ways.")


@dg.asset(
    deps=[champion],
    group_name="compare",  # its own group, so that the UI draws it to the right of the release
    description="Two encoders on the same ECGs and splits, by a linear probe of every task and by the gate's other "
    "probes: paired bootstrap by patient, p-values adjusted by Holm's method, and each label. What `ecg compare` "
    "prints.",
    code_version=versions.REPORT,
    retry_policy=show.ONCE_MORE,
    kinds={"html"},
    pool="gpu",
)
def encoder_comparison(data_home: DataHome, config: ComparisonSettings) -> dg.MaterializeResult:
    from assets.previews import compared
    from pipelines.evaluate.report.compare import compare_encoders
    from pipelines.evaluate.report.step import COMPARISON_HTML, materialize_comparison
    from pipelines.release.gate_probes import usual_evaluations
    from pipelines.release.resolve import named_encoders

    workspace = data_home.open().workspace()
    with (
        show.mistakes_explained(),
        named_encoders(config.first, config.second, workspace, data_home.tracking()) as encoders,
    ):
        comparison = compare_encoders(workspace, encoders, usual_evaluations())
    product = materialize_comparison(workspace, comparison)
    rows = [
        {
            "task": task.task,
            "labels scored": task.labels_scored,
            "first": round(task.first.value, 4),
            "seen by first": comparison.seen[task.task][0].in_words(),
            "second": round(task.second.value, 4),
            "seen by second": comparison.seen[task.task][1].in_words(),
            "difference": round(task.difference.value, 4),
            "interval": f"{task.difference.low:+.3f} to {task.difference.high:+.3f}",
            "p": round(task.p_adjusted, 4),
        }
        for task in comparison.tasks
    ]
    return show.materialized(
        product,
        {
            "verdict": comparison.in_words(),
            "first": comparison.first,
            "second": comparison.second,
            "macro AUC": show.table(rows, "No task was scored."),
            "page": dg.MetadataValue.path(str(product.path / COMPARISON_HTML)),
            **show.pictures(differences=compared(comparison)),
        },
    )
