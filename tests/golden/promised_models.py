"""What the MLflow store is given: models, aliases, tags, parameters, experiments, metrics.

A client that keeps all in memory stands for the store, so that a release, a verdict, two promotions, a rollback and
the mirror of a training's metrics take no time. That a real store takes them is for `test_release` and its like.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ecg_model.encoder_file import save_encoder
from pipelines.encoders.names import OURS, REFERENCE
from pipelines.finding import Finding
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import EXPERIMENT, EncoderFacts, mirror
from pipelines.release.aliases import promote, rollback
from pipelines.release.gate import CLASSIFIER_RULES, RULES, GateVerdict
from pipelines.release.model import Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import record, release_packaged
from pipelines.release.steps import GATE_TASK, release_classifier, release_current, release_reference
from pipelines.release.tags import kind_of
from pipelines.tracking import Tracking
from tests.golden.promised_steps import Recorder, constant_encoder

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow
import mlflow.pyfunc

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


class Registry:
    """As much of `MlflowClient` as a release needs. told: what names were written where."""

    def __init__(self) -> None:
        self.models: dict[str, SimpleNamespace] = {}
        self.told: dict[str, set[str]] = {}

    def tell(self, where: str, *names: str) -> None:
        self.told.setdefault(where, set()).update(MOMENT.sub("TIME", name) for name in names)

    def create_registered_model(self, name: str, description: str) -> None:
        self.tell("models", name)
        self.models.setdefault(
            name, SimpleNamespace(name=name, aliases={}, tags={}, versions=[], description=description)
        )

    def update_registered_model(self, name: str, description: str) -> None:
        self.tell("models described", name)
        self.models[name].description = description

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return self.models[name]

    def search_model_versions(self, text: str) -> list[SimpleNamespace]:
        wanted = dict(re.findall(r"([\w.]+) = '([^']*)'", text))
        versions = self.models[wanted["name"]].versions
        return [one for one in versions if wanted.get("tags.release") in (None, one.tags["release"])]

    def create_model_version(self, name: str, *, source: str, run_id: str, tags: Any, model_id: str) -> SimpleNamespace:
        made = self.models[name].versions
        made.append(
            SimpleNamespace(
                name=name,
                version=len(made) + 1,
                run_id=run_id,
                model_id=model_id,
                tags=dict(tags),
                description="",
            )
        )
        self.tell(f"tags of a version of {name}", *tags)
        return made[-1]

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        return self.models[name].versions[int(version) - 1]

    def update_model_version(self, name: str, version: str, description: str) -> None:
        self.tell("versions described", name)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tell(f"tags of a version of {name}", key)
        self.tell("values of moves", *([re.sub(r"\d+", "N", value)] if MOMENT.search(key) else []))
        self.get_model_version(name, version).tags[key] = value

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.tell(f"aliases of {name}", alias)
        self.models[name].aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.models[name].aliases.pop(alias)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self.tell(f"tags of {name}", key)
        self.models[name].tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self.models[name].tags.pop(key)

    def get_experiment_by_name(self, name: str) -> None:
        self.tell("experiments", name)

    def create_experiment(self, name: str, artifact_location: str) -> str:
        return "1"

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> list[Any]:
        return []

    def get_run(self, run_id: str) -> SimpleNamespace:
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, experiment_id="1"), data=SimpleNamespace(tags={}))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tell("later tags of a run", key)

    def log_inputs(self, run_id: str, datasets: Any) -> None:
        self.tell("datasets of a run", *(one.dataset.name for one in datasets))

    def get_logged_model(self, model_id: str) -> SimpleNamespace:
        return SimpleNamespace(tags={})

    def set_logged_model_tags(self, model_id: str, tags: dict[str, str]) -> None:
        self.tell("tags of a logged model", *tags)

    def create_run(self, experiment: str, *, tags: Any, run_name: str) -> SimpleNamespace:
        # Without those that MLflow tells of any run, which depend on where the tests run.
        self.tell("tags of a training's run", *(tag for tag in tags if not tag.startswith("mlflow.")))
        self.tell("training runs", run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="0"), data=SimpleNamespace(params={}, metrics={}))

    def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = ()) -> None:
        self.tell("parameters of a training's run", *(one.key for one in params))
        self.tell("metrics of a training's run", *(one.key for one in metrics))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.tell("training runs end as", status)


class InMemory(Tracking):
    """A store that such a client stands for."""

    registry: ClassVar[Registry]

    def client(self) -> Any:
        return self.registry


def told_to_mlflow(workspace: Recorder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Release, judge, promote, go back, and mirror a training; the names that were written."""
    registry = Registry()
    monkeypatch.setattr(InMemory, "registry", registry, raising=False)
    tracking = InMemory(uri=f"sqlite:///{folder / 'none.db'}", artifact_root=folder / "mlflow" / "artifacts")
    _without_a_store(monkeypatch, registry)
    shutil.rmtree(workspace.folder("classifier"))
    monkeypatch.setattr(workspace, "asked", {})  # the table of steps is another test's
    monkeypatch.setattr(workspace, "real", ("probe", "dense", "corpus"))  # and the classifier is a scored one
    first = release_current(workspace, tracking, simulated=True)
    promote(record(first, _passed(RULES, None), tracking=tracking), tracking=tracking)
    classifier = release_classifier(workspace, tracking)
    assert classifier is not None
    promote(record(classifier, _passed(CLASSIFIER_RULES, None), tracking=tracking), tracking=tracking)
    release_reference(workspace, tracking)
    other = folder / "encoder.safetensors"
    save_encoder(other, constant_encoder(recipe_named("demo").jepa.encoder, 0.03))
    second = release_packaged(
        packaged_encoder(other), Scores(), provenance={}, recipe={}, git_commit="", tracking=tracking
    )
    promote(record(second, _passed(RULES, first.version), tracking=tracking), tracking=tracking)
    rollback(why="golden", tracking=tracking)
    metrics = folder / "aside" / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text('{"step": 1, "loss": 0.5}\n')
    facts = EncoderFacts(recipe=recipe_named("demo").to_dict(), recipe_digest="1", corpus_digest="2")
    with mirror(folder, facts, replace(tracking, experiment=EXPERIMENT)):
        pass
    return {
        "written": {where: sorted(names) for where, names in registry.told.items() if names},
        "names": {"ours": [*vars(OURS).values()], "reference": [*vars(REFERENCE).values()]},
        "verdict": sorted(_passed(RULES, None).to_dict()),
        "gate task": GATE_TASK,
        "ECGs": [kind_of(simulated=True), kind_of(simulated=False)],
        "experiment": tracking.experiment,
    }


def _passed(rules: Any, against: int | None) -> GateVerdict:
    return GateVerdict(against=against, rules={name: Finding.passed("golden") for name in rules})


def _without_a_store(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    """MLflow's own functions, which know no client, tell the registry, too."""

    @contextmanager
    def start_run(experiment_id: str, run_name: str, tags: Any) -> Iterator[SimpleNamespace]:
        registry.tell("release runs", run_name)
        registry.tell(f"tags of the run {run_name!r}", *tags)
        yield SimpleNamespace(info=SimpleNamespace(run_id="0"))

    def log_model(name: str, **given: Any) -> SimpleNamespace:
        registry.tell("logged model", name)
        registry.tell("files of models", *given["artifacts"])
        registry.tell(
            "code of models", Path(given["python_model"]).name, *(Path(one).name for one in given["code_paths"])
        )
        registry.tell("parameters of a call", *(one.name for one in given["signature"].params))
        registry.tell("metadata of models", *given["metadata"])
        registry.tell("requirements of models", *(one.partition("==")[0] for one in given["pip_requirements"]))
        return SimpleNamespace(model_id="m-1", model_uri="models:/m-1")

    monkeypatch.setattr(mlflow, "start_run", start_run)
    monkeypatch.setattr(mlflow.pyfunc, "log_model", log_model)
    monkeypatch.setattr(mlflow, "log_params", lambda params: registry.tell("parameters of a release", *params))
    monkeypatch.setattr(mlflow, "log_artifact", lambda path: None)
    monkeypatch.setattr(mlflow, "log_metrics", lambda metrics, **where: registry.tell("metrics of a release", *metrics))
