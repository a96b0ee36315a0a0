"""The registered version, and the champion that users pull."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets import show
from assets.evaluate import probe_assets, reference_probe_assets
from assets.pretrain import encoder
from assets.reference import reference_encoder
from assets.report import evaluation_report
from assets.resources import DataHome
from pipelines import versions

if TYPE_CHECKING:
    from pipelines.release import Release

PASSED = "gate"


class ReleaseSettings(dg.Config):
    gate_task: str = Field(
        default="ptbxl_superclass", description="The probe whose validation macro AUC the gate compares."
    )


class GateSettings(ReleaseSettings):
    margin: float = Field(
        default=0.005,
        ge=0,
        lt=1,
        description="How far below the champion's validation score a challenger's may lie and still pass.",
    )


def _released(release: "Release") -> dg.MaterializeResult:
    tags = release.tags
    return dg.MaterializeResult(
        data_version=dg.DataVersion(tags["release"]),
        metadata={
            "cached": not release.created,
            "version": release.version,
            "model": release.model_uri,
            "run": release.run_id,
            "validation": tags["validation"],
            "tags": show.table([{"tag": name, "value": value} for name, value in sorted(tags.items())], "No tags."),
        },
    )


@dg.asset(
    deps=[encoder, *probe_assets, evaluation_report],
    group_name="release",
    description="A version of the MLflow model `ecg-encoder` with the encoder, its scores and what made it: raw ECGs "
    "in, embeddings out. It is the challenger until the gate has judged it.",
    code_version=versions.RELEASE,
    kinds={"mlflow"},
)
def released_encoder(
    context: dg.AssetExecutionContext, data_home: DataHome, config: ReleaseSettings
) -> dg.MaterializeResult:
    from pipelines.promotion import release_current

    home = data_home.open()
    with show.mistakes_explained():
        release = release_current(home.workspace(), data_home.tracking(), gate_task=config.gate_task)
    return _released(release)


@dg.asset(
    deps=[released_encoder],
    group_name="release",
    description="What `models:/ecg-encoder@champion` points to. A challenger takes its place where its validation "
    "score is not below the champion's by more than the margin, both on the same data.",
    code_version=versions.RELEASE,
    kinds={"mlflow"},
    check_specs=[
        dg.AssetCheckSpec(PASSED, asset="champion", description="The challenger passed the gate; a warning where not.")
    ],
)
def champion(context: dg.AssetExecutionContext, data_home: DataHome, config: GateSettings) -> dg.MaterializeResult:
    from pipelines.promotion import contest, release_current
    from pipelines.release import CHAMPION, GateConfig, find_alias

    home = data_home.open()
    tracking = data_home.tracking()
    with show.mistakes_explained():
        gate = GateConfig(margin=config.margin)
        release = release_current(home.workspace(), tracking, gate_task=config.gate_task)
        judged = "verdict" in release.tags
        verdict = contest(home.workspace(), release, tracking, gate_task=config.gate_task, config=gate)
    holder = find_alias(CHAMPION, tracking=tracking)
    assert holder is not None, "the first release becomes champion"
    shown: dict[str, Any] = {
        "cached": judged,
        "champion": holder.version,
        "model": f"models:/{holder.name}@{CHAMPION}",
        "challenger": release.version,
        "verdict": verdict.reason,
    }
    return dg.MaterializeResult(
        data_version=dg.DataVersion(holder.tags["release"]),
        metadata=shown,
        check_results=[
            dg.AssetCheckResult(
                check_name=PASSED,
                passed=verdict.promote,
                severity=dg.AssetCheckSeverity.WARN,
                description=verdict.reason,
            )
        ],
    )


@dg.asset(
    deps=[reference_encoder, *reference_probe_assets],
    group_name="release",
    description="A version of the MLflow model `ecg-encoder-reference` with the author's released encoder, its scores "
    "and the sha256 of the file it came from: a yardstick beside `ecg-encoder`, with no alias and no gate.",
    code_version=versions.RELEASE,
    kinds={"mlflow"},
)
def released_reference(
    context: dg.AssetExecutionContext, data_home: DataHome, config: ReleaseSettings
) -> dg.MaterializeResult:
    from pipelines.promotion import release_reference

    home = data_home.open()
    with show.mistakes_explained():
        release = release_reference(home.workspace(), data_home.tracking(), gate_task=config.gate_task)
    return _released(release)
