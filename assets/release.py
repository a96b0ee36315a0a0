"""The registered version, the gate's verdict on it, and the champion that users pull."""

from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import Field

from assets import show
from assets.evaluate import probe_assets, reference_cpc_probe_assets, reference_probe_assets
from assets.forms import Part, form
from assets.pretrain import encoder
from assets.reference import reference_cpc_encoder, reference_encoder
from assets.report import evaluation_report
from assets.resources import DataHome
from pipelines import versions
from pipelines.hashing import digest_of
from pipelines.release.gate import CLASSIFIER_RULES, RULES, GateConfig
from pipelines.release.gate_probes import GATE_TASK
from pipelines.tasks.catalogue import TASKS

if TYPE_CHECKING:
    from pipelines.release.model import Release


class ReleaseSettings(dg.Config):
    gate_task: Literal[tuple(TASKS)] = Field(  # pyright: ignore[reportInvalidTypeForm]
        default=GATE_TASK,
        description="The probe whose validation macro AUC is the version's score. The gate and the classifier use the "
        "task that is stored with the version.",
    )


GATE = Part(GateConfig, only=("margin", "label_margin"))


class GateSettings(form(GATE)):
    """Margins of the gate."""


ENCODER_GATE = Part(GateConfig, only=("margin", "label_margin", "probes"), types={"probes": dict[str, float]})


class EncoderGateSettings(form(ENCODER_GATE)):
    """Margins of the gate, and the probes that encoders are compared by."""


def _released(release: "Release") -> dg.MaterializeResult:
    from assets.previews import released

    tags = release.tags
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of({name: tags[name] for name in ("release", "scores")})),
        metadata={
            "cached": not (release.created or release.rescored),
            "version": release.version,
            "model": release.model_uri,
            "run": release.run_id,
            "validation": tags["validation"],
            "tags": show.table([{"tag": name, "value": value} for name, value in sorted(tags.items())], "No tags."),
            **show.pictures(scores=released(release)),
        },
    )


@dg.asset(
    deps=[encoder, *probe_assets, evaluation_report],
    group_name="release",
    description="A version of the MLflow model `ecg-encoder` with the encoder, its scores and its origin: raw ECGs in, "
    "embeddings out. It is the challenger until the gate has judged it.",
    code_version=versions.RELEASE,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
)
def released_encoder(data_home: DataHome, config: ReleaseSettings) -> dg.MaterializeResult:
    from pipelines.release.steps import release_current

    home = data_home.open()
    with show.mistakes_explained():
        release = release_current(
            home.workspace(), data_home.tracking(), gate_task=config.gate_task, simulated=home.simulated
        )
    return _released(release)


@dg.asset(
    deps=[released_encoder],
    group_name="release",
    description="The gate's verdict on the challenger: not worse than the champion on the same validation ECGs, no "
    "label lost, both by the weighted mean of its `probes`; not collapsed, and served as it was trained. The verdict "
    "is also written on the version in MLflow. If a rule fails, the following assets are not run and the version stays "
    "a challenger.",
    code_version=versions.RELEASE,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
    pool="gpu",
    check_specs=[
        dg.AssetCheckSpec(name, asset="gate_verdict", blocking=True, description=rule) for name, rule in RULES.items()
    ],
)
def gate_verdict(data_home: DataHome, config: EncoderGateSettings) -> dg.MaterializeResult:
    from assets.previews import contested, released
    from pipelines.release.steps import judge_current

    with show.mistakes_explained():
        gate = ENCODER_GATE.read(config)
        release, verdict, contest = judge_current(data_home.open().workspace(), data_home.tracking(), config=gate)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of({"release": release.tags["release"], **verdict.to_dict()})),
        metadata={
            "cached": bool(release.moves),
            "verdict": verdict.reason,
            "challenger": release.version,
            "champion": verdict.against or "none yet",
            "rules": dg.MetadataValue.md(verdict.page()),
            **show.pictures(differences=contested(contest, gate), scores=released(release)),
        },
        check_results=[show.checked(name, rule) for name, rule in verdict.rules.items()],
    )


@dg.asset(
    deps=[gate_verdict],
    group_name="release",
    description="What `models:/ecg-encoder@champion` points to: the challenger if it passed the gate. The champion "
    "before it becomes `previous`; `ecg rollback` goes back to it.",
    code_version=versions.RELEASE,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
)
def champion(data_home: DataHome) -> dg.MaterializeResult:
    from assets.previews import released
    from pipelines.release.aliases import aliases_of
    from pipelines.release.promotion import promote_current
    from pipelines.release.tags import CHAMPION, PREVIOUS

    tracking = data_home.tracking()
    with show.mistakes_explained():
        promotion = promote_current(data_home.open().workspace(), tracking)
    current = promotion.champion
    return dg.MaterializeResult(
        data_version=dg.DataVersion(current.tags["release"]),
        metadata={
            "cached": not promotion.moved,
            "champion": current.version,
            "model": f"models:/{current.name}@{CHAMPION}",
            "previous": aliases_of(tracking=tracking).get(PREVIOUS, "none yet"),
            "verdict": current.tags.get("verdict", "not judged"),
            "moves": show.table([{"time": when, "move": what} for when, what in current.moves.items()], "No move yet."),
            **show.pictures(scores=released(current)),
        },
    )


@dg.asset(
    deps=[champion],
    group_name="release",
    description="The MLflow model `ecg-classifier`: the encoder with its probe on the gate's task and a calibration of "
    "each label, raw ECGs in, probabilities by label out. It has its own champion, which passed the same gate and "
    "contains the champion of `ecg-encoder`.",
    code_version=versions.CLASSIFIER,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
    pool="gpu",
    check_specs=[
        dg.AssetCheckSpec(name, asset="classifier", description=rule) for name, rule in CLASSIFIER_RULES.items()
    ],
)
def classifier(data_home: DataHome, config: GateSettings) -> dg.MaterializeResult:
    from assets.previews import contested, reliability
    from pipelines.finding import Finding
    from pipelines.release.classifier import ClassifierFacts
    from pipelines.release.promotion import promote_classifier
    from pipelines.release.tags import CHAMPION

    workspace, tracking = data_home.open().workspace(), data_home.tracking()
    with show.mistakes_explained():
        gate = GATE.read(config)
        head, judged, current = promote_classifier(workspace, tracking, config=gate)
    facts = ClassifierFacts.of(head)
    if judged is None:
        passed = Finding.passed(f"not judged: {facts.reason}")
        return show.materialized(
            head, {"not scored": facts.reason}, [show.checked(name, passed) for name in CLASSIFIER_RULES]
        )
    assert facts.labels is not None
    assert facts.brier is not None
    assert facts.brier_uncalibrated is not None
    release, verdict, contest = judged
    return show.materialized(
        head,
        {
            "version": release.version,
            "champion": "none yet" if current is None else current.version,
            "model": f"models:/{release.name}@{CHAMPION}",
            "verdict": verdict.reason,
            "labels": ", ".join(facts.labels),
            "Brier score on test": round(facts.brier, 4),
            "Brier score on test, uncalibrated": round(facts.brier_uncalibrated, 4),
            "rules": dg.MetadataValue.md(verdict.page()),
            **show.pictures(reliability=reliability(workspace, head), differences=contested(contest, gate)),
        },
        [show.checked(name, rule) for name, rule in verdict.rules.items()],
    )


@dg.asset(
    deps=[reference_encoder, *reference_probe_assets],
    group_name="release",
    description="A version of the MLflow model `ecg-encoder-reference` with the author's released encoder, its scores "
    "and the sha256 of the imported file, to compare `ecg-encoder` with. It has no alias and passes no gate.",
    code_version=versions.RELEASE,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
)
def released_reference(data_home: DataHome, config: ReleaseSettings) -> dg.MaterializeResult:
    from pipelines.release.steps import release_reference

    home = data_home.open()
    with show.mistakes_explained():
        release = release_reference(home.workspace(), data_home.tracking(), gate_task=config.gate_task)
    return _released(release)


@dg.asset(
    deps=[reference_cpc_encoder, *reference_cpc_probe_assets],
    group_name="release",
    description="A version of the MLflow model `ecg-encoder-reference-cpc` with the published ECG-CPC, its scores and "
    "the sha256 of the imported checkpoint, to compare `ecg-encoder` with. It has no alias and passes no gate.",
    code_version=versions.RELEASE,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
)
def released_reference_cpc(data_home: DataHome, config: ReleaseSettings) -> dg.MaterializeResult:
    from pipelines.encoders.names import REFERENCE_CPC
    from pipelines.release.steps import release_reference

    workspace, tracking = data_home.open().workspace(), data_home.tracking()
    with show.mistakes_explained():
        release = release_reference(workspace, tracking, encoder_names=REFERENCE_CPC, gate_task=config.gate_task)
    return _released(release)
