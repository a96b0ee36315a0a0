"""Run a plan: train what is missing, probe it, and fit the curves.

    scaling/corpus/<percent>-seed-<seed>          a share of the corpus (`pipelines.corpus.subset`)
    scaling/encoder/<curve>-...-seed-<seed>       an encoder on it, as the product `encoder`
    probe/<evaluation>/scaling-<curve>-...        its probes, also with few labels
    scaling/curves/<evaluation>-<fixed>           scaling.json, and aside/scaling.png

Each is a product, so a plan that was stopped goes on where it was; two plans share what they have in common. The whole
share of a recipe that was pretrained already is the product `encoder`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import versions
from pipelines.cache import ASIDE, Product, Workspace
from pipelines.corpus.step import CorpusFacts
from pipelines.corpus.subset import find_subset, materialize_subset
from pipelines.durable import write_atomically
from pipelines.encoders.names import OURS, SCALING_ENCODERS
from pipelines.evaluate.features import EncoderSource, OnProgress
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.scaling.config import ScalingConfig
from pipelines.evaluate.scaling.cost import run_flops
from pipelines.evaluate.scaling.facts import Curve, Point, ScalingFacts
from pipelines.evaluate.scaling.fit import Floats, drawn_seeds, power_law
from pipelines.evaluate.scaling.plan import Plan, Run, by_curve, planned
from pipelines.evaluate.statistics.bootstrap import Interval, interval
from pipelines.evaluate.suite.names import Evaluation
from pipelines.evaluate.suite.run import materialize_evaluation, resampled_test_auc
from pipelines.pretrain.step import EncoderFacts, made_of, materialize_encoder
from pipelines.program import Launch

CURVES = "scaling/curves"
JSON_FILE, PICTURE_FILE = "scaling.json", f"{ASIDE}/scaling.png"

Told = Callable[[int, int, str], None]
"""Called before each training with the trainings done, those in all, and which one begins."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A run that was trained and probed."""

    run: Run
    encoder: Product
    probe: Product
    few_labels: Mapping[int, Product]
    """Probes with few labels, by percentage."""


@dataclass(frozen=True, kw_only=True)
class _Judging:
    """How encoders are judged."""

    workspace: Workspace
    plan: Plan
    config: ProbeConfig
    progress: OnProgress | None
    launch: Launch | None

    def probe(self, source: EncoderSource, by: Evaluation) -> Product:
        return materialize_evaluation(self.workspace, by, source, self.config, self.progress, self.launch)


def materialize_scaling(
    workspace: Workspace,
    config: ScalingConfig,
    launch: Launch,
    *,
    probe: ProbeConfig | None = None,
    told: Told = lambda done, total, run: None,
    progress: OnProgress | None = None,
    fine_tuning: Launch | None = None,
    **way: Any,
) -> Product:
    """Build the curves of the settings on the current corpus, with what they are made of. Facts: `ScalingFacts`.

    launch, way: of each pretraining, as `materialize_encoder` takes them.
    progress, fine_tuning: of each probe, as `materialize_evaluation` takes them.
    Raises ValueError as `planned` does, before anything is trained.
    """
    plan = planned(workspace, config)
    judging = _Judging(
        workspace=workspace, plan=plan, config=probe or ProbeConfig(), progress=progress, launch=fine_tuning
    )
    done: list[_Done] = []
    for run in plan.runs:
        told(len(done), len(plan.runs), run.in_words())
        done.append(_run(judging, run, launch, way))
    told(len(done), len(plan.runs), "the curves")
    untrained = {curve: _untrained(judging, runs[0], done) for curve, runs in by_curve(plan.runs).items()}
    return _curves(judging, done, untrained)


def scaling_products(workspace: Workspace) -> list[Product]:
    """Return the current curves of every evaluation."""
    return list(workspace.listed(f"{CURVES}/*").values())


def trained_before(workspace: Workspace, plan: Plan, run: Run) -> bool:
    """Whether a run's encoder is here, by a plan or as the product `encoder`. Builds nothing."""
    corpus = find_subset(workspace, plan.corpus, run.subset)
    return corpus is not None and _found_encoder(workspace, run, corpus) is not None


def _found_encoder(workspace: Workspace, run: Run, corpus: Product) -> Product | None:
    names = (OURS.product, f"{SCALING_ENCODERS}/{run.name}")
    found = (workspace.find(name, **made_of(run.recipe, corpus)) for name in names)
    return next((encoder for encoder in found if encoder is not None), None)


def _run(judging: _Judging, run: Run, launch: Launch, way: Mapping[str, Any]) -> _Done:
    """Train and probe one run, as far as that was not done before."""
    workspace, plan = judging.workspace, judging.plan
    corpus = materialize_subset(workspace, plan.corpus, run.subset)
    encoder = _found_encoder(workspace, run, corpus) or materialize_encoder(
        workspace, run.recipe, launch, product=f"{SCALING_ENCODERS}/{run.name}", corpus=corpus, **way
    )
    if encoder.name != OURS.product:
        workspace.make_current(encoder)
    source = EncoderSource.of_product(f"scaling-{run.name}", encoder)
    return _Done(
        run=run,
        encoder=encoder,
        probe=judging.probe(source, plan.evaluation),
        few_labels={percentage: judging.probe(source, by) for percentage, by in plan.few_labels.items()},
    )


def _untrained(judging: _Judging, run: Run, done: Sequence[_Done]) -> Product:
    """Probe the network of a curve's first run with its initial weights."""
    encoder = next(one.encoder for one in done if one.run == run)
    network = EncoderSource.of_product(run.curve, encoder).config
    source = EncoderSource.random(f"scaling-{run.curve}-untrained", network, run.subset.seed)
    return judging.probe(source, judging.plan.evaluation)


def _curves(judging: _Judging, done: Sequence[_Done], untrained: Mapping[str, Product]) -> Product:
    workspace, plan = judging.workspace, judging.plan
    inputs = {f"untrained {curve}": probe.digest for curve, probe in untrained.items()}
    for one in done:
        inputs |= {f"encoder {one.run.name}": one.encoder.digest, f"probe {one.run.name}": one.probe.digest}
        inputs |= {f"probe {one.run.name}, {p} %": probe.digest for p, probe in one.few_labels.items()}

    def make(folder: Path) -> dict[str, Any]:
        from pipelines.evaluate.scaling.picture import scaling_picture  # matplotlib is imported if it is not cached

        facts = _facts(judging, done, untrained)
        write_atomically(folder / JSON_FILE, json.dumps(facts.to_dict(), indent=1, allow_nan=False).encode())
        (folder / ASIDE).mkdir(exist_ok=True)
        write_atomically(folder / PICTURE_FILE, scaling_picture(facts))
        return facts.to_dict()

    return workspace.build(
        f"{CURVES}/{plan.evaluation.name}-{plan.config.fixed}",
        version=versions.SCALING,
        config={
            "evaluation": plan.evaluation.name,
            "fixed": plan.config.fixed,
            "runs": {run.name: run.recipe.digest for run in plan.runs},
        },
        inputs={"corpus": plan.corpus.digest, **inputs},
        make=make,
    )


def _facts(judging: _Judging, done: Sequence[_Done], untrained: Mapping[str, Product]) -> ScalingFacts:
    plan, corpus = judging.plan, CorpusFacts.of(judging.plan.corpus)
    return ScalingFacts(
        evaluation=plan.evaluation.name,
        title=plan.evaluation.task.title,
        fixed=plan.config.fixed,
        corpus_digest=corpus.digest,
        records=corpus.train,
        seeds=plan.config.seeds,
        confidence=judging.config.confidence,
        curves=tuple(
            _curve(judging, curve, [one for one in done if one.run.curve == curve], untrained[curve])
            for curve in by_curve(plan.runs)
        ),
    )


def _curve(judging: _Judging, name: str, done: Sequence[_Done], untrained: Product) -> Curve:
    """Return a curve with its law; its points and its law are of the same resamples of patients and seeds."""
    config = judging.config
    by_share: dict[float, list[_Done]] = {}
    for one in done:
        by_share.setdefault(one.run.subset.share, []).append(one)
    weight_RS = drawn_seeds(len(judging.plan.config.seeds), resamples=config.resamples, seed=config.seed)
    points, errors, sizes = [], [], []
    for share, of_share in by_share.items():
        scored = _Scored.of(judging, [one.probe for one in of_share], weight_RS)
        points.append(_point(judging, share, of_share, scored, weight_RS))
        if scored is not None:
            errors.append(np.r_[1 - scored.value, 1 - scored.resampled_R])
            sizes.append(points[-1].records)
    defined_RK = np.stack(errors, axis=1) if errors else np.empty((1, 0))
    defined_RK = defined_RK[np.isfinite(defined_RK).all(axis=1)]
    law, why = power_law(np.array(sizes), defined_RK[0], defined_RK[1:], confidence=config.confidence)
    return Curve(
        name=name,
        weights=EncoderFacts.of(done[0].encoder).parameters.get("encoder", 0),
        points=tuple(points),
        untrained=ProbeFacts.of(untrained).test_macro_auc,
        law=law,
        why=why,
    )


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """The test macro AUC of a share, as the mean over seeds."""

    by_seed: tuple[float, ...]
    resampled_R: Floats
    """NaN where it is not defined."""

    @property
    def value(self) -> float:
        return float(np.mean(self.by_seed))

    def interval(self, confidence: float) -> Interval:
        return interval(self.value, np.ma.masked_invalid(self.resampled_R), confidence)

    @classmethod
    def of(cls, judging: _Judging, probes: Sequence[Product], weight_RS: Floats) -> _Scored | None:
        """Return the scores of one probe a seed, or None if one of them was not scored."""
        aucs = [ProbeFacts.of(probe).test_macro_auc for probe in probes]
        if any(auc is None for auc in aucs):
            return None
        resampled_SR = [resampled_test_auc(judging.workspace, probe, judging.config) for probe in probes]
        resampled_RS = np.stack([np.ma.filled(auc_R, np.nan) for auc_R in resampled_SR], axis=1)
        return cls(
            by_seed=tuple(auc.value for auc in aucs if auc is not None),
            resampled_R=(weight_RS * resampled_RS).sum(axis=1),
        )


def _point(judging: _Judging, share: float, done: Sequence[_Done], scored: _Scored | None, weight_RS: Floats) -> Point:
    few_labels = {}
    for percentage in judging.plan.few_labels:
        few = _Scored.of(judging, [one.few_labels[percentage] for one in done], weight_RS)
        if few is not None:
            few_labels[str(percentage)] = few.interval(judging.config.confidence)
    runs = [one.run for one in done]
    return Point(
        share=share,
        records=float(np.mean([run.subset.records for run in runs])),
        patients=float(np.mean([run.subset.patients for run in runs])),
        steps=float(np.mean([run.steps for run in runs])),
        flops=float(np.mean([run_flops(run) for run in runs])),
        auc=None if scored is None else scored.interval(judging.config.confidence),
        by_seed=() if scored is None else scored.by_seed,
        few_labels=few_labels,
        reason=next((reason for one in done if (reason := ProbeFacts.of(one.probe).reason) is not None), None),
    )
