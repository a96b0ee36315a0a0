"""What the report tells of waves: segmentations and regressions of an encoder, read from the products that are there.

Rows are a table's, by column, as `wave_views` writes them, with the published figure beside ours.
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
from pipelines.evaluate.waves.segmentation import SCORES_FILE
from pipelines.evaluate.waves.tables import (
    EXAMPLES_FILE,
    Row,
    boundary_rows,
    error_rows,
    overlap_rows,
    read_off_rows,
)
from pipelines.harmonize.shards import shards_of

WAYS = {"": "frozen", "__fine_tuned": "fine-tuned"}
"""How an encoder is segmented with, by what its product's name ends in."""


@dataclass(frozen=True, kw_only=True)
class WaveProducts:
    """Of one task of waves: segmentations by way, ours and the random baseline's, and regressions, ours first."""

    segmentations: dict[str, dict[str, Product]]
    regressions: tuple[Product, ...]

    def all(self) -> list[Product]:
        return [*(one for named in self.segmentations.values() for one in named.values()), *self.regressions]


def wave_products(workspace: Workspace, digest: str, ours: str, random_baseline: str) -> dict[str, WaveProducts]:
    """By task, what there is of the encoder of that digest and the ECGs that are here now, and of its random baseline
    the same."""
    found: dict[str, WaveProducts] = {}
    tasks = {path.name for kind in ("segmentation", "regression") for path in workspace.folder(kind).glob("*")}
    for task in sorted(tasks):
        segmentations: dict[str, dict[str, Product]] = {}
        for ending, way in WAYS.items():
            named = _of(workspace, f"segmentation/{task}", ending, digest, ours, random_baseline)
            # Ways of other waves, such as another share of pseudo-labels, do not stand in one table.
            data = {one.facts["data_digest"] for each in (named, *segmentations.values()) for one in each.values()}
            if named and len(data) == 1:
                segmentations[way] = named
        regressions = _of(workspace, f"regression/{task}", "", digest, ours, random_baseline)
        if segmentations or regressions:
            found[task] = WaveProducts(segmentations=segmentations, regressions=tuple(regressions.values()))
    return found


def inputs_of(found: Mapping[str, WaveProducts]) -> dict[str, str]:
    """What a page on these depends on, by name: their digests, and those of their pictures."""
    products = [product for of_task in found.values() for product in of_task.all()]
    pictures = {f"{one.name}/{EXAMPLES_FILE}": picture for one in products if (picture := picture_of(one)) is not None}
    return {one.name: one.digest for one in products} | {
        name: hashlib.sha256(picture).hexdigest() for name, picture in pictures.items()
    }


def picture_of(segmentation: Product) -> bytes | None:
    """The examples on ECG paper that were drawn of a segmentation; None where none were."""
    path = segmentation.aside / EXAMPLES_FILE
    return path.read_bytes() if path.is_file() else None


def wave_reports(found: Mapping[str, WaveProducts], titles: Mapping[str, str]) -> tuple[WaveReport, ...]:
    """Each task's tables. titles: what probes go by, by name."""
    return tuple(_report(task, products, titles) for task, products in found.items())


def shown_of(products: WaveProducts) -> tuple[str, Product] | None:
    """Our segmentation whose boundaries are shown, and the way it was done: fine-tuned where it was, else frozen, since
    to take the better one would be a choice on test. None where none was scored."""
    ours = {way: next(iter(named.values())) for way, named in products.segmentations.items()}
    scored = [(way, one) for way, one in ours.items() if one.facts["scored"]]
    return scored[-1] if scored else None


def _report(task: str, products: WaveProducts, titles: Mapping[str, str]) -> WaveReport:
    called = {
        f"{titles[name]}, {way}": product
        for way, named in products.segmentations.items()
        for name, product in named.items()
    }
    published = [
        WAVE_FIGURES.get(f"miou, {way}")
        for way, named in products.segmentations.items()
        for one in named.values()
        if one.facts["scored"]
    ]
    shown = shown_of(products)
    errors: list[Row] = []
    if len(products.regressions) == 2:
        errors = [{**row, **_published(WAVE_FIGURES.get(row["figure"]))} for row in error_rows(*products.regressions)]
    about = _about(products.all()[0])
    return WaveReport(
        task=task,
        title=about["title"],
        overlap=tuple(
            {**row, **_published(figure)} for row, figure in zip(overlap_rows(called), published, strict=True)
        ),
        shown=None if shown is None else shown[0],
        boundaries=() if shown is None else tuple(boundary_rows(shown[1])),
        read_off=() if shown is None else tuple(read_off_rows(shown[1])),
        errors=tuple(errors),
        reasons=tuple(f"{name}: {one.facts['reason']}" for name, one in called.items() if not one.facts["scored"]),
    )


def _published(figure: WaveFigure | None) -> Row:
    ours, best = ("", "") if figure is None else (figure.ecg_jepa, figure.best)
    return {"published: ECG-JEPA": ours, "published: best known": best}


def _of(
    workspace: Workspace, kind: str, ending: str, digest: str, ours: str, random_baseline: str
) -> dict[str, Product]:
    """Ours, and the random baseline's of the same data; nothing where ours is of another encoder or of other ECGs."""
    first = workspace.current(f"{kind}/{ours}{ending}")
    if first is None:
        return {}
    about = _about(first)
    here = {one.name: one.digest for one in shards_of(workspace, about["task"]["source"]).values()}
    if about["encoder"]["digest"] != digest or about["ecgs"] != here:
        return {}
    second = workspace.current(f"{kind}/{random_baseline}{ending}")
    same = second is not None and second.facts["data_digest"] == first.facts["data_digest"]
    return {ours: first} | ({random_baseline: second} if same and second is not None else {})


def _about(product: Product) -> dict[str, Any]:
    return json.loads((product.path / SCORES_FILE).read_text())
