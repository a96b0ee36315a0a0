"""The suite's evaluations of one encoder as tables, a task each, read from the products that are there; and every
figure of each, where it has no section of its own as a plain probe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import SCORES_FILE
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import RESAMPLES_A_COMPARISON, compare_results
from pipelines.evaluate.report.model import TITLES, AucDifference, SuiteRow, SuiteTable, TaskComparison
from pipelines.evaluate.report.published import published_for
from pipelines.evaluate.report.tasks import task_report
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.statistics.paired import holm
from pipelines.evaluate.suite.names import SUITE, Evaluation, evaluation
from pipelines.evaluate.suite.run import folders_of, labels_used, paired_lead
from pipelines.harmonize.shards import shards_of
from pipelines.tasks.catalogue import SUITE_TASKS


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


def suite_tables(
    workspace: Workspace, found: dict[str, dict[str, Product]], overlaps: Overlaps
) -> tuple[SuiteTable, ...]:
    """What `suite_products` found, a table a task, in the order of the suite's tasks."""
    ordered = dict(sorted(found.items(), key=lambda item: _order(item[0])))
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


def suite_folders(workspace: Workspace, found: dict[str, dict[str, Product]]) -> dict[str, dict[str, Path]]:
    """The directories of the probes behind what `suite_products` found, by part and name."""
    folders: dict[str, dict[str, Path]] = {}
    for products in found.values():
        for other, product in products.items():
            for part, folder in folders_of(workspace, product).items():
                folders.setdefault(part, {})[other] = folder
    return folders


def _others(found: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Who stands beside ours somewhere."""
    return [other for other in TITLES if other != OURS.probe and any(other in products for products in found.values())]


def _compared(probes: Mapping[str, Mapping[str, Mapping[str, Probe]]]) -> dict[str, dict[str, TaskComparison]]:
    """Ours minus each other, by evaluation and name, label by label too; of those without draws."""
    found: dict[str, dict[str, TaskComparison]] = {}
    for other in _others(probes):
        pairs = {}
        for name, products in probes.items():
            if list(products[OURS.probe]) == [name] and other in products:
                ours, theirs = products[OURS.probe][name], products[other][name]
                if ours.comparable(theirs):
                    pairs[name] = (ours.about["title"], ours.result, theirs.result)
        for name, one in zip(pairs, compare_results(list(pairs.values()), ProbeConfig()), strict=True):
            found.setdefault(name, {})[other] = one
    return found


def _leads(
    workspace: Workspace,
    found: Mapping[str, Mapping[str, Product]],
    compared: Mapping[str, Mapping[str, TaskComparison]],
) -> dict[str, dict[str, AucDifference]]:
    """Ours over each other, by evaluation and name; of draws, their means."""
    leads: dict[str, dict[str, AucDifference]] = {name: {} for name in found}
    most = RESAMPLES_A_COMPARISON * len(found)
    for other in _others(found):
        differences: dict[str, PairedDifference] = {}
        for name, products in found.items():
            if other in compared.get(name, {}):
                differences[name] = compared[name][other].difference
            elif other in products:
                ahead = paired_lead(workspace, products[OURS.probe], products[other], ProbeConfig(), most)
                differences |= {} if ahead is None else {name: ahead}
        adjusted = holm([one.p_value for one in differences.values()])
        for (name, one), p_adjusted in zip(differences.items(), adjusted, strict=True):
            leads[name][other] = AucDifference(difference=one, p_adjusted=p_adjusted)
    return leads


def _asked(name: str) -> Evaluation | None:
    """The evaluation of that name; None for a single draw of few labels, for labels of one's own, and for what is no
    evaluation any more."""
    try:
        return evaluation(name)
    except ValueError:
        return None


def _is_of(workspace: Workspace, product: Product, digest: str) -> bool:
    """Whether a product, or each of its draws, is of the encoder of that digest and of the ECGs that are here now."""
    for folder in folders_of(workspace, product).values():
        about = json.loads((folder / SCORES_FILE).read_text())["about"]
        here = {one.name: one.digest for one in shards_of(workspace, about["task"]["source"]).values()}
        if about["encoder"]["digest"] != digest or about["ecgs"] != here:
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
    asked = evaluation(name)
    variants = name.split("__")[1:]
    first = products[OURS.probe]
    share = [] if asked.percent is None else [variants[-1]]
    budget = asked.head == "linear" and variants == share
    adjusted = {other: replace(one, p_adjusted=ahead[other].p_adjusted) for other, one in compared.items()}
    parts = tuple(
        task_report(part, {other: of_draws[part] for other, of_draws in probes.items()}, overlaps, adjusted)
        for part in (probes[OURS.probe] if variants else ())
    )
    return SuiteRow(
        name=name,
        title=", ".join(map(_in_words, variants)) or "linear",
        auc=_figures(products, "test_macro_auc"),
        accuracy=_figures(products, "test_accuracy"),
        ahead=ahead,
        seen={other: overlaps.of_probe(next(iter(of_draws.values()))) for other, of_draws in probes.items()},
        reason=first.facts["reason"],
        left_out=_left_out(first),
        percent=(100.0 if asked.percent is None else asked.percent) if budget else None,
        labels_used=labels_used(first),
        published=published_for(name),
        parts=parts,
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
