"""Two encoders beside each other, whichever they are."""

import dagster as dg
from pydantic import Field

from assets import show
from assets.release import champion
from assets.resources import DataHome
from pipelines import versions


class ComparisonSettings(dg.Config):
    first: str = Field(
        default="models:/ecg-encoder@champion",
        description="models:/NAME@ALIAS, models:/NAME/VERSION, the path of an encoder.safetensors, `pretrained` (the "
        "data home's own), `reference` (the imported one), or `random` (the other with its initial weights).",
    )
    second: str = Field(default="random", description="The other one, named in the same ways.")


@dg.asset(
    deps=[champion],
    group_name="compare",  # a group of its own: what follows a release stands right of it
    description="Two encoders on the same ECGs and splits: paired bootstrap by patient on every task, p-values "
    "adjusted by Holm's method, and each label. What `ecg compare` prints.",
    code_version=versions.REPORT,
    retry_policy=show.ONCE_MORE,
    kinds={"html"},
    pool="gpu",
)
def encoder_comparison(data_home: DataHome, config: ComparisonSettings) -> dg.MaterializeResult:
    from assets.previews import compared
    from pipelines.evaluate.report.compare import compare_encoders
    from pipelines.evaluate.report.step import COMPARISON_HTML, materialize_comparison
    from pipelines.release.resolve import named_encoders
    from pipelines.tasks.catalogue import TASKS

    workspace = data_home.open().workspace()
    with (
        show.mistakes_explained(),
        named_encoders(config.first, config.second, workspace, data_home.tracking()) as encoders,
    ):
        found = compare_encoders(workspace, encoders, list(TASKS.values()))
    product = materialize_comparison(workspace, found)
    rows = [
        {
            "task": one.task,
            "first": round(one.first.value, 4),
            "seen by first": found.seen[one.task][0].in_words(),
            "second": round(one.second.value, 4),
            "seen by second": found.seen[one.task][1].in_words(),
            "difference": round(one.difference.value, 4),
            "interval": f"{one.difference.low:+.3f} to {one.difference.high:+.3f}",
            "p": round(one.p_adjusted, 4),
        }
        for one in found.tasks
    ]
    return show.materialized(
        product,
        {
            "verdict": found.in_words(),
            "first": found.first,
            "second": found.second,
            "macro AUC": show.table(rows, "No task was scored."),
            "page": dg.MetadataValue.path(str(product.path / COMPARISON_HTML)),
            **show.pictures(differences=compared(found)),
        },
    )
