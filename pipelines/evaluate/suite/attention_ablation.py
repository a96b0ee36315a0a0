"""CroPA against dense attention: our encoder beside one that is pretrained alike, but for its attention.

    dense_encoder           as `encoder`, by its recipe, on its corpus, from its seed; `jepa.encoder.attention` is dense
    dense/<evaluation>      difference.json: test macro AUC with CroPA minus that with dense attention

`<evaluation>` is any name of the suite (`suite.evaluation`), asked of both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
from pipelines.corpus.step import CorpusFacts
from pipelines.encoders.names import DENSE_ENCODER, OURS
from pipelines.evaluate.features import EncoderSource, OnProgress
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.suite.names import DENSE, Evaluation
from pipelines.evaluate.suite.run import EvaluationRow, evaluation_rows, materialize_evaluation
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import EncoderFacts, Launch, materialize_encoder

DIFFERENCE_FILE = "difference.json"


@dataclass(frozen=True, kw_only=True)
class AgainstDense:
    """product: `dense/<evaluation>`. standings: our encoder's, and the dense one's with how far ours is ahead."""

    product: Product
    standings: list[EvaluationRow]


def materialize_dense(workspace: Workspace, launch: Launch, **way: Any) -> Product:
    """The product `dense_encoder`, the random baseline of the current encoder. launch, way: as `materialize_encoder`
    takes them.

    Raises ValueError where the encoder has dense attention itself, was trained on another corpus than is here now, or
    did not begin with random weights.
    """
    encoder, corpus = workspace.require(OURS.product), workspace.require("corpus")
    facts = EncoderFacts.of(encoder)
    if facts.corpus_digest != CorpusFacts.of(corpus).digest:
        raise ValueError(
            f"the encoder in {encoder.path} was not pretrained on the current corpus, so a dense one would have seen "
            "other ECGs: materialize encoder first"
        )
    recipe = Recipe.from_dict(facts.recipe)
    if recipe.jepa.encoder.attention == "dense":
        raise ValueError("jepa.encoder.attention='dense' of the encoder: pretrain one with 'cropa' to compare with it")
    if recipe.warm_start is not None:
        raise ValueError(
            f"warm_start={recipe.warm_start!r} of the encoder: a dense one would begin with weights that were trained "
            "with CroPA; pretrain an encoder from random weights to compare with it"
        )
    network = replace(recipe.jepa.encoder, attention="dense")
    dense = replace(recipe, jepa=replace(recipe.jepa, encoder=network))
    return materialize_encoder(workspace, dense, launch, product=DENSE_ENCODER, **way)


def against_dense(
    workspace: Workspace,
    asked: Evaluation,
    dense: Product,
    config: ProbeConfig | None = None,
    progress: OnProgress | None = None,
) -> AgainstDense:
    """Our encoder and the dense one, as `materialize_dense` gave it, in an evaluation of the suite."""
    config = config or ProbeConfig()
    sources = (
        EncoderSource.of_product(OURS.probe, workspace.require(OURS.product)),
        EncoderSource.of_product(DENSE, dense),
    )
    ours, other = (materialize_evaluation(workspace, asked, source, config, progress) for source in sources)
    standings = evaluation_rows(workspace, (ours, other), config)
    ahead = standings[1].ahead

    def make(folder: Path) -> dict[str, Any]:
        facts = {
            "reason": ours.facts["reason"] or other.facts["reason"],
            "cropa": ours.facts.get("test_macro_auc"),
            "dense": other.facts.get("test_macro_auc"),
            "cropa_minus_dense": None if ahead is None else asdict(ahead),
        }
        write_atomically(folder / DIFFERENCE_FILE, json.dumps(facts, indent=1, allow_nan=False).encode())
        return facts

    product = workspace.build(
        f"{DENSE}/{asked.name}",
        version=versions.PROBE,
        config=asdict(config),
        inputs={"cropa": ours.digest, "dense": other.digest},
        make=make,
    )
    return AgainstDense(product=product, standings=standings)
