"""`ecg embed --drop` and `--shard`: embeddings of harmonized ECGs, as the evaluations compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipelines.cache import Product, Workspace

_NAMED = 10  # shards, in a sentence


def embed_harmonized(
    drops: Sequence[str], shards: Sequence[str], model: str
) -> tuple[dict[str, list[str | None]], NDArray[np.float32]]:
    """Return the columns `file` (the shard), record_id and patient_id, and the embeddings, (N, D).

    model: an encoder as `ecg compare` names it

    Raises ValueError for ECGs that are not harmonized, and for a model that does not exist.
    """
    from pipelines.cache import in_use
    from pipelines.cli.console import counting
    from pipelines.cli.store import existing_store
    from pipelines.evaluate.features import FeatureConfig
    from pipelines.formats.shard import open_shard
    from pipelines.home import Home
    from pipelines.release.resolve import named_encoder

    home = Home.default()
    workspace = home.workspace()
    chosen = harmonized_shards(workspace, drops, shards)
    columns: dict[str, list[str | None]] = {"file": [], "record_id": [], "patient_id": []}
    embeddings: list[NDArray[np.float32]] = []
    with (
        in_use(shard.path for shard in chosen),
        named_encoder(model, workspace, existing_store(home)) as encoder,
        counting("embedding") as on_count,
    ):
        extract = encoder.extractor(FeatureConfig())
        opened = [open_shard(shard.path) for shard in chosen]
        total, done = sum(map(len, opened)), 0
        for product, shard in zip(chosen, opened, strict=True):
            records = shard.records()
            columns["file"] += [product.name] * len(shard)
            for name in ("record_id", "patient_id"):
                columns[name] += records.column(name).to_pylist()
            for first, end in shard.spans():
                embeddings.append(
                    extract(shard.read(first, end), lambda count, _, before=done: on_count(before + count, total))
                )
                done += end - first
    if not done:
        raise ValueError(f"{', '.join(shard.name for shard in chosen)}: no record was kept, so there is none to embed")
    return columns, np.concatenate(embeddings)


def harmonized_shards(workspace: Workspace, drops: Sequence[str], shards: Sequence[str]) -> list[Product]:
    """Return the current shards of drops, and of names such as ecgs/ptbxl/00000, ptbxl/00000 or ptbxl, each once.

    Raises ValueError for one that is not harmonized.
    """
    from pipelines.harmonize.shards import all_shards
    from pipelines.incoming.listing import NAME, check_name

    here = all_shards(workspace)
    found: dict[str, Product] = {}
    for text in (*(f"{NAME}/{check_name(name)}" for name in drops), *shards):
        name = text.removeprefix("ecgs/").rstrip("/")
        matching = {known: product for known, product in here.items() if known == name or known.split("/")[0] == name}
        if not matching:
            raise ValueError(f"{text} is not harmonized here ({_listed(list(here))}): {_remedy(name)}")
        found |= matching
    return list(found.values())


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nothing is"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"there are {', '.join(names[:_NAMED])}{more}"


def _remedy(name: str) -> str:
    from pipelines.incoming.listing import NAME
    from pipelines.sources import SOURCES

    if name.split("/")[0] in (*SOURCES, NAME):
        return f"run `ecg run download harmonize --partition {name}` first"
    return "name one of these, or of `ecg sources`"
