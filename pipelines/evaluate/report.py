"""The evaluation of our encoder on one page: `report.html` for people, `report.json` with the same numbers.

    report/.../report.html   self-contained: no script, nothing from elsewhere
    report/.../report.json   what the page says

Everything is read from probes that are finished: of our encoder, of its random twin, and of whatever else was probed on
the same ECGs by the same protocol (the handcrafted floor, the author's released encoder).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.evaluate.assessment import Assessment, assess
from pipelines.evaluate.compare import FEW_POSITIVES, TaskComparison, compare_results
from pipelines.evaluate.features import EncoderSource, FeatureConfig, materialize_features, shards_of
from pipelines.evaluate.probe import ProbeConfig
from pipelines.evaluate.published import Published, published_for
from pipelines.evaluate.result import SCORES_FILE, ProbeResult, load_result
from pipelines.evaluate.statistics import Interval
from pipelines.evaluate.subject import OURS, REFERENCE
from pipelines.evaluate.suite_table import SuiteTable, suite_products, suite_tables
from pipelines.evaluate.wave_report import WaveReport, inputs_of, picture_of, shown_of, wave_products, wave_reports
from pipelines.labels import SUITE_TASKS
from pipelines.stage import Product, Workspace, write_atomically

PRODUCT = "report"
HTML_FILE, JSON_FILE = "report.html", "report.json"
FLOOR = "handcrafted"
"""The probe on handcrafted features: an encoder below it has not earned its place."""

TITLES = {
    OURS.probe: "this encoder",
    OURS.twin: "random encoder",
    FLOOR: "handcrafted features",
    REFERENCE.probe: "released ECG-JEPA",
    REFERENCE.twin: "random, of its size",
}
"""What the probes go by on the page, in their order there."""

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One probe of a task. name: of the probe product. hue: its colour on the page."""

    name: str
    title: str
    hue: int
    digest: str
    assessment: Assessment


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One task. probes: ours first; none where the task was not scored, and `reason` says why.

    differences: ours minus each of the others, by its name. omitted: labels that are not scored, each with why. few:
    labels that are scored on few positives. in_domain: whether the encoder was pretrained on ECGs of this source.
    left_out: probes of other ECGs or of another protocol.
    """

    name: str
    title: str
    source: str
    kind: str
    labels: tuple[str, ...]
    protocol: str
    in_domain: bool
    counts: dict[str, int]
    reason: str | None
    records: int
    patients: int
    probes: tuple[Probed, ...]
    differences: dict[str, TaskComparison]
    omitted: dict[str, str]
    few: tuple[str, ...]
    left_out: tuple[str, ...]
    published: Published | None


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What the encoder is: its recipe, its digest, and the ECGs of each source that it saw, without their labels.

    ecgs: None where the corpus that it was trained on is no longer here.
    """

    recipe: str
    digest: str
    steps: int | None
    ecgs: dict[str, int] | None
    unlabelled_folds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """headline: the answer in one sentence. sentences: one for each task, with what stands behind it."""

    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All that the page says in numbers and words. simulated: the ECGs are drawn by a program. suite: of the tasks that
    were evaluated otherwise than by their plain probe. waves: of those that were segmented or measured."""

    simulated: bool
    verdict: Verdict
    pretraining: Pretraining
    tasks: tuple[TaskReport, ...]
    precision: str
    suite: tuple[SuiteTable, ...] = ()
    waves: tuple[WaveReport, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def materialize_report(workspace: Workspace, *, simulated: bool) -> Product:
    """The product `report` on the current encoder; its facts hold the verdict and the encoder's digest.

    Raises ValueError where there is no encoder, or no probe of it.
    """
    encoder = workspace.require(OURS.product)
    source = EncoderSource.of_product(OURS.probe, encoder)
    probes = _probes(workspace, source)
    corpus = workspace.current("corpus")
    embedded = _features(workspace, source, probes)
    inputs = {one.name: one.digest for found in probes.values() for one in found.values()}
    inputs |= {one.name: one.digest for products in embedded.values() for one in products.values()}
    suite = suite_products(workspace, source.digest, OURS.probe, (OURS.twin, FLOOR))
    inputs |= {one.name: one.digest for products in suite.values() for one in products.values()}
    waves = wave_products(workspace, source.digest, OURS.probe, OURS.twin)
    inputs |= inputs_of(waves)

    def make(folder: Path) -> dict[str, Any]:
        # matplotlib and Jinja2 are not needed to find a report that is there.
        from pipelines.evaluate.page import report_page
        from pipelines.evaluate.views import embedding_maps, sampled_predictions

        report = summarise(probes, encoder, source.digest, corpus, simulated=simulated)
        report = replace(report, suite=suite_tables(suite), waves=wave_reports(waves, TITLES))
        ours = {task: load_result(found[OURS.probe].path) for task, found in probes.items()}
        page = report_page(
            report,
            rocs={task: {name: one.path for name, one in found.items()} for task, found in probes.items()},
            maps=embedding_maps(workspace, embedded, {task.name: task.source for task in report.tasks}, ours),
            samples=sampled_predictions(workspace, report.tasks, ours),
            examples={
                task: picture
                for task, products in waves.items()
                if (shown := shown_of(products)) is not None and (picture := picture_of(shown[1])) is not None
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
        inputs={"encoder": encoder.digest, **({} if corpus is None else {"corpus": corpus.digest}), **inputs},
        make=make,
    )


def summarise(
    probes: Mapping[str, Mapping[str, Product]],
    encoder: Product,
    digest: str,
    corpus: Product | None,
    *,
    simulated: bool,
) -> EvaluationReport:
    """The report on probes by task and name, ours among each task's."""
    pretraining = _pretraining(encoder, digest, corpus)
    results = {task: {name: load_result(p.path) for name, p in found.items()} for task, found in probes.items()}
    abouts = {task: {name: _about(p) for name, p in found.items()} for task, found in probes.items()}
    differences = _differences(results, abouts)
    tasks = tuple(_task(task, results[task], abouts[task], pretraining, differences.get(task, {})) for task in probes)
    precisions = {about["precision"] for named in abouts.values() for about in named.values() if "precision" in about}
    return EvaluationReport(
        simulated=simulated,
        verdict=judge(tasks),
        pretraining=pretraining,
        tasks=tasks,
        precision=", ".join(sorted(precisions)),
    )


def judge(tasks: Sequence[TaskReport]) -> Verdict:
    """The verdict: whether pretraining helped, and whether the encoder is above the handcrafted floor.

    What is said to differ has a p-value below 0.05, adjusted for the number of tasks.
    """
    scored = [task for task in tasks if task.probes]
    sentences = tuple(_sentence(task) for task in tasks)
    if not scored:
        return Verdict(headline="No task could be scored", sentences=sentences)
    helped, hurt = _counts(scored, OURS.twin)
    with_twin = [task for task in scored if OURS.twin in task.differences]
    many = _of_tasks(len(with_twin))
    if not with_twin:
        headline = "Not compared with a random encoder"
    elif helped:
        headline = f"Pretraining helped on {helped} of {many}" + (f", and hurt on {hurt}" if hurt else "")
    elif hurt:
        headline = f"Pretraining hurt on {hurt} of {many}"
    else:
        headline = f"Pretraining is not shown to help on any of {many}"
    floored = [task for task in scored if FLOOR in task.differences]
    if floored:
        above, below = _counts(floored, FLOOR)
        level = len(floored) - above - below
        parts = [f"{word} on {n}" for word, n in (("above", above), ("below", below), ("level", level)) if n]
        headline += f"; beside handcrafted features {', '.join(parts)} of {_of_tasks(len(floored))}"
    return Verdict(headline=headline, sentences=sentences)


def _of_tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _counts(tasks: Sequence[TaskReport], other: str) -> tuple[int, int]:
    """On how many tasks ours is better than another, and worse."""
    found = [task.differences[other] for task in tasks if other in task.differences]
    shown = [one.difference.value for one in found if one.p_adjusted < ALPHA]
    return sum(value > 0 for value in shown), sum(value < 0 for value in shown)


def _sentence(task: TaskReport) -> str:
    if not task.probes:
        return f"{task.title}: not scored, {task.reason}."
    auc = task.probes[0].assessment.auc
    words = f"{task.title}: macro AUC {in_words(auc)}"
    for other in (OURS.twin, FLOOR):
        if other in task.differences:
            one = task.differences[other]
            found, p = one.difference, one.p_adjusted
            relation = "not shown to differ from" if p >= ALPHA else ("above" if found.value > 0 else "below")
            words += f", {relation} the {_title(other)}" if other == OURS.twin else f", {relation} {_title(other)}"
            words += f" ({found.value:+.3f}, {found.low:+.3f} to {found.high:+.3f}, p {_p(p)})"
    return f"{words}."


def in_words(found: Interval) -> str:
    """A figure with its interval."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _title(name: str) -> str:
    return TITLES.get(name, name)


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


def _bootstrap(about: Mapping[str, Any]) -> ProbeConfig:
    """The bootstrap that a probe's intervals were taken with."""
    return ProbeConfig(**{name: about["probe"][name] for name in ("resamples", "confidence", "seed")})


def _pretraining(encoder: Product, digest: str, corpus: Product | None) -> Pretraining:
    facts = encoder.facts
    known = corpus is not None and corpus.facts["digest"] == facts.get("corpus_digest")
    counts, folds = None, ()
    if corpus is not None and known:
        counts = dict(corpus.facts["by_source"])
        folds = tuple(json.loads((corpus.path / "corpus.json").read_text())["config"]["unlabelled_folds"])
    return Pretraining(
        recipe=facts.get("recipe", {}).get("name", "not known"),
        digest=digest,
        steps=facts.get("steps"),
        ecgs=counts,
        unlabelled_folds=folds,
    )


def _differences(
    results: Mapping[str, Mapping[str, ProbeResult]], abouts: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, dict[str, TaskComparison]]:
    """Ours minus each other, by task and the other's name; Holm's adjustment is over the tasks for each other."""
    found: dict[str, dict[str, TaskComparison]] = {}
    for other in TITLES:
        tasks = [
            task
            for task, named in results.items()
            if other != OURS.probe and other in named and _comparable(named, abouts[task], other)
        ]
        if not tasks:
            continue
        pairs = [(abouts[t][OURS.probe]["title"], results[t][OURS.probe], results[t][other]) for t in tasks]
        for task, one in zip(tasks, compare_results(pairs, ProbeConfig()), strict=True):
            found.setdefault(task, {})[other] = one
    return found


def _comparable(named: Mapping[str, ProbeResult], abouts: Mapping[str, Mapping[str, Any]], other: str) -> bool:
    """Whether another probe is of the same ECGs, labels and protocol as ours, and both are scored."""
    same = abouts[other]["data_digest"] == abouts[OURS.probe]["data_digest"]
    return same and named[other].scores is not None and named[OURS.probe].scores is not None


def _task(
    name: str,
    results: Mapping[str, ProbeResult],
    abouts: Mapping[str, Mapping[str, Any]],
    pretraining: Pretraining,
    differences: Mapping[str, TaskComparison],
) -> TaskReport:
    result, about = results[OURS.probe], abouts[OURS.probe]
    asked, scores = about["task"], result.scores
    shown = [] if scores is None else [other for other in results if other == OURS.probe or other in differences]
    probes = tuple(
        Probed(
            name=other,
            title=_title(other),
            hue=list(TITLES).index(other),
            digest=abouts[other]["encoder"]["digest"],
            assessment=assess(results[other], _bootstrap(abouts[other])),
        )
        for other in shown
    )
    labels = probes[0].assessment.labels if probes else ()
    return TaskReport(
        name=name,
        title=about["title"],
        source=asked["source"],
        kind=asked["kind"],
        labels=result.classes,
        protocol=_protocol(asked["protocol"]),
        in_domain=asked["source"] in (pretraining.ecgs or {}),
        counts=result.counts,
        reason=result.reason,
        records=0 if scores is None else scores.test.records,
        patients=0 if scores is None else scores.test.patients,
        probes=probes,
        differences=dict(differences),
        omitted={} if scores is None else scores.test.omitted,
        few=tuple(label.name for label in labels if label.positives < FEW_POSITIVES),
        left_out=() if scores is None else tuple(_title(other) for other in results if other not in shown),
        published=published_for(name),
    )


def _protocol(values: Mapping[str, Any]) -> str:
    """A protocol in words."""
    what = values["by"]
    if what == "patient":
        choosing, tested = values["validation_share"], values["test_share"]
        held = f"chosen on {choosing:.0%} of the patients" if choosing else "nothing is chosen on validation"
        return f"fitted on {1 - choosing - tested:.0%}; {held}; tested once on {tested:.0%}, drawn by patient"
    train, test = (", ".join(map(str, values[name])) for name in ("train", "test"))
    if what == "fold":
        validation = ", ".join(map(str, values["validation"]))
        held = f"chosen on {validation}" if validation else "nothing is chosen on validation"
    else:
        share = values["validation_share"]
        held = f"chosen on {share:.0%} of their patients" if share else "nothing is chosen on validation"
    return f"fitted on {what}s {train}; {held}; tested once on {test}"
