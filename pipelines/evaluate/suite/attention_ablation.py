"""CroPA against dense attention: our encoder, and one that is pretrained alike but for its attention.

    dense_encoder           as `encoder`, by its recipe, on its corpus, from its seed; `jepa.encoder.attention` is dense
    dense/<evaluation>      difference.json: test macro AUC with CroPA minus that with dense attention

`<evaluation>` is any name of the suite (`names.evaluation`); both encoders are evaluated by it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ecg_model.config import EncoderConfig
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.step import CorpusFacts
from pipelines.durable import write_atomically
from pipelines.encoders.names import DENSE_ENCODER, OURS
from pipelines.evaluate.features import EncoderSource, OnProgress
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.suite.names import DENSE, Evaluation
from pipelines.evaluate.suite.run import EvaluationRow, evaluation_rows, materialize_evaluation
from pipelines.facts import Facts
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import EncoderFacts, materialize_encoder
from pipelines.program import Launch

DIFFERENCE_FILE = "difference.json"


@dataclass(frozen=True, kw_only=True)
class AgainstDense:
    """An evaluation of CroPA against dense attention."""

    product: Product
    """`dense/<evaluation>`."""
    rows: list[EvaluationRow]
    """Our encoder's, and the dense one's with our lead over it."""


@dataclass(frozen=True, kw_only=True)
class DenseFacts(Facts):
    """Facts of the products `dense/<evaluation>`."""

    reason: str | None
    """Why it was not scored; None if it was."""
    cropa: Interval | None
    """Test macro AUC with CroPA."""
    dense: Interval | None
    """Test macro AUC with dense attention."""
    cropa_minus_dense: PairedDifference | None


def materialize_dense(workspace: Workspace, launch: Launch, **way: Any) -> Product:
    """Build `dense_encoder`: the current encoder's recipe, with dense attention.

    launch, way: as `materialize_encoder` takes them.
    Raises ValueError if the encoder has dense attention itself, was trained on another corpus than the current one, or
    did not start from random weights.
    """
    encoder, corpus = workspace.require(OURS.product), workspace.require("corpus")
    facts = EncoderFacts.of(encoder)
    if facts.corpus_digest != CorpusFacts.of(corpus).digest:
        raise ValueError(
            f"the encoder in {encoder.path} was not pretrained on the current corpus, so a dense one would be trained "
            "on other ECGs: materialize encoder first"
        )
    recipe = Recipe.from_dict(facts.recipe)
    if recipe.jepa is None or not isinstance(recipe.jepa.encoder, EncoderConfig):
        raise ValueError(
            f"recipe {recipe.name!r} of the encoder: its network has no CroPA for a dense attention to replace; "
            "pretrain a JEPA on patches, such as the recipe small"
        )
    if recipe.jepa.encoder.attention == "dense":
        raise ValueError("jepa.encoder.attention='dense' of the encoder: pretrain one with 'cropa' to compare with it")
    if recipe.warm_start is not None:
        raise ValueError(
            f"warm_start={recipe.warm_start!r} of the encoder: a dense one would start from weights that were trained "
            "with CroPA; pretrain an encoder from random weights to compare with it"
        )
    network = replace(recipe.jepa.encoder, attention="dense")
    dense = replace(recipe, jepa=replace(recipe.jepa, encoder=network))
    return materialize_encoder(workspace, dense, launch, product=DENSE_ENCODER, **way)


def against_dense(
    workspace: Workspace,
    evaluation: Evaluation,
    dense: Product,
    config: ProbeConfig | None = None,
    progress: OnProgress | None = None,
    launch: Launch | None = None,
) -> AgainstDense:
    """Evaluate our encoder and the dense one, which `materialize_dense` built, and build `dense/<evaluation>`.

    launch: as in `materialize_probe`
    """
    config = config or ProbeConfig()
    sources = (
        EncoderSource.of_product(OURS.probe, workspace.require(OURS.product)),
        EncoderSource.of_product(DENSE, dense),
    )
    ours, other = (
        materialize_evaluation(workspace, evaluation, source, config, progress, launch) for source in sources
    )
    rows = evaluation_rows(workspace, (ours, other), config)
    cropa_facts, dense_facts = ProbeFacts.of(ours), ProbeFacts.of(other)

    def make(folder: Path) -> dict[str, Any]:
        facts = DenseFacts(
            reason=cropa_facts.reason or dense_facts.reason,
            cropa=cropa_facts.test_macro_auc,
            dense=dense_facts.test_macro_auc,
            cropa_minus_dense=rows[1].lead,
        ).to_dict()
        write_atomically(folder / DIFFERENCE_FILE, json.dumps(facts, indent=1, allow_nan=False).encode())
        return facts

    product = workspace.build(
        f"{DENSE}/{evaluation.name}",
        version=versions.PROBE,
        config=asdict(config),
        inputs={"cropa": ours.digest, "dense": other.digest},
        make=make,
    )
    return AgainstDense(product=product, rows=rows)
