"""What a version was made from and scored on: tags for people, and datasets for MLflow's pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pipelines.tracking  # noqa: F401  # it silences MLflow, before MLflow is imported
from pipelines.cache import Product, Workspace
from pipelines.corpus.step import CorpusFacts, corpus_of
from pipelines.encoders.import_reference import ReferenceFacts
from pipelines.encoders.names import REFERENCE_CPC, EncoderNames
from pipelines.evaluate.exposure import REFERENCE_SAW
from pipelines.evaluate.probes.result import load_scores
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.formats.shard import LEADS, SAMPLES
from pipelines.pretrain.step import EncoderFacts
from pipelines.release.tags import LICENCE, TRAINED_ON, kind_of
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import TASKS

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

TRAINING, TEST = "training", "test"
_DIGEST = 12  # characters that are shown, of the 36 that MLflow takes; the version's tags have them all


@dataclass(frozen=True, kw_only=True)
class UsedData:
    """ECGs that a model was trained or tested on."""

    name: str
    digest: str
    """Of the ECGs and, of a test set, of labels and protocol."""
    context: str
    """TRAINING or TEST."""
    profile: Mapping[str, Any]
    """Counts and other facts, as JSON values."""


def as_inputs(data: Sequence[UsedData], git_commit: str) -> list[DatasetInput]:
    """Return datasets as a run's inputs. MLflow shows name, digest, profile and schema."""
    ecgs = Schema([TensorSpec(np.dtype(np.int16), (-1, len(LEADS), SAMPLES), name="ecgs_in_microvolt")])
    source = CodeDatasetSource({"mlflow.source.name": "ecg-foundry", "mlflow.source.git.commit": git_commit})
    return [
        DatasetInput(
            Dataset(
                name=one.name,
                digest=one.digest[:_DIGEST],
                source_type="code",
                source=source.to_json(),
                schema=json.dumps(TensorDatasetSchema(features=ecgs).to_dict()),
                profile=json.dumps(dict(one.profile)),
            ),
            tags=[InputTag(MLFLOW_DATASET_CONTEXT, one.context)],
        )
        for one in data
    ]


def origin_tags(workspace: Workspace, encoder: Product, *, simulated: bool) -> dict[str, str]:
    """Return which ECGs an encoder was pretrained on, and under which licences they are, as tags."""
    corpus = corpus_of(workspace, EncoderFacts.of(encoder).corpus_digest)
    if corpus is None:
        return {TRAINED_ON: "not known: its corpus is not in this data home", LICENCE: "that of its ECGs; not known"}
    counts = CorpusFacts.of(corpus).by_source
    listed = ", ".join(f"{source} {count:,}" for source, count in counts.items())
    tags = {TRAINED_ON: f"{sum(counts.values()):,} {kind_of(simulated=simulated)} ECGs, without labels: {listed}"}
    if simulated:
        return tags | {LICENCE: "none of a data set: the ECGs are simulated"}
    public = [f"{name} {SOURCES[name].licence}" for name in counts if name in SOURCES]
    own = [f"{name} your own terms" for name in counts if name not in SOURCES]
    return tags | {LICENCE: f"of the ECGs: {', '.join([*public, *own])}; cite them (ecg sources)"}


def reference_tags(reference: Product) -> dict[str, str]:
    """Return the same tags of an imported encoder."""
    if reference.name == REFERENCE_CPC.product:
        return {TRAINED_ON: "not known: its authors published no list of records", LICENCE: "its authors show none"}
    published = ReferenceFacts.of(reference).published is not None
    saw = f"{' and '.join(sorted(REFERENCE_SAW))}, by its author" if published else "not known: an imported file"
    return {TRAINED_ON: saw, LICENCE: "its author's terms; this project does not state them"}


def reference_source(reference: Product) -> dict[str, Any]:
    """Return which file an imported encoder is of, and what is known of it."""
    wanted = ("file", "sha256", "published", "epoch")
    return {name: reference.facts[name] for name in wanted if reference.facts.get(name) is not None}


def corpus_data(workspace: Workspace, encoder: Product) -> list[UsedData]:
    """Return the corpus that an encoder was pretrained on; none if it is not known."""
    digest = EncoderFacts.of(encoder).corpus_digest
    corpus = corpus_of(workspace, digest)
    if digest is None or corpus is None:
        return []
    facts = CorpusFacts.of(corpus)
    counts = {"num_rows": facts.train + facts.validation, "train": facts.train, "validation": facts.validation}
    profile = {**counts, "patients": facts.patients, "ECGs by source": facts.by_source}
    return [UsedData(name="corpus", digest=digest, context=TRAINING, profile=profile)]


def test_data(workspace: Workspace, encoder_names: EncoderNames) -> list[UsedData]:
    """Return the labelled ECGs of each task that an encoder was scored on."""
    data = []
    for task in TASKS.values():
        product = workspace.require(f"probe/{task.name}/{encoder_names.probe}")
        scores = load_scores(product.path)
        if scores is not None:
            facts = ProbeFacts.of(product)
            profile = {"num_rows": scores.test.records, "patients": scores.test.patients, "source": task.source}
            profile |= {"title": task.title, "labels scored": scores.test.labels, "ECGs by split": facts.counts}
            data.append(UsedData(name=task.name, digest=facts.data_digest, context=TEST, profile=profile))
    return data


def label_counts(workspace: Workspace, encoder_names: EncoderNames) -> dict[str, float]:
    """Return over how many labels each scored task's figures are, as metrics."""
    metrics: dict[str, float] = {}
    for task in TASKS:
        scores = load_scores(workspace.require(f"probe/{task}/{encoder_names.probe}").path)
        if scores is not None:
            metrics[f"{task}/labels"] = len(scores.test.classes) + len(scores.test.omitted)
            metrics[f"{task}/test_labels_scored"] = len(scores.test.classes)
            if scores.validation is not None:
                metrics[f"{task}/validation_labels_scored"] = len(scores.validation.classes)
    return metrics
