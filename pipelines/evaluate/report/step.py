"""The products `report` and `comparison`: an HTML page for people, and JSON with the same numbers.

    report/.../report.html           self-contained: no script, nothing from elsewhere
    report/.../report.json           what the page says
    comparison/.../comparison.html   two encoders on the same ECGs
    comparison/.../comparison.json   what that page says

Everything is read from finished probes: of our encoder, of its random baseline, and of whatever else was probed on the
same ECGs with the same protocol (handcrafted features, the author's released encoder).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import CorpusFacts
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps, corpus_of
from pipelines.evaluate.features import EncoderSource, FeatureConfig, materialize_features
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import SCORES_FILE
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import compare_results
from pipelines.evaluate.report.model import (
    HANDCRAFTED_BASELINE,
    TITLES,
    EncoderComparison,
    EvaluationReport,
    Pretraining,
    TaskComparison,
)
from pipelines.evaluate.report.suite import suite_folders, suite_products, suite_tables
from pipelines.evaluate.report.tasks import task_report
from pipelines.evaluate.report.verdict import judge
from pipelines.evaluate.report.waves import inputs_of, picture_of, shown_of, wave_products, wave_reports
from pipelines.evaluate.waves.run import overlap_of_waves
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.tasks.catalogue import SUITE_TASKS

PRODUCT = "report"
HTML_FILE, JSON_FILE = "report.html", "report.json"


def materialize_report(workspace: Workspace, *, simulated: bool) -> Product:
    """The product `report` on the current encoder; its facts hold the verdict and the encoder's digest.

    Raises ValueError where there is no encoder, or no probe of it.
    """
    encoder = workspace.require(OURS.product)
    source = EncoderSource.of_product(OURS.probe, encoder)
    products = _probes(workspace, source)
    probes = {task: {name: Probe.load(one.path) for name, one in named.items()} for task, named in products.items()}
    overlaps = Overlaps(workspace)
    embedded = _features(workspace, source, products)
    suite = suite_products(workspace, source.digest, OURS.probe, (OURS.random_baseline, HANDCRAFTED_BASELINE))
    waves = wave_products(workspace, source.digest, OURS.probe, OURS.random_baseline)
    shown = [one for found in (products, embedded, suite) for named in found.values() for one in named.values()]
    inputs = {one.name: one.digest for one in shown} | inputs_of(waves) | {"seen": _known(overlaps, probes)}

    def make(folder: Path) -> dict[str, Any]:
        # matplotlib and Jinja2 are not needed to find a report that is there.
        from pipelines.evaluate.report.page import report_page
        from pipelines.evaluate.report.views import embedding_maps, sampled_predictions

        report = replace(
            summarise(workspace, probes, encoder, overlaps, simulated=simulated),
            suite=suite_tables(workspace, suite, overlaps),
            waves=wave_reports(waves, TITLES),
            waves_seen={task: overlap_of_waves(overlaps, found.all()[0]) for task, found in waves.items()},
        )
        ours = {task: found[OURS.probe].result for task, found in probes.items()}
        page = report_page(
            report,
            folders=suite_folders(workspace, suite)
            | {task: {name: one.path for name, one in found.items()} for task, found in products.items()},
            maps=embedding_maps(workspace, embedded, {task.name: task.source for task in report.tasks}, ours),
            samples=sampled_predictions(workspace, report.tasks, ours),
            examples={
                task: picture
                for task, found in waves.items()
                if (shown := shown_of(found)) is not None and (picture := picture_of(shown[1])) is not None
            },
        )
        write_atomically(folder / JSON_FILE, json.dumps(report.to_dict(), indent=1, allow_nan=False).encode())
        write_atomically(folder / HTML_FILE, page.encode())
        return {
            "encoder_digest": source.digest,
            "headline": report.verdict.headline,
            "sentences": list(report.verdict.sentences),
        }

    return workspace.build(
        PRODUCT,
        version=versions.REPORT,
        config={"simulated": simulated},
        inputs={"encoder": encoder.digest, **inputs},
        make=make,
    )


def summarise(
    workspace: Workspace,
    probes: Mapping[str, Mapping[str, Probe]],
    encoder: Product,
    overlaps: Overlaps,
    *,
    simulated: bool,
) -> EvaluationReport:
    """The report on probes by task and name, ours of that encoder among each task's."""
    differences = _differences(probes)
    tasks = tuple(task_report(task, found, overlaps, differences.get(task, {})) for task, found in probes.items())
    ours = next(iter(probes.values()))[OURS.probe]
    precisions = {probe.about["precision"] for found in probes.values() for probe in found.values()}
    return EvaluationReport(
        simulated=simulated,
        verdict=judge(tasks),
        pretraining=_pretraining(encoder, ours.about["encoder"]["digest"], corpus_of(workspace, encoder.facts)),
        tasks=tasks,
        precision=", ".join(sorted(precisions)),
    )


def _known(overlaps: Overlaps, probes: Mapping[str, Mapping[str, Probe]]) -> str:
    """A digest of what is known here of what the encoders saw."""
    encoders = [probe.about["encoder"] for found in probes.values() for probe in found.values()]
    return digest_of({one["name"]: overlaps.known(one["name"], one["digest"]).to_dict() for one in encoders})


def _probes(workspace: Workspace, encoder: EncoderSource) -> dict[str, dict[str, Product]]:
    """By task and name, the current probes: ours of this encoder first, then the others in their order on the page.

    A task that this encoder was not probed on is left out, or that is none any more, and so is what `ecg compare` or
    the gate probed.
    """
    found: dict[str, dict[str, Product]] = {}
    for pointer in sorted(workspace.folder("probe").glob("*/*/current")):
        task, name = pointer.parent.parent.name, pointer.parent.name
        product = workspace.current(f"probe/{task}/{name}")
        if task in SUITE_TASKS and name in TITLES and product is not None:
            found.setdefault(task, {})[name] = product
    order, tasks = list(TITLES), list(SUITE_TASKS)
    ours = {
        task: {name: named[name] for name in sorted(named, key=order.index)}
        for task, named in sorted(found.items(), key=lambda item: tasks.index(item[0]))
        if OURS.probe in named and _about(named[OURS.probe])["encoder"]["digest"] == encoder.digest
    }
    if not ours:
        raise ValueError("no probe of the current encoder: materialize probe/<task> first")
    for task, named in ours.items():
        about = _about(named[OURS.probe])
        here = {product.name: product.digest for product in shards_of(workspace, about["task"]["source"]).values()}
        if about["ecgs"] != here:
            raise ValueError(f"probe/{task} is of other ECGs than are here now: materialize it again")
    return ours


def _features(
    workspace: Workspace, encoder: EncoderSource, probes: Mapping[str, Mapping[str, Product]]
) -> dict[str, dict[str, Product]]:
    """The features that our probes were fitted on, by source: they are there, and are found."""
    found: dict[str, dict[str, Product]] = {}
    for named in probes.values():
        about = _about(named[OURS.probe])
        config = FeatureConfig(precision=about["precision"])
        source = about["task"]["source"]
        if source not in found and shards_of(workspace, source):
            found[source] = materialize_features(workspace, encoder, source, config)
    return found


def _about(probe: Product) -> dict[str, Any]:
    """What a probe was taken of, and how."""
    return json.loads((probe.path / SCORES_FILE).read_text())["about"]


def _pretraining(encoder: Product, digest: str, corpus: Product | None) -> Pretraining:
    counts, folds = None, ()
    if corpus is not None:
        counts = CorpusFacts.of(corpus).by_source
        folds = CorpusIndex(corpus.path).unlabelled_folds
    return Pretraining(
        recipe=encoder.facts.get("recipe", {}).get("name", "not known"),
        digest=digest,
        steps=encoder.facts.get("steps"),
        ecgs=counts,
        unlabelled_folds=folds,
        window=EncoderSource.of_product(OURS.probe, encoder).window,
    )


def _differences(probes: Mapping[str, Mapping[str, Probe]]) -> dict[str, dict[str, TaskComparison]]:
    """Ours minus each other, by task and the other's name; Holm's adjustment is over the tasks for each other."""
    found: dict[str, dict[str, TaskComparison]] = {}
    for other in TITLES:
        beside = {
            task: (named[OURS.probe], named[other])
            for task, named in probes.items()
            if other != OURS.probe and other in named and named[OURS.probe].comparable(named[other])
        }
        pairs = [(ours.about["title"], ours.result, theirs.result) for ours, theirs in beside.values()]
        for task, one in zip(beside, compare_results(pairs, ProbeConfig()), strict=True):
            found.setdefault(task, {})[other] = one
    return found


COMPARISON = "comparison"
COMPARISON_HTML, COMPARISON_JSON = "comparison.html", "comparison.json"


def materialize_comparison(workspace: Workspace, found: EncoderComparison) -> Product:
    """The product `comparison`: comparison.html for people, comparison.json with the same numbers."""

    def make(folder: Path) -> dict[str, Any]:
        from pipelines.evaluate.report.page import comparison_page  # Jinja2 is not needed to find one that is there

        write_atomically(folder / COMPARISON_JSON, json.dumps(found.to_dict(), indent=1, allow_nan=False).encode())
        write_atomically(folder / COMPARISON_HTML, comparison_page(found).encode())
        return {"headline": found.in_words()}

    return workspace.build(
        COMPARISON, version=versions.REPORT, config={}, inputs={"comparison": digest_of(found.to_dict())}, make=make
    )
