"""MLflow's pages: what they say of a model, a version and its runs, and the links between them, in a real store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.release.card import LONGEST, Place, version_page
from pipelines.release.model import Release, Scores
from pipelines.release.origin import TEST, TRAINING, UsedData
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.release.tags import ECGS, LICENCE, TRAINED_ON, TRAINING_RUN, kind_of
from pipelines.tracking import Tracking, mirror_metrics, mirrored_run
from tests.support.releases import RECIPE, crown, judged, put, scored

pytestmark = pytest.mark.usefixtures("nothing_is_left_outside_the_store")

FIGURES = {
    "super/test_macro_auc": 0.81,
    "super/test_macro_auc_random": 0.75,
    "super/labels": 9,
    "super/test_labels_scored": 3,
    "super/validation_labels_scored": 2,
}
SCORES = replace(scored(0.8, "data-1", **FIGURES), task="super")
DATA = (
    UsedData(name="corpus", digest="c0ffee" * 10, context=TRAINING, profile={"num_rows": 3, "chapman": 3}),
    UsedData(name="super", digest="decade" * 10, context=TEST, profile={"labels scored": "3 of 9"}),
)


def trained(store: Tracking, folder: Path) -> str:
    """A training's run."""
    metrics = folder / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 0.5}\n')
    with mirror_metrics(metrics, tracking=replace(store, experiment="training"), run_name="t", poll_seconds=0.01):
        pass
    run = mirrored_run(metrics, replace(store, experiment="training"))
    assert run is not None
    return run


def release(store: Tracking, name: str, encoder: Path, training: str, report: Path, scores: Scores = SCORES) -> Release:
    provenance = {TRAINED_ON: "3 simulated ECGs: chapman 3", LICENCE: "CC BY 4.0", ECGS: kind_of(simulated=True)}
    return release_packaged(
        packaged_encoder(encoder),
        scores,
        provenance={**provenance, TRAINING_RUN: training},
        recipe=RECIPE,
        git_commit="abc123",
        tracking=store,
        registered_name=name,
        artifacts=[report],
        data=DATA,
    )


def test_a_version_is_linked_with_its_runs_its_report_and_its_data(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    training = trained(store, tmp_path)
    report = tmp_path / "report.html"
    report.write_text("<p>it works</p>")
    made = judged(store, release(store, name, encoders[0], training, report))
    client = store.client()
    version, run = client.get_model_version(name, "1"), client.get_run(made.run_id)
    page, experiment = version.description or "", run.info.experiment_id
    assert page.startswith("Passed the gate. Validation macro AUC 0.800 on super, 2 of 9 labels.\n")
    assert f"[Evaluation report](#/experiments/{experiment}/runs/{made.run_id}/artifacts/report.html)" in page
    assert "| super&emsp; | 0.810&emsp; | 0.750&emsp; | 3 of 9&emsp; |" in page
    for words in ("chapman 3", "CC BY 4.0", "Recipe: tiny", "abc123", f'load_model("models:/{name}/1")'):
        assert words in page
    assert "Not a medical device" in page
    assert "says nothing about patients" in page
    told = [(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs]
    assert sorted(told) == [("corpus", "c0ffeec0ffee", "training"), ("super", "decadedecade", "test")]
    corpus = next(one.dataset for one in run.inputs.dataset_inputs if one.dataset.name == "corpus")
    assert json.loads(corpus.profile) == {"num_rows": 3, "chapman": 3}
    assert "ecgs_in_microvolt" in corpus.schema
    assert run.data.tags["mlflow.note.content"].startswith(f"Registered as [{name} version 1](#/models/{name}/")
    assert version.source is not None
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": name, "version": "1"}]
    of_training = client.get_run(training)
    assert of_training.data.tags[f"registered {name}"] == "1"
    assert f"#/models/{name}/versions/1" in of_training.data.tags["mlflow.note.content"]
    assert [one.dataset.name for one in of_training.inputs.dataset_inputs] == ["corpus"]
    assert of_training.data.tags["mlflow.source.name"], "as of a run that MLflow started"
    assert f"/runs/{training})" in page


def test_a_model_s_page_is_about_its_champion_and_a_person_s_text_is_kept(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    client = store.client()
    put(store, name, encoders[0], SCORES)
    assert "the newest: not judged by a gate" in client.get_registered_model(name).description
    crown(store, name, encoders[0], SCORES)
    put(store, name, encoders[1], SCORES)
    page = client.get_registered_model(name).description
    assert page.startswith("Raw 12-lead ECGs in millivolt")
    assert f"[Version 1](#/models/{name}/versions/1), the champion: passed the gate" in page
    assert f'load_model("models:/{name}@champion")' in page
    client.update_registered_model(name, description="Ours.\n\nAsk ward 7.")
    crown(store, name, encoders[2], SCORES)
    assert client.get_registered_model(name).description == "Ours.\n\nAsk ward 7."


def test_a_champion_that_was_never_scored_says_so_on_both_pages(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    crown(store, name, encoders[0], Scores())
    version = store.client().get_model_version(name, "1").description or ""
    assert version.startswith("Passed the gate. Not scored: nothing tells yet how good it is.")
    assert "Not scored: nothing tells yet" in store.client().get_registered_model(name).description


def test_a_version_of_an_earlier_commit_gets_its_page_with_other_scores(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    client = store.client()
    put(store, name, encoders[0], scored(0.7))
    for tag in ("answer",):
        client.delete_model_version_tag(name, "1", tag)
    client.update_model_version(name, "1", description="**Promoted.** There was no champion.")
    client.delete_registered_model_tag(name, "described")
    client.update_registered_model(name, description="Raw 12-lead ECGs in millivolt -> embeddings (ECG-JEPA)")
    again = put(store, name, encoders[0], SCORES)
    assert again.rescored
    assert again.tags["answer"] == "(records, 32) float32 embeddings, NaN for a record that is not fit"
    assert "3 of 9" in (client.get_model_version(name, "1").description or "")
    assert "3 of 9" in client.get_registered_model(name).description


def test_names_from_outside_stay_text_and_a_long_page_fits_mlflow_s_databases() -> None:
    tags = {"scores": json.dumps({"metrics": {}, "validation": None}), TRAINED_ON: "ward|7 <b>*x*</b> [a](b)"}
    page = version_page(Release(name="own", version=1, run_id="r", tags=tags), Place(experiment="1"))
    assert r"ward\|7 &lt;b&gt;\*x\*&lt;/b&gt; \[a\](b)" in page
    many = {f"task{number}/test_macro_auc": 0.5 for number in range(200)}
    tags["scores"] = json.dumps({"metrics": many, "validation": None})
    cut = version_page(Release(name="own", version=1, run_id="r", tags=tags), Place(experiment="1"))
    assert len(cut) <= LONGEST
    assert cut.endswith("|\n\n(cut: the tags have the rest)")
