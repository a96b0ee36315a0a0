"""The suite's evaluations of one encoder as tables, one for each task, read from the current products.

Evaluations other than the linear probe on all labels, which has its own section of the report, come with all figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.probes.stored import Probe, probed
from pipelines.evaluate.report.compare import RESAMPLES_A_COMPARISON, compare_results
from pipelines.evaluate.report.model import TITLES, AucDifference, SuiteRow, SuiteTable, TaskComparison
from pipelines.evaluate.report.published import published_for
from pipelines.evaluate.report.tasks import task_report
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.statistics.paired import holm
from pipelines.evaluate.suite.names import SUITE, evaluation
from pipelines.evaluate.suite.run import folders_of, labels_of_draws, labels_used, paired_lead
from pipelines.harmonize.shards import shards_of
from pipelines.tasks.catalogue import SUITE_TASKS


def suite_products(
    workspace: Workspace, digest: str, ours: str, others: Sequence[str]
) -> dict[str, dict[str, Product]]:
    """Return the current products on the current ECGs, by evaluation and name; only of tasks with several evaluations.

    digest: of our encoder's file.
    ours: our encoder's name in products.
    others: the names of other features, which are included if they are of the same data.
    """
    by_evaluation: dict[str, dict[str, Product]] = {}
    for path, first in workspace.listed(f"probe/*/{ours}").items():
        name = path.split("/")[1]
        if not _is_evaluation(name) or not _is_of(workspace, first, digest):
            continue
        candidates = {other: workspace.current(f"probe/{name}/{other}") for other in others}
        same = {
            other: product
            for other, product in candidates.items()
            if product is not None and ProbeFacts.of(product).data_digest == ProbeFacts.of(first).data_digest
        }
        by_evaluation[name] = {ours: first, **same}
    varied = {name.partition("__")[0] for name in by_evaluation if "__" in name}
    return {name: products for name, products in by_evaluation.items() if name.partition("__")[0] in varied}


def suite_tables(
    workspace: Workspace, by_evaluation: dict[str, dict[str, Product]], overlaps: Overlaps
) -> tuple[SuiteTable, ...]:
    """Return the tables of the products of `suite_products`, one for each task, in the order of the suite."""
    ordered = dict(sorted(by_evaluation.items(), key=lambda item: _order(item[0])))
    probes = {
        name: {
            other: {part: Probe.load(folder) for part, folder in folders_of(workspace, product).items()}
            for other, product in products.items()
        }
        for name, products in ordered.items()
    }
    compared = _compared(probes)
    leads = _leads(workspace, ordered, compared)
    tables = []
    for task, labels in SUITE_TASKS.items():
        rows = tuple(
            _row(name, products, probes[name], leads[name], compared.get(name, {}), overlaps)
            for name, products in ordered.items()
            if name.partition("__")[0] == task
        )
        if rows:
            tables.append(SuiteTable(task=task, title=labels.title, rows=rows))
    return tuple(tables)


def suite_folders(workspace: Workspace, by_evaluation: dict[str, dict[str, Product]]) -> dict[str, dict[str, Path]]:
    """Return the folders of the probes behind the products of `suite_products`, by part and name."""
    folders: dict[str, dict[str, Path]] = {}
    for products in by_evaluation.values():
        for other, product in products.items():
            for part, folder in folders_of(workspace, product).items():
                folders.setdefault(part, {})[other] = folder
    return folders


def _others(by_evaluation: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return the names of other features than ours in any evaluation, in the order of the page."""
    names = {name for products in by_evaluation.values() for name in products}
    return [name for name in TITLES if name != OURS.probe and name in names]


def _compared(probes: Mapping[str, Mapping[str, Mapping[str, Probe]]]) -> dict[str, dict[str, TaskComparison]]:
    """Return ours minus each other, by evaluation and name, also of each label; not of evaluations with draws."""
    comparisons: dict[str, dict[str, TaskComparison]] = {}
    for other in _others(probes):
        pairs = {}
        for name, products in probes.items():
            if list(products[OURS.probe]) == [name] and other in products:
                first, second = products[OURS.probe][name], products[other][name]
                if first.comparable(second):
                    pairs[name] = (first.about["title"], first.result, second.result)
        for name, comparison in zip(pairs, compare_results(list(pairs.values()), ProbeConfig()), strict=True):
            comparisons.setdefault(name, {})[other] = comparison
    return comparisons


def _leads(
    workspace: Workspace,
    by_evaluation: Mapping[str, Mapping[str, Product]],
    compared: Mapping[str, Mapping[str, TaskComparison]],
) -> dict[str, dict[str, AucDifference]]:
    """Return ours minus each other, by evaluation and name; of draws, the mean difference.

    compared: the differences that are known already.
    """
    leads: dict[str, dict[str, AucDifference]] = {name: {} for name in by_evaluation}
    most = RESAMPLES_A_COMPARISON * len(by_evaluation)
    for other in _others(by_evaluation):
        differences: dict[str, PairedDifference] = {}
        for name, products in by_evaluation.items():
            if other in compared.get(name, {}):
                differences[name] = compared[name][other].difference
            elif other in products:
                ahead = paired_lead(workspace, products[OURS.probe], products[other], ProbeConfig(), most)
                differences |= {} if ahead is None else {name: ahead}
        adjusted = holm([difference.p_value for difference in differences.values()])
        for (name, difference), p_adjusted in zip(differences.items(), adjusted, strict=True):
            leads[name][other] = AucDifference(difference=difference, p_adjusted=p_adjusted)
    return leads


def _is_evaluation(name: str) -> bool:
    """Whether a name is an evaluation's. Not so: a single draw of few labels, the user's own labels, a removed task."""
    try:
        evaluation(name)
    except ValueError:
        return False
    return True


def _is_of(workspace: Workspace, product: Product, digest: str) -> bool:
    """Whether a product, or each of its draws, is of the encoder with this digest and of the current ECGs."""
    for folder in folders_of(workspace, product).values():
        about = probed(folder)
        shards = {shard.name: shard.digest for shard in shards_of(workspace, about["task"]["source"]).values()}
        if about["encoder"]["digest"] != digest or about["ecgs"] != shards:
            return False
    return True


def _row(
    name: str,
    products: dict[str, Product],
    probes: Mapping[str, Mapping[str, Probe]],
    ahead: dict[str, AucDifference],
    compared: Mapping[str, TaskComparison],
    overlaps: Overlaps,
) -> SuiteRow:
    """Return the row of an evaluation.

    products: by the features' name.
    probes: by the features' name and by draw, or by the evaluation if it has no draws.
    ahead, compared: ours minus each other, without and with labels.
    """
    requested = evaluation(name)
    variants = name.split("__")[1:]
    facts = {other: ProbeFacts.of(product) for other, product in products.items()}
    share = [] if requested.percent is None else [variants[-1]]
    is_budget = requested.head == "linear" and variants == share  # a point of the label-budget curve
    adjusted = {other: replace(one, p_adjusted=ahead[other].p_adjusted) for other, one in compared.items()}
    parts = tuple(
        task_report(part, {other: of_draws[part] for other, of_draws in probes.items()}, overlaps, adjusted)
        for part in (probes[OURS.probe] if variants else ())
    )
    return SuiteRow(
        name=name,
        title=", ".join(map(_in_words, variants)) or "linear",
        auc=_not_none({other: of_other.test_macro_auc for other, of_other in facts.items()}),
        accuracy=_not_none({other: of_other.test_accuracy for other, of_other in facts.items()}),
        ahead=ahead,
        seen={other: overlaps.of_probe(next(iter(of_draws.values()))) for other, of_draws in probes.items()},
        reason=facts[OURS.probe].reason,
        labels_scored=labels_of_draws([probe.result for probe in probes[OURS.probe].values()]),
        left_out=_left_out(facts[OURS.probe]),
        percent=(100.0 if requested.percent is None else requested.percent) if is_budget else None,
        labels_used=labels_used(products[OURS.probe]),
        published=published_for(name),
        parts=parts,
    )


def _left_out(facts: ProbeFacts) -> tuple[str, ...]:
    """Return the labels that were not scored; of several draws, with their number if it was not all."""
    draws = [facts] if facts.draws is None else facts.draws
    times = Counter(label for draw in draws for label in draw.omitted or ())
    return tuple(label if n == len(draws) else f"{label} (in {n} of {len(draws)} draws)" for label, n in times.items())


def _in_words(variant: str) -> str:
    """Return a variant's title: `labels_10` -> `10 % of the labels`, `leads_II_V1` -> `leads II, V1`."""
    kind, _, rest = variant.partition("_")
    if kind == "labels":
        return f"{rest} % of the labels"
    if kind == "leads":
        return f"leads {rest.replace('_', ', ')}"
    return variant.replace("_", " ")


def _order(name: str) -> tuple[int, str]:
    """Sort key of an evaluation: the linear probe on all labels, then the suite's order, then other evaluations."""
    known = list(SUITE)
    return (-1 if "__" not in name else known.index(name) if name in SUITE else len(known), name)


def _not_none(intervals: Mapping[str, Interval | None]) -> dict[str, Interval]:
    """Return the intervals that are not None."""
    return {name: interval for name, interval in intervals.items() if interval is not None}
