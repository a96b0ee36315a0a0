"""A report as one HTML page: numbers become words and inline SVG here, templates/ holds the rest.

Nothing on a page comes from elsewhere and nothing in it runs: styles, plots and pictures are inside. Names
that come from data are escaped by Jinja2, and by `pictures.svg` in plots.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import SEEN, Overlap
from pipelines.evaluate.probes.assessment import LabelAssessment
from pipelines.evaluate.probes.result import ROC_FILE
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
    Samples,
    SuiteTable,
    TaskComparison,
    TaskReport,
)
from pipelines.evaluate.report.wording import in_words, sentence
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.plots import svg
from pipelines.tasks.splits import of_patients

TEMPLATES = Path(__file__).parent / "templates"
PLOTTED = 12  # labels of a task that have an ROC and a reliability plot

Rocs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""False and true positive rates by label."""


@dataclass(frozen=True, kw_only=True)
class _TaskView:
    """What the template shows of a task beside its numbers."""

    low: float
    rows: list[tuple[LabelAssessment, Markup, LabelComparison | None]]
    undefined: dict[str, int]
    chosen: str
    shown: list[LabelAssessment]
    rocs: list[tuple[str, int, float, Markup]]
    reliabilities: list[tuple[str, Markup]]
    map: EmbeddingMap | None
    sheets: list[tuple[str, str]]


def report_page(
    report: EvaluationReport,
    *,
    folders: Mapping[str, Mapping[str, Path]],
    maps: Mapping[str, EmbeddingMap],
    samples: Mapping[str, Samples],
    examples: Mapping[str, bytes],
) -> str:
    """The page. folders: of the probes' products, by task and name. maps: by task; "" is by source.
    examples: of segmentations, as PNG, by task of waves."""
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
        beside=[
            (name, TITLES[name], list(TITLES).index(name))
            for name in (OURS.probe, OURS.random_baseline, HANDCRAFTED_BASELINE)
        ],
        examples={task: base64.b64encode(png).decode() for task, png in examples.items()},
        budgets={table.task: _budget(table) for table in report.suite if table.budget},
        views={task.name: _view(task, folders[task.name], maps, samples) for task in (*scored, *parts) if task.probes},
    )


def task_page(task: TaskReport, folders: Mapping[str, Path], *, encoder: str, simulated: bool) -> str:
    """A page on a scored task that is in no report. folders: of the probes' products, by name. encoder: its name."""
    scored = task.probes[0].assessment
    return _render(
        "task.html.jinja",
        task=task,
        view=_view(task, folders, {}, {}),
        encoder=encoder,
        auc=in_words(scored.auc),
        verdict=sentence(task),
        simulated=simulated,
        confidence=_percent(scored.confidence),
        resamples=scored.resamples,
    )


def comparison_page(found: EncoderComparison) -> str:
    """A comparison as a page of its own."""
    views = {}
    for task in found.tasks:
        low, ticks = _scale([label.first.low for label in task.labels] + [label.second.low for label in task.labels])
        views[task.task] = (
            low,
            [
                (label, _intervals([(0, label.first), (1, label.second)], low, ticks, label.name))
                for label in task.labels
            ],
        )
    return _render(
        "comparison.html.jinja",
        found=found,
        views=views,
        confidence=_percent(found.confidence),
    )


def _view(
    task: TaskReport, folders: Mapping[str, Path], maps: Mapping[str, EmbeddingMap], samples: Mapping[str, Samples]
) -> _TaskView:
    ours, *others = task.probes
    labels = ours.assessment.labels
    beside = {probed.name: {label.name: label for label in probed.assessment.labels} for probed in task.probes}
    # A label with hardly a positive has an interval from end to end, which would squeeze all others.
    low, ticks = _scale(
        [label.auc.low for named in beside.values() for label in named.values() if label.name not in task.few]
        or [label.auc.low for label in labels]
    )
    random = task.differences.get(OURS.random_baseline)
    against = {} if random is None else {label.name: label for label in random.labels}
    rows = []
    # The best first, and those that say little last.
    for label in sorted(labels, key=lambda label: (label.name in task.few, -label.auc.value)):
        marks = [(probed.hue, beside[probed.name][label.name].auc) for probed in task.probes]
        rows.append((label, _intervals(marks, low, ticks, label.name), against.get(label.name)))
    shown = sorted(labels, key=lambda label: -label.positives)[:PLOTTED]
    curves = {probed.name: _curves(folders[probed.name]) for probed in (ours, *others)}
    seen = samples.get(task.name)
    sheets = {} if seen is None else {"Surest and right": seen.right, "Surest and wrong": seen.wrong}
    return _TaskView(
        low=low,
        rows=rows,
        undefined={label.name: label.undefined for label in labels if label.undefined},
        chosen=f" of the {len(shown)} labels with most positives" if len(shown) < len(labels) else "",
        shown=shown,
        rocs=[
            (
                label.name,
                label.positives,
                label.auc.value,
                Markup(
                    svg.roc(
                        [(probed.hue, *curves[probed.name][label.name]) for probed in task.probes],
                        f"ROC of {label.name}, AUC {label.auc.value:.3f}",
                    )
                ),
            )
            for label in shown
        ],
        reliabilities=[(label.name, _reliability(label)) for label in shown],
        map=maps.get(task.name),
        sheets=[(title, base64.b64encode(png).decode()) for title, png in sheets.items() if png is not None],
    )


def _budget(table: SuiteTable) -> Markup:
    """The label-budget curve of a task; of published figures, those that are one number."""
    curves, told = [], []
    for hue, (name, title) in enumerate(TITLES.items()):
        found = [(row.percent, row.auc[name]) for row in table.budget if row.percent is not None and name in row.auc]
        if found:
            curves.append(
                (hue, [(share, svg.PlotMark(low=a.low, value=a.value, high=a.high, hue=hue)) for share, a in found])
            )
            told.append(f"{title} {', '.join(f'{share:g} %: {auc.value:.3f}' for share, auc in found)}")
    published = [
        (row.percent, float(row.published.ecg_jepa))
        for row in table.budget
        if row.percent is not None and row.published is not None and _is_number(row.published.ecg_jepa)
    ]
    return Markup(svg.budget(curves, published, f"AUC by share of labels; {'; '.join(told)}"))


def _is_number(printed: str) -> bool:
    return printed.replace(".", "", 1).isdecimal()


def _curves(folder: Path) -> Rocs:
    table = pq.read_table(folder / ROC_FILE)
    names = np.asarray(table["class"].to_pylist())
    false, true = (table[name].to_numpy() for name in ("false_positive_rate", "true_positive_rate"))
    return {name: (false[names == name], true[names == name]) for name in dict.fromkeys(names.tolist())}


def _scale(lows: Sequence[float]) -> tuple[float, list[float]]:
    """Where a forest plot begins, a tenth at or below the lowest interval and below 1, and its ticks up to 1."""
    first = min(int(np.floor(min(lows, default=0.5) * 10 + 1e-9)), 9)
    return first / 10, [tick / 10 for tick in range(first, 11)]


def _intervals(marks: Sequence[tuple[int, Interval]], low: float, ticks: Sequence[float], name: str) -> Markup:
    plotted = [svg.PlotMark(low=one.low, value=one.value, high=one.high, hue=hue) for hue, one in marks]
    told = ", ".join(in_words(one) for _, one in marks)
    return Markup(svg.intervals(plotted, low, 1.0, ticks, f"AUC of {name}: {told}"))


def _reliability(label: LabelAssessment) -> Markup:
    bins = [
        svg.Bin(
            predicted=one.predicted,
            observed=one.observed,
            low=one.observed if one.interval is None else one.interval.low,
            high=one.observed if one.interval is None else one.interval.high,
            records=one.records,
        )
        for one in label.reliability
    ]
    return Markup(svg.reliability(bins, 0, f"Reliability of {label.name}"))


def _render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_figure, _ahead, _probe, _scored, _seen, _tested, _listed, _cell, _map_figure)
    environment.filters |= {one.__name__.removeprefix("_"): one for one in filters}
    environment.globals |= {"few_positives": FEW_POSITIVES, "SEEN": SEEN}
    return environment.get_template(template).render(**context)


def _figure(found: Interval | float | None) -> Markup:
    """A score with its interval below it; a dash for none."""
    if found is None:
        return Markup("–")
    if not isinstance(found, Interval):
        return Markup("<b>{}</b>").format(f"{found:.3f}")
    value, low, high = (f"{x:.3f}" for x in (found.value, found.low, found.high))
    return Markup('<span><b>{}</b><span class="ci">{} to {}</span></span>').format(value, low, high)


def _cell(value: str | float | None) -> str:
    """A cell of a table of rows; a dash for none."""
    if value is None or value == "":
        return "–"
    return value if isinstance(value, str) else f"{value:,}"


def _ahead(found: TaskComparison | LabelComparison | AucDifference | None) -> Markup:
    """A difference with its interval and its p; coloured where it is shown, with the sign in front in any case."""
    if found is None:
        return Markup("–")
    one, p = found.difference, found.p_adjusted
    shown = "" if p >= ALPHA else ("up" if one.value > 0 else "down")
    told = '<span><b class="{}">{}</b><span class="ci">{} to {}, <span class="p">p {}</span></span></span>'
    return Markup(told).format(
        shown, f"{one.value:+.3f}", f"{one.low:+.3f}", f"{one.high:+.3f}", "<0.001" if p < 0.001 else f"{p:.3f}"
    )


def _probe(task: TaskReport, name: str) -> Probed | None:
    return next((probed for probed in task.probes if probed.name == name), None)


def _scored(found: Probed | None) -> Markup:
    """Its AUC, and what was seen of the test."""
    return _figure(None) if found is None else _figure(found.assessment.auc) + _seen(found.seen)


def _seen(found: Overlap) -> Markup:
    return Markup('<span class="ci seen">seen: {}</span>').format(found.in_words())


def _tested(found: TaskComparison) -> str:
    return of_patients(found.records, found.patients, found.unnamed)


def _listed(names: Mapping[str, str]) -> str:
    """Names, each with why."""
    return "; ".join(f"{name} ({why})" for name, why in names.items())


def _map_figure(found: EmbeddingMap, text: str) -> Markup:
    entries = [
        Markup('<li class="key c{}">{} <span class="few">{}</span></li>').format(hue, name, f"{count:,}")
        for hue, (name, count) in enumerate(found.names.items())
    ]
    rest = int((found.hue_N < 0).sum())
    if rest:
        entries.append(Markup('<li class="key">{} <span class="few">{}</span></li>').format(SEVERAL, f"{rest:,}"))
    told = f"First two principal axes, {_percent(found.explained)} of the variance; {len(found.hue_N):,} ECGs."
    plot = Markup(svg.scatter(found.point_N2, found.hue_N, text))
    return Markup('<figure>{}</figure><div><ul class="legend">{}</ul><p class="quiet">{}</p></div>').format(
        plot, Markup("").join(entries), told
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
