"""The suite's evaluations of one encoder as tables, a task each, read from the products that are there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.evaluate.features import shards_of
from pipelines.evaluate.published import Published, published_for
from pipelines.evaluate.result import SCORES_FILE
from pipelines.evaluate.run_suite import labels_used
from pipelines.evaluate.statistics import Interval
from pipelines.evaluate.suite import SUITE, Evaluation, evaluation
from pipelines.labels import SUITE_TASKS
from pipelines.stage import Product, Workspace


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """One evaluation. auc, accuracy: on the test split, by the name of what was probed, ours first; of others only
    where they are of the same ECGs, labels and protocol as ours. reason: why ours was not scored. left_out: labels that
    the mean is without, in some or all draws of few labels. percent: of the training patients' labels, where the plain
    linear probe was fitted on that many; else None. labels_used: where they are few, the ECGs that were fitted and
    chosen on."""

    name: str
    title: str
    auc: dict[str, Interval]
    accuracy: dict[str, Interval]
    reason: str | None
    left_out: tuple[str, ...]
    percent: float | None
    labels_used: str | None
    published: Published | None


@dataclass(frozen=True, kw_only=True)
class SuiteTable:
    """A task's evaluations, the plain linear probe first where it is there."""

    task: str
    title: str
    rows: tuple[SuiteRow, ...]

    @property
    def budget(self) -> tuple[SuiteRow, ...]:
        """The rows of the label-budget curve, from few labels to all; none where labels were never few."""
        rows = sorted(
            (row for row in self.rows if row.percent is not None and row.auc), key=lambda row: row.percent or 0
        )
        return tuple(rows) if any(row.percent != 100 for row in rows) else ()


def suite_products(
    workspace: Workspace, digest: str, ours: str, others: Sequence[str]
) -> dict[str, dict[str, Product]]:
    """By evaluation and name, the current products: `ours`, of the encoder of that digest and of the ECGs that are here
    now, and of `others` those that are of the same data. A task without a variant is left out: it is a plain probe."""
    found: dict[str, dict[str, Product]] = {}
    for pointer in sorted(workspace.folder("probe").glob(f"*/{ours}/current")):
        name = pointer.parent.parent.name
        first = workspace.current(f"probe/{name}/{ours}")
        if _asked(name) is None or first is None or not _is_of(workspace, first, digest):
            continue
        beside = {other: workspace.current(f"probe/{name}/{other}") for other in others}
        same = {
            other: product
            for other, product in beside.items()
            if product is not None and product.facts["data_digest"] == first.facts["data_digest"]
        }
        found[name] = {ours: first, **same}
    varied = {name.partition("__")[0] for name in found if "__" in name}
    return {name: products for name, products in found.items() if name.partition("__")[0] in varied}


def suite_tables(found: dict[str, dict[str, Product]]) -> tuple[SuiteTable, ...]:
    """What `suite_products` found, a table a task, in the order of the suite's tasks."""
    ordered = sorted(found.items(), key=lambda item: _order(item[0]))
    tables = []
    for task, labels in SUITE_TASKS.items():
        rows = tuple(_row(name, products) for name, products in ordered if name.partition("__")[0] == task)
        if rows:
            tables.append(SuiteTable(task=task, title=labels.title, rows=rows))
    return tuple(tables)


def _asked(name: str) -> Evaluation | None:
    """The evaluation of that name; None for a single draw of few labels, for labels of one's own, and for what is no
    evaluation any more."""
    try:
        return evaluation(name)
    except ValueError:
        return None


def _is_of(workspace: Workspace, product: Product, digest: str) -> bool:
    """Whether a product, or each of its draws, is of the encoder of that digest and of the ECGs that are here now."""
    draws = product.facts.get("draws")
    folders = (
        [product.path] if draws is None else [workspace.folder(draw["product"]) / draw["fingerprint"] for draw in draws]
    )
    for folder in folders:
        about = json.loads((folder / SCORES_FILE).read_text())["about"]
        here = {one.name: one.digest for one in shards_of(workspace, about["task"]["source"]).values()}
        if about["encoder"]["digest"] != digest or about["ecgs"] != here:
            return False
    return True


def _row(name: str, products: dict[str, Product]) -> SuiteRow:
    asked = evaluation(name)
    variants = name.split("__")[1:]
    first = next(iter(products.values()))
    share = [] if asked.percent is None else [variants[-1]]
    budget = asked.head == "linear" and variants == share
    return SuiteRow(
        name=name,
        title=", ".join(map(_in_words, variants)) or "linear",
        auc=_figures(products, "test_macro_auc"),
        accuracy=_figures(products, "test_accuracy"),
        reason=first.facts["reason"],
        left_out=_left_out(first),
        percent=(100.0 if asked.percent is None else asked.percent) if budget else None,
        labels_used=labels_used(first),
        published=published_for(name),
    )


def _left_out(product: Product) -> tuple[str, ...]:
    """The labels that were not scored; where there are draws, in how many of them if not in all."""
    draws = product.facts.get("draws", [product.facts])
    times = Counter(label for draw in draws for label in draw.get("omitted") or ())
    return tuple(label if n == len(draws) else f"{label} (in {n} of {len(draws)} draws)" for label, n in times.items())


def _in_words(variant: str) -> str:
    """`labels_10` -> `10 % of the labels`, `leads_II_V1` -> `leads II, V1`."""
    kind, _, rest = variant.partition("_")
    if kind == "labels":
        return f"{rest} % of the labels"
    if kind == "leads":
        return f"leads {rest.replace('_', ', ')}"
    return variant.replace("_", " ")


def _order(name: str) -> tuple[int, str]:
    """The plain probe, then the suite in its own order, then what else was asked for."""
    known = list(SUITE)
    return (-1 if "__" not in name else known.index(name) if name in SUITE else len(known), name)


def _figures(products: dict[str, Product], fact: str) -> dict[str, Interval]:
    """A fact of the products that have it, as intervals."""
    stated = {name: product.facts.get(fact) for name, product in products.items()}
    return {
        name: Interval(value=one["value"], low=one["low"], high=one["high"])
        for name, one in stated.items()
        if one is not None
    }
