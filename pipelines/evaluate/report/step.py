"""The products `report` and `comparison`: an HTML page, and JSON with the same numbers.

    report/.../report.html           self-contained: no scripts, no links to other files
    report/.../report.json           the contents of the page
    comparison/.../comparison.html   two encoders on the same ECGs
    comparison/.../comparison.json   the contents of that page

Everything is read from finished products: probes of our encoder, of its random baseline, and of what else was probed on
the same ECGs with the same protocol (handcrafted features, the author's released encoder); and evaluations of waves.
This module alone knows both sides: the modules that compute the report, and the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecg_model.encoder_file import stored_config
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import CorpusFacts, corpus_of
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE, OURS, RELEASED
from pipelines.encoders.words import input_in_words, method_in_words
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import EncoderSource, FeatureConfig, materialize_features
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_roc
from pipelines.evaluate.probes.stored import Probe, probed
from pipelines.evaluate.report.compare import compare_results
from pipelines.evaluate.report.model import (
    HANDCRAFTED_BASELINE,
    TITLES,
    EncoderComparison,
    EvaluationReport,
    Pretraining,
    Rocs,
    TaskComparison,
)
from pipelines.evaluate.report.suite import suite_folders, suite_products, suite_tables
from pipelines.evaluate.report.tasks import task_report
from pipelines.evaluate.report.verdict import judge
from pipelines.evaluate.report.waves import (
    WaveProducts,
    inputs_of,
    picture_of,
    shown_segmentation,
    wave_products,
    wave_reports,
)
from pipelines.evaluate.scaling.facts import ScalingFacts
from pipelines.evaluate.scaling.step import PICTURE_FILE, scaling_products
from pipelines.evaluate.waves.run import overlap_of_waves
from pipelines.facts import Facts
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.pretrain.step import EncoderFacts
from pipelines.tasks.catalogue import SUITE_TASKS

PRODUCT = "report"
HTML_FILE, JSON_FILE = "report.html", "report.json"


@dataclass(frozen=True, kw_only=True)
class ReportFacts(Facts):
    """What a report says in short."""

    encoder_digest: str
    """Of the encoder's file."""
    headline: str
    sentences: tuple[str, ...]
    """One for each task."""


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The products that a report is made from."""

    encoder: Product
    probes: dict[str, dict[str, Product]]  # by task and name
    features: dict[str, dict[str, Product]]  # of our encoder, by source and partition
    suite: dict[str, dict[str, Product]]  # by evaluation and name
    waves: dict[str, WaveProducts]  # by task
    scaling: list[Product]

    def digests(self) -> dict[str, str]:
        """Return every product's digest by its name, and the digests of pictures."""
        kinds = (self.probes, self.features, self.suite)
        products = [product for kind in kinds for named in kind.values() for product in named.values()]
        return {product.name: product.digest for product in (*products, *self.scaling)} | inputs_of(self.waves)


def materialize_report(workspace: Workspace, *, simulated: bool) -> Product:
    """Build the product `report` on the current encoder. Facts: `ReportFacts`.

    Raises ValueError if there is no encoder, or no probe of it.
    """
    encoder = workspace.require(OURS.product)
    source = EncoderSource.of_product(OURS.probe, encoder)
    products = _probes(workspace, source)
    inputs = _Inputs(
        encoder=encoder,
        probes=products,
        features=_features(workspace, source, products),
        suite=suite_products(workspace, source.digest, OURS.probe, (OURS.random_baseline, HANDCRAFTED_BASELINE)),
        waves=wave_products(workspace, source.digest, OURS.probe, OURS.random_baseline),
        scaling=scaling_products(workspace),
    )
    probes = {task: {name: Probe.load(one.path) for name, one in named.items()} for task, named in products.items()}
    overlaps = Overlaps(workspace)

    def make(folder: Path) -> dict[str, Any]:
        report = replace(
            summarise(workspace, probes, encoder, overlaps, simulated=simulated),
            suite=suite_tables(workspace, inputs.suite, overlaps),
            waves=wave_reports(inputs.waves, TITLES),
            waves_seen={task: overlap_of_waves(overlaps, waves.all()[0]) for task, waves in inputs.waves.items()},
            scaling=tuple(ScalingFacts.of(product) for product in inputs.scaling),
        )
        page = _page(workspace, report, inputs, probes)
        write_atomically(folder / JSON_FILE, json.dumps(report.to_dict(), indent=1, allow_nan=False).encode())
        write_atomically(folder / HTML_FILE, page.encode())
        verdict = report.verdict
        facts = ReportFacts(encoder_digest=source.digest, headline=verdict.headline, sentences=verdict.sentences)
        return facts.to_dict()

    return workspace.build(
        PRODUCT,
        version=versions.REPORT,
        config={"simulated": simulated},
        inputs={"encoder": encoder.digest, **inputs.digests(), "seen": _known(overlaps, probes)},
        make=make,
    )


def _page(
    workspace: Workspace, report: EvaluationReport, inputs: _Inputs, probes: Mapping[str, Mapping[str, Probe]]
) -> str:
    """Read the curves, maps and pictures of a report, and render its page."""
    # matplotlib and Jinja2 are imported only if the report is not cached.
    from pipelines.evaluate.report.page import report_page
    from pipelines.evaluate.report.views import embedding_maps, sampled_predictions

    ours = {task: named[OURS.probe].result for task, named in probes.items()}
    examples = {}
    for task, waves in inputs.waves.items():
        shown = shown_segmentation(waves)
        picture = None if shown is None else picture_of(shown[1])
        if picture is not None:
            examples[task] = picture
    return report_page(
        report,
        rocs=_rocs(workspace, report, inputs),
        maps=embedding_maps(workspace, inputs.features, {task.name: task.source for task in report.tasks}, ours),
        samples=sampled_predictions(workspace, report.tasks, ours),
        examples=examples,
        scaling=[(product.path / PICTURE_FILE).read_bytes() for product in inputs.scaling],
    )


def _rocs(workspace: Workspace, report: EvaluationReport, inputs: _Inputs) -> dict[str, dict[str, Rocs]]:
    """Read the ROC curves of every probe on the page, by task or part and by name."""
    folders = suite_folders(workspace, inputs.suite) | {
        task: {name: product.path for name, product in named.items()} for task, named in inputs.probes.items()
    }
    parts = [part for table in report.suite for row in table.rows for part in row.parts]
    return {
        task.name: {probed.name: load_roc(folders[task.name][probed.name]) for probed in task.probes}
        for task in (*report.tasks, *parts)
    }


def summarise(
    workspace: Workspace,
    probes: Mapping[str, Mapping[str, Probe]],
    encoder: Product,
    overlaps: Overlaps,
    *,
    simulated: bool,
) -> EvaluationReport:
    """Report on probes, without the suite and the waves.

    probes: by task and name, among them ours of this encoder for each task.
    simulated: whether the ECGs are simulated.
    """
    differences = _differences(probes)
    tasks = tuple(task_report(task, named, overlaps, differences.get(task, {})) for task, named in probes.items())
    ours = next(iter(probes.values()))[OURS.probe]
    corpus = corpus_of(workspace, EncoderFacts.of(encoder).corpus_digest)
    precisions = {probe.about["precision"] for named in probes.values() for probe in named.values()}
    pretraining = _pretraining(encoder, ours.about["encoder"]["digest"], corpus)
    return EvaluationReport(
        simulated=simulated,
        verdict=judge(tasks, simulated=simulated, recipe=pretraining.recipe),
        pretraining=pretraining,
        tasks=tasks,
        precision=", ".join(sorted(precisions)),
        inputs=_inputs_in_words(workspace, probes, encoder),
    )


def _known(overlaps: Overlaps, probes: Mapping[str, Mapping[str, Probe]]) -> str:
    """Return a digest of what is known here of the encoders' pretraining data."""
    encoders = [probe.about["encoder"] for named in probes.values() for probe in named.values()]
    return digest_of({one["name"]: overlaps.known(one["name"], one["digest"]).to_dict() for one in encoders})


def _probes(workspace: Workspace, encoder: EncoderSource) -> dict[str, dict[str, Product]]:
    """Return the current probes by task and name: ours of this encoder first, the others in the order of the page.

    Left out are tasks that this encoder was not probed on, tasks that are no longer in the suite, and probes of
    `ecg compare` and of the gate. Raises ValueError if no probe of the encoder is left, or one is of other ECGs.
    """
    current: dict[str, dict[str, Product]] = {}
    for path, product in workspace.listed("probe/*/*").items():
        _, task, name = path.split("/")
        if task in SUITE_TASKS and name in TITLES:
            current.setdefault(task, {})[name] = product
    order, tasks = list(TITLES), list(SUITE_TASKS)
    ours = {
        task: {name: named[name] for name in sorted(named, key=order.index)}
        for task, named in sorted(current.items(), key=lambda item: tasks.index(item[0]))
        if OURS.probe in named and probed(named[OURS.probe].path)["encoder"]["digest"] == encoder.digest
    }
    if not ours:
        raise ValueError("no probe of the current encoder: materialize probe/<task> first")
    for task, named in ours.items():
        about = probed(named[OURS.probe].path)
        shards = {product.name: product.digest for product in shards_of(workspace, about["task"]["source"]).values()}
        if about["ecgs"] != shards:
            raise ValueError(f"probe/{task} is of other ECGs than are here now: materialize it again")
    return ours


def _features(
    workspace: Workspace, encoder: EncoderSource, probes: Mapping[str, Mapping[str, Product]]
) -> dict[str, dict[str, Product]]:
    """Return the features that our probes were fitted on, by source and partition; they are cached."""
    features: dict[str, dict[str, Product]] = {}
    for named in probes.values():
        about = probed(named[OURS.probe].path)
        config = FeatureConfig(precision=about["precision"])
        source = about["task"]["source"]
        if source not in features and shards_of(workspace, source):
            features[source] = materialize_features(workspace, encoder, source, config)
    return features


def _pretraining(encoder: Product, digest: str, corpus: Product | None) -> Pretraining:
    counts, folds, facts = None, (), EncoderFacts.of(encoder)
    if corpus is not None:
        counts = CorpusFacts.of(corpus).by_source
        folds = CorpusIndex(corpus.path).unlabelled_folds
    return Pretraining(
        recipe=facts.recipe.get("name", "not known"),
        digest=digest,
        steps=facts.steps,
        ecgs=counts,
        unlabelled_folds=folds,
        window=EncoderSource.of_product(OURS.probe, encoder).window,
        method=method_in_words(facts.recipe),
        corpus=facts.corpus_digest,
    )


def _inputs_in_words(
    workspace: Workspace, probes: Mapping[str, Mapping[str, Probe]], encoder: Product
) -> dict[str, str]:
    """Return what our encoder and the imported ones read, by their titles; of these, those among the probes."""
    encoders = {OURS.probe: encoder}
    for names in RELEASED:
        imported = workspace.current(names.product)
        if imported is not None and any(names.probe in named for named in probes.values()):
            encoders[names.probe] = imported
    return {TITLES[name]: input_in_words(stored_config(one.path / ENCODER_FILE)) for name, one in encoders.items()}


def _differences(probes: Mapping[str, Mapping[str, Probe]]) -> dict[str, dict[str, TaskComparison]]:
    """Return ours minus each other, by task and the other's name; p is adjusted over the tasks, for each other."""
    differences: dict[str, dict[str, TaskComparison]] = {}
    for other in TITLES:
        pairs_of_probes = {
            task: (named[OURS.probe], named[other])
            for task, named in probes.items()
            if other != OURS.probe and other in named and named[OURS.probe].comparable(named[other])
        }
        pairs = [(first.about["title"], first.result, second.result) for first, second in pairs_of_probes.values()]
        for task, comparison in zip(pairs_of_probes, compare_results(pairs, ProbeConfig()), strict=True):
            differences.setdefault(task, {})[other] = comparison
    return differences


COMPARISON = "comparison"
COMPARISON_HTML, COMPARISON_JSON = "comparison.html", "comparison.json"


@dataclass(frozen=True, kw_only=True)
class ComparisonFacts(Facts):
    """What a comparison says in short."""

    headline: str


def materialize_comparison(workspace: Workspace, comparison: EncoderComparison) -> Product:
    """Build the product `comparison`: comparison.html, and comparison.json with the same numbers."""
    values = comparison.to_dict()

    def make(folder: Path) -> dict[str, Any]:
        from pipelines.evaluate.report.page import comparison_page  # Jinja2 is imported only if it is not cached

        write_atomically(folder / COMPARISON_JSON, json.dumps(values, indent=1, allow_nan=False).encode())
        write_atomically(folder / COMPARISON_HTML, comparison_page(comparison).encode())
        return ComparisonFacts(headline=comparison.in_words()).to_dict()

    return workspace.build(
        COMPARISON, version=versions.REPORT, config={}, inputs={"comparison": digest_of(values)}, make=make
    )
