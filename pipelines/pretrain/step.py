"""The pretrained encoder as a product: built once for each recipe and corpus, in a separate process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import versions
from pipelines.cache import Product, Workspace, in_use
from pipelines.corpus.split import LEAST_VALIDATION
from pipelines.corpus.step import CorpusFacts
from pipelines.facts import Facts
from pipelines.pretrain.recipes import Recipe
from pipelines.program import Launch

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

METRICS_FILE = "aside/metrics.jsonl"
TIMING_FILE = "aside/timing.json"
CHECKPOINTS = "aside/checkpoints"
SUMMARY_FILE = "summary.json"
SUMS_FILE = "aside/sha256sums"
"""The sha256 of each file that a training has ended with, in the form of `sha256sum`."""
EXPERIMENT = "pretrain"

MORE = "harmonize more ECGs, of more patients, or raise the corpus's validation_share"


@dataclass(frozen=True, kw_only=True)
class EncoderFacts(Facts):
    """Summary of a pretraining: summary.json, and the facts of the products `encoder` and others like it.

    All fields have defaults, so that the facts of an encoder that was not pretrained here can be read, too.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)  # `Recipe.to_dict`; empty if not known
    recipe_digest: str = ""  # `Recipe.digest`
    corpus_digest: str | None = None  # of the corpus it was trained on; None if not known
    records: int = 0  # training ECGs
    validation_records: int = 0  # ECGs of the validation split
    parameters: Mapping[str, int] = field(default_factory=dict)  # weights of `encoder` and of `predictor`
    steps: int | None = None  # updates done; None if not known
    samples: int = 0  # ECGs drawn in all steps, repetitions counted
    first: Mapping[str, float] = field(default_factory=dict)  # figures of the first metrics line
    last: Mapping[str, float] = field(default_factory=dict)  # figures of the last metrics line
    best: Mapping[str, float] | None = None  # step and figures of the best online probe; None without probe

    @property
    def seed(self) -> int:
        """The seed of the initial weights, 0 if not known."""
        return self.recipe.get("seed", 0)

    @property
    def warm_start(self) -> str | None:
        """The sha256 of the encoder file that training began with; None if it began with random weights."""
        return self.recipe.get("warm_start")


def materialize_encoder(
    workspace: Workspace,
    recipe: Recipe,
    launch: Launch,
    *,
    product: str = "encoder",
    corpus: Product | None = None,
    device: str = "auto",
    processes: int = 1,
    accumulate: int = 1,
    recompute: bool = False,
    warm_start: Path | None = None,
    track: str | None = None,
    artifact_root: Path | None = None,
) -> Product:
    """Build the product `encoder`: encoder.safetensors and summary.json, with metrics aside. Facts: `EncoderFacts`.

    launch: runs a command of `python -m pipelines.pretrain`; if it is killed, the next call resumes from its last
        checkpoint.
    product: the product's name, such as `encoder` or `dense_encoder`.
    corpus: what to train on; None: the current corpus.
    processes: on this machine, which share each batch.
    accumulate: parts in which each process computes its share.
    recompute: as in `train.RunConfig`.
    warm_start: the encoder file whose sha256 the recipe names.
    track, artifact_root: the MLflow store to which metrics are mirrored.
    """
    if processes < 1:
        raise ValueError(f"processes={processes}: use at least 1")
    ecgs = workspace.require("corpus") if corpus is None else corpus

    def trained(work: Path) -> None:
        require_judgeable(CorpusFacts.of(ecgs))
        options: dict[str, object] = {"workspace": workspace.root, "corpus": ecgs.path, "out": work}
        options |= {"warm-start": warm_start, "device": device, "accumulate": accumulate}
        options |= {"track": track, "artifact-root": artifact_root}
        launch(_command(recipe, options, processes=processes, recompute=recompute))

    encoder = build_encoder(workspace, recipe, ecgs, trained, product=product)
    if track is not None:
        from pipelines.tracking import Tracking  # imports mlflow, which pretraining itself does not need

        send_metrics(encoder, Tracking(uri=track, artifact_root=artifact_root))
    return encoder


def build_encoder(
    workspace: Workspace, recipe: Recipe, corpus: Product, fill: Callable[[Path], None], *, product: str = "encoder"
) -> Product:
    """Build the encoder of a recipe and a corpus. fill: leaves the files of a finished training in a folder."""

    def make(work: Path) -> dict[str, Any]:
        fill(work)
        return json.loads((work / SUMMARY_FILE).read_text())

    with in_use([corpus.path]):  # also while another training is waited for
        return workspace.build(product, **made_of(recipe, corpus), make=make, resumable=True)


def made_of(recipe: Recipe, corpus: Product) -> dict[str, Any]:
    """Return what the fingerprint of an encoder is made of: version, config and inputs."""
    return {"version": versions.ENCODER, "config": recipe.to_dict(), "inputs": {"corpus": corpus.digest}}


def require_judgeable(corpus: CorpusFacts) -> None:
    """Raise ValueError if a corpus has too few validation ECGs to tell whether an encoder has collapsed."""
    if corpus.validation < LEAST_VALIDATION:
        raise ValueError(
            f"the corpus has {corpus.train} ECGs to train on and {corpus.validation} to validate on: at least "
            f"{LEAST_VALIDATION} are needed to tell whether the encoder learns: {MORE}"
        )


def _command(recipe: Recipe, options: Mapping[str, object], *, processes: int, recompute: bool) -> list[str]:
    """Return the command of a pretraining, under torchrun if it has several processes. Options of None are left out."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "pipelines.pretrain.torchrun", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "pipelines.pretrain"]
    if recompute:
        command += ["--recompute"]
    for name, value in options.items():
        command += [] if value is None else [f"--{name}", str(value)]
    return [*command, "--recipe-json", json.dumps(recipe.to_dict(), sort_keys=True)]


def send_metrics(encoder: Product, tracking: Tracking) -> None:
    """Mirror the metrics that MLflow lacks, and end the training's run. The server may have been away at its end."""
    from pipelines.tracking import arrived

    if not arrived(encoder.path / METRICS_FILE):
        with mirror(encoder.path, EncoderFacts.of(encoder), replace(tracking, experiment=EXPERIMENT)):
            pass


def mirror(out: Path, facts: EncoderFacts, tracking: Tracking) -> AbstractContextManager[object]:
    """Mirror the metrics in a training's folder to MLflow while the body runs.

    facts: recipe and digests are enough, as they are known before the training.
    """
    from pipelines.tracking import mirror_metrics

    assert facts.corpus_digest is not None
    return mirror_metrics(
        out / METRICS_FILE,
        tracking=tracking,
        run_name=facts.recipe["name"],
        tags={"recipe_digest": facts.recipe_digest, "corpus_digest": facts.corpus_digest},
        params=facts.recipe,
    )
