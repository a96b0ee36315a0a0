"""Render reports as HTML pages: numbers become text and inline SVG here, the templates hold everything else.

A page takes values and gives text: it reads no product and computes no score. It is self-contained: styles, plots and
pictures are inside, and it has no scripts. Names from data are escaped by Jinja2, and by `plots.svg` in plots.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import SEEN, Overlap
from pipelines.evaluate.probes.assessment import LabelAssessment
from pipelines.evaluate.report.model import (
    ALPHA,
    FEW_POSITIVES,
    HANDCRAFTED_BASELINE,
    SEVERAL,
    TITLES,
    AucDifference,
    EmbeddingMap,
    EncoderComparison,
    EvaluationReport,
    LabelComparison,
    Probed,
    Rocs,
    Samples,
    SuiteTable,
    TaskComparison,
    TaskReport,
)
from pipelines.evaluate.report.wording import in_words, sentence
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.formatting import format_text
from pipelines.plots import svg
from pipelines.tasks.splits import of_patients

TEMPLATES = Path(__file__).parent / "templates"
PLOTTED = 12  # labels of a task that have an ROC and a reliability plot


@dataclass(frozen=True, kw_only=True)
class _TaskView:
    """What the template needs of a task in addition to its report."""

    low: float
    """Where the forest plot begins."""
    rows: list[tuple[LabelAssessment, Markup, LabelComparison | None]]
    """Of the forest plot: label, plot, and difference from the random baseline."""
    undefined: dict[str, int]
    """By label, resamples in which its AUC is not defined."""
    chosen: str
    """Which labels have plots, if not all: the end of a heading."""
    shown: list[LabelAssessment]
    """The labels that have plots."""
    rocs: list[tuple[str, int, float, Markup]]
    """Label, positives, AUC, plot."""
    reliabilities: list[tuple[str, Markup]]
    map: EmbeddingMap | None
    sheets: list[tuple[str, str]]
    """Title and base64 of a PNG."""


def report_page(
    report: EvaluationReport,
    *,
    rocs: Mapping[str, Mapping[str, Rocs]],
    maps: Mapping[str, EmbeddingMap],
    samples: Mapping[str, Samples],
    examples: Mapping[str, bytes],
    scaling: Sequence[bytes],
) -> str:
    """Return the page of an evaluation report.

    rocs: of the probes, by task and name.
    maps: by task; the one named "" is coloured by source.
    samples: sheets of ECGs, by task.
    examples: of segmentations, as PNG, by task of waves.
    scaling: of the scaling curves, as PNG, in the report's order.
    """
    present = {probed.name: probed for task in report.tasks for probed in task.probes}
    scored = [task for task in report.tasks if task.probes]
    parts = [part for table in report.suite for row in table.rows for part in row.parts]
    first = scored[0].probes[0].assessment if scored else None
    return _render(
        "report.html.jinja",
        report=report,
        columns=[present[name] for name in TITLES if name in present],
        confidence=_percent(first.confidence) if first else "",
        resamples=first.resamples if first else 0,
        source_map=maps.get(""),
        compared=[
            (name, TITLES[name], list(TITLES).index(name))
            for name in (OURS.probe, OURS.random_baseline, HANDCRAFTED_BASELINE)
        ],
        examples={task: base64.b64encode(png).decode() for task, png in examples.items()},
        curves=[(facts, base64.b64encode(png).decode()) for facts, png in zip(report.scaling, scaling, strict=True)],
        budgets={table.task: _budget(table) for table in report.suite if table.budget},
        views={task.name: _view(task, rocs[task.name], maps, samples) for task in (*scored, *parts) if task.probes},
    )


def task_page(task: TaskReport, rocs: Mapping[str, Rocs], *, encoder: str, simulated: bool) -> str:
    """Return the page of one scored task. rocs: of the probes, by name. encoder: the name that the user gave it."""
    scored = task.probes[0].assessment
    return _render(
        "task.html.jinja",
        task=task,
        view=_view(task, rocs, {}, {}),
        encoder=encoder,
        auc=in_words(scored.auc),
        verdict=sentence(task),
        simulated=simulated,
        confidence=_percent(scored.confidence),
        resamples=scored.resamples,
    )


def comparison_page(comparison: EncoderComparison) -> str:
    """Return the page of a comparison."""
    views = {}
    for task in comparison.tasks:
        low, ticks = forest_scale(
            [label.first.low for label in task.labels] + [label.second.low for label in task.labels]
        )
        views[task.task] = (
            low,
            [
                (label, _intervals([(0, label.first), (1, label.second)], low, ticks, label.name))
                for label in task.labels
            ],
        )
    return _render(
        "comparison.html.jinja",
        comparison=comparison,
        views=views,
        confidence=_percent(comparison.confidence),
    )


def _view(
    task: TaskReport, rocs: Mapping[str, Rocs], maps: Mapping[str, EmbeddingMap], samples: Mapping[str, Samples]
) -> _TaskView:
    labels = task.probes[0].assessment.labels
    low, rows = _forest(task)
    shown = sorted(labels, key=lambda label: -label.positives)[:PLOTTED]
    sheets = samples.get(task.name)
    titled = {} if sheets is None else {"Most confident, right": sheets.right, "Most confident, wrong": sheets.wrong}
    return _TaskView(
        low=low,
        rows=rows,
        undefined={label.name: label.undefined for label in labels if label.undefined},
        chosen=f" of the {len(shown)} labels with the most positives" if len(shown) < len(labels) else "",
        shown=shown,
        rocs=[(label.name, label.positives, label.auc.value, _roc(task, rocs, label)) for label in shown],
        reliabilities=[(label.name, _reliability(label)) for label in shown],
        map=maps.get(task.name),
        sheets=[(title, base64.b64encode(png).decode()) for title, png in titled.items() if png is not None],
    )


def _forest(task: TaskReport) -> tuple[float, list[tuple[LabelAssessment, Markup, LabelComparison | None]]]:
    """Return where a task's forest plot begins, and its rows: the best label first, those with few positives last."""
    labels = task.probes[0].assessment.labels
    by_probe = {probed.name: {label.name: label for label in probed.assessment.labels} for probed in task.probes}
    # Labels with few positives have intervals from end to end, which would compress all others.
    lows = [label.auc.low for named in by_probe.values() for label in named.values() if label.name not in task.few]
    low, ticks = forest_scale(lows or [label.auc.low for label in labels])
    random = task.differences.get(OURS.random_baseline)
    differences = {} if random is None else {label.name: label for label in random.labels}
    rows = []
    for label in sorted(labels, key=lambda label: (label.name in task.few, -label.auc.value)):
        marks = [(probed.hue, by_probe[probed.name][label.name].auc) for probed in task.probes]
        rows.append((label, _intervals(marks, low, ticks, label.name), differences.get(label.name)))
    return low, rows


def _roc(task: TaskReport, rocs: Mapping[str, Rocs], label: LabelAssessment) -> Markup:
    """Plot the ROC curves of all probes on a label."""
    curves = [(probed.hue, *rocs[probed.name][label.name]) for probed in task.probes]
    return Markup(svg.roc(curves, f"ROC of {label.name}, AUC {label.auc.value:.3f}"))


def _budget(table: SuiteTable) -> Markup:
    """Plot the label-budget curve of a task, with those published figures that are a single number."""
    curves, texts = [], []
    for hue, (name, title) in enumerate(TITLES.items()):
        points = [(row.percent, row.auc[name]) for row in table.budget if row.percent is not None and name in row.auc]
        if points:
            marks = [(share, svg.PlotMark(low=a.low, value=a.value, high=a.high, hue=hue)) for share, a in points]
            curves.append((hue, marks))
            texts.append(f"{title} {', '.join(f'{share:g} %: {auc.value:.3f}' for share, auc in points)}")
    published = [
        (row.percent, float(row.published.ecg_jepa))
        for row in table.budget
        if row.percent is not None and row.published is not None and _is_number(row.published.ecg_jepa)
    ]
    return Markup(svg.budget(curves, published, f"AUC by share of labels; {'; '.join(texts)}"))


def _is_number(printed: str) -> bool:
    return printed.replace(".", "", 1).isdecimal()


def forest_scale(lows: Sequence[float]) -> tuple[float, list[float]]:
    """Return where a forest plot begins and its ticks up to 1: a tenth at or below the lowest interval, below 1."""
    first = min(int(np.floor(min(lows, default=0.5) * 10 + 1e-9)), 9)
    return first / 10, [tick / 10 for tick in range(first, 11)]


def _intervals(marks: Sequence[tuple[int, Interval]], low: float, ticks: Sequence[float], name: str) -> Markup:
    plotted = [svg.PlotMark(low=auc.low, value=auc.value, high=auc.high, hue=hue) for hue, auc in marks]
    text = ", ".join(in_words(auc) for _, auc in marks)
    return Markup(svg.intervals(plotted, low, 1.0, ticks, f"AUC of {name}: {text}"))


def _reliability(label: LabelAssessment) -> Markup:
    bins = [
        svg.Bin(
            predicted=bin_.predicted,
            observed=bin_.observed,
            low=bin_.observed if bin_.interval is None else bin_.interval.low,
            high=bin_.observed if bin_.interval is None else bin_.interval.high,
            records=bin_.records,
        )
        for bin_ in label.reliability
    ]
    return Markup(svg.reliability(bins, 0, f"Reliability of {label.name}"))


def _shown(value: Any) -> Any:
    """Escape characters that do not print, such as those that turn the direction of a text; markup is ours."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else format_text(value)


def _render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "figure": _figure,
        "difference": _difference,
        "probe": _probe,
        "scored": _scored,
        "seen": _seen,
        "tested": _tested,
        "listed": _listed,
        "with_code": _with_code,
        "cell": _cell,
        "map_figure": _map_figure,
    }
    environment.globals |= {"few_positives": FEW_POSITIVES, "SEEN": SEEN}
    return environment.get_template(template).render(**context)


def _figure(score: Interval | float | None) -> Markup:
    """Return a score with its interval below it; a dash for None."""
    if score is None:
        return Markup("–")
    if not isinstance(score, Interval):
        return Markup("<b>{}</b>").format(f"{score:.3f}")
    value, low, high = (f"{x:.3f}" for x in (score.value, score.low, score.high))
    return Markup('<span><b>{}</b><span class="ci">{} to {}</span></span>').format(value, low, high)


def _cell(value: str | float | None) -> str:
    """Return the text of a table's cell; a dash for None and for an empty text."""
    if value is None or value == "":
        return "–"
    return value if isinstance(value, str) else f"{value:,}"


def _difference(comparison: TaskComparison | LabelComparison | AucDifference | None) -> Markup:
    """Return a signed difference with its interval and its p, coloured if the p is below ALPHA; a dash for None."""
    if comparison is None:
        return Markup("–")
    difference, p = comparison.difference, comparison.p_adjusted
    direction = "" if p >= ALPHA else ("up" if difference.value > 0 else "down")
    markup = '<span><b class="{}">{}</b><span class="ci">{} to {}, <span class="p">p {}</span></span></span>'
    value, low, high = (f"{x:+.3f}" for x in (difference.value, difference.low, difference.high))
    return Markup(markup).format(direction, value, low, high, "<0.001" if p < 0.001 else f"{p:.3f}")


def _probe(task: TaskReport, name: str) -> Probed | None:
    return next((probed for probed in task.probes if probed.name == name), None)


def _scored(probed: Probed | None) -> Markup:
    """Return a probe's AUC, and how much of the test ECGs its encoder saw; a dash for None."""
    return _figure(None) if probed is None else _figure(probed.assessment.auc) + _seen(probed.seen)


def _seen(overlap: Overlap) -> Markup:
    return Markup('<span class="ci seen">seen: {}</span>').format(overlap.in_words())


def _tested(comparison: TaskComparison) -> str:
    return of_patients(comparison.records, comparison.patients, comparison.unnamed)


def _with_code(text: str) -> Markup:
    """Return a text, in which `words between backticks` are code."""
    forms = (Markup("{}"), Markup("<code>{}</code>"))
    return Markup("").join(forms[number % 2].format(part) for number, part in enumerate(text.split("`")))


def _listed(reasons: Mapping[str, str]) -> str:
    """Return names with their reasons, as a list in a sentence."""
    return "; ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _map_figure(embeddings: EmbeddingMap, text: str) -> Markup:
    """Return a map of embeddings with its legend. text: for those who cannot see it."""
    entries = [
        Markup('<li class="key c{}">{} <span class="few">{}</span></li>').format(hue, name, f"{count:,}")
        for hue, (name, count) in enumerate(embeddings.names.items())
    ]
    rest = int((embeddings.hue_N < 0).sum())
    if rest:
        entries.append(Markup('<li class="key">{} <span class="few">{}</span></li>').format(SEVERAL, f"{rest:,}"))
    count, explained = f"{len(embeddings.hue_N):,}", _percent(embeddings.explained)
    caption = f"{count} ECGs on the first two principal axes, which hold {explained} of the variance."
    plot = Markup(svg.scatter(embeddings.point_N2, embeddings.hue_N, text))
    return Markup('<figure>{}</figure><div><ul class="legend">{}</ul><p class="quiet">{}</p></div>').format(
        plot, Markup("").join(entries), caption
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
