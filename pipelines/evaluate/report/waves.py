"""The report on waves: segmentations and regressions of an encoder, read from the current products.

The rows are those of `waves.tables`, with the columns of published figures added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.cache import Product, Workspace
from pipelines.evaluate.report.model import WaveReport
from pipelines.evaluate.report.published import WAVE_FIGURES, WaveFigure
from pipelines.evaluate.waves.segmentation import SCORES_FILE, SegmentationFacts
from pipelines.evaluate.waves.tables import (
    EXAMPLES_FILE,
    Row,
    boundary_rows,
    error_rows,
    overlap_rows,
    read_off_rows,
)
from pipelines.harmonize.shards import shards_of

MODES = {"": "frozen", "__fine_tuned": "fine-tuned"}
"""How the encoder of a segmentation was trained, by the end of the product's name."""


@dataclass(frozen=True, kw_only=True)
class WaveProducts:
    """The products of one task of waves."""

    segmentations: dict[str, dict[str, Product]]
    """By mode, then by the encoder's name, ours first."""
    regressions: tuple[Product, ...]
    """Ours, then the random baseline's."""

    def all(self) -> list[Product]:
        """Return all products, ours first."""
        return [*(product for named in self.segmentations.values() for product in named.values()), *self.regressions]


def wave_products(workspace: Workspace, digest: str, ours: str, random_baseline: str) -> dict[str, WaveProducts]:
    """Return the current products of an encoder and its random baseline on the current ECGs, by task.

    digest: of the encoder's file.
    ours, random_baseline: the names in products.
    """
    by_task: dict[str, WaveProducts] = {}
    tasks = {path.name for kind in ("segmentation", "regression") for path in workspace.folder(kind).glob("*")}
    for task in sorted(tasks):
        segmentations: dict[str, dict[str, Product]] = {}
        for suffix, mode in MODES.items():
            named = _current(workspace, f"segmentation/{task}", suffix, digest, ours, random_baseline)
            # One table shows one set of waves: a mode on another share of pseudo-labels is left out.
            products = [product for group in (named, *segmentations.values()) for product in group.values()]
            if named and len({SegmentationFacts.of(product).data_digest for product in products}) == 1:
                segmentations[mode] = named
        regressions = _current(workspace, f"regression/{task}", "", digest, ours, random_baseline)
        if segmentations or regressions:
            by_task[task] = WaveProducts(segmentations=segmentations, regressions=tuple(regressions.values()))
    return by_task


def inputs_of(by_task: Mapping[str, WaveProducts]) -> dict[str, str]:
    """Return the digests of these products and of their pictures, by name."""
    products = [product for of_task in by_task.values() for product in of_task.all()]
    pictures = {f"{one.name}/{EXAMPLES_FILE}": picture for one in products if (picture := picture_of(one)) is not None}
    return {product.name: product.digest for product in products} | {
        name: hashlib.sha256(picture).hexdigest() for name, picture in pictures.items()
    }


def picture_of(segmentation: Product) -> bytes | None:
    """Return the examples on ECG paper that were drawn of a segmentation, or None."""
    path = segmentation.aside / EXAMPLES_FILE
    return path.read_bytes() if path.is_file() else None


def wave_reports(by_task: Mapping[str, WaveProducts], titles: Mapping[str, str]) -> tuple[WaveReport, ...]:
    """Return each task's tables. titles: of encoders, by their name in products."""
    return tuple(_report(task, products, titles) for task, products in by_task.items())


def shown_segmentation(products: WaveProducts) -> tuple[str, Product] | None:
    """Return the mode and the product of our segmentation whose boundaries are shown, or None if none was scored.

    It is the fine-tuned one if it was scored, else the frozen one. To show the better one would be a choice on test.
    """
    ours = {mode: next(iter(named.values())) for mode, named in products.segmentations.items()}
    scored = [(mode, product) for mode, product in ours.items() if SegmentationFacts.of(product).scored]
    return scored[-1] if scored else None


def _report(task: str, products: WaveProducts, titles: Mapping[str, str]) -> WaveReport:
    segmentations, published, reasons = {}, [], []
    for mode, named in products.segmentations.items():
        for name, product in named.items():
            title, facts = f"{titles[name]}, {mode}", SegmentationFacts.of(product)
            segmentations[title] = product
            if facts.scored:
                published.append(WAVE_FIGURES.get(f"miou, {mode}"))
            else:
                reasons.append(f"{title}: {facts.reason}")
    shown = shown_segmentation(products)
    errors: list[Row] = []
    if len(products.regressions) == 2:
        errors = [{**row, **_published(WAVE_FIGURES.get(row["figure"]))} for row in error_rows(*products.regressions)]
    overlap = zip(overlap_rows(segmentations), published, strict=True)
    return WaveReport(
        task=task,
        title=_stored(products.all()[0])["title"],
        overlap=tuple({**row, **_published(figure)} for row, figure in overlap),
        shown=None if shown is None else shown[0],
        boundaries=() if shown is None else tuple(boundary_rows(shown[1])),
        read_off=() if shown is None else tuple(read_off_rows(shown[1])),
        errors=tuple(errors),
        reasons=tuple(reasons),
    )


def _published(figure: WaveFigure | None) -> Row:
    ours, best = ("", "") if figure is None else (figure.ecg_jepa, figure.best)
    return {"published: ECG-JEPA": ours, "published: best known": best}


def _current(
    workspace: Workspace, kind_and_task: str, suffix: str, digest: str, ours: str, random_baseline: str
) -> dict[str, Product]:
    """Return our product, and the random baseline's if it is of the same data, by the encoder's name.

    kind_and_task: such as `segmentation/ludb_manual`.
    suffix: one of MODES.
    digest: of our encoder's file; nothing is returned if our product is of another encoder or of other ECGs.
    ours, random_baseline: the names in products.
    """
    first = workspace.current(f"{kind_and_task}/{ours}{suffix}")
    if first is None:
        return {}
    stored = _stored(first)
    shards = {shard.name: shard.digest for shard in shards_of(workspace, stored["task"]["source"]).values()}
    if stored["encoder"]["digest"] != digest or stored["ecgs"] != shards:
        return {}
    second = workspace.current(f"{kind_and_task}/{random_baseline}{suffix}")
    if second is None or _stored(second)["data_digest"] != stored["data_digest"]:
        return {ours: first}
    return {ours: first, random_baseline: second}


def _stored(product: Product) -> dict[str, Any]:
    """Return a product's scores.json."""
    return json.loads((product.path / SCORES_FILE).read_text())
