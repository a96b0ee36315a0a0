"""The product `ecgs/<source>/<partition>`: one harmonized shard."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.download.step import recorded_files, verified_files
from pipelines.harmonize.checks import records_listed, shard_findings
from pipelines.harmonize.convert import OnConverted, harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.harmonize.window import COMPLETE, Incomplete
from pipelines.sources.base import Readable, Source

log = logging.getLogger(__name__)


def materialize_ecgs(
    workspace: Workspace,
    source: Readable,
    partition: str,
    *,
    limits: QualityLimits,
    incomplete: Incomplete = COMPLETE,
    progress: OnConverted | None = None,
) -> Product:
    """Harmonize one downloaded partition: build `ecgs/<source>/<partition>` from `raw/<source>/<partition>`.

    A shard that is damaged, or that never passed its checks, is built again. Facts: `HarmonizedFacts`.
    Raises ValueError if the partition is not downloaded or holds no records, and whatever the reader raises for a file
    that it cannot read at all; no product is left then.
    """
    name = f"{source.name}/{partition}"
    raw = workspace.require(f"raw/{name}")
    # The names of a drop's files do not tell how many records they hold.
    listed = records_listed(recorded_files(raw)[1]) if isinstance(source, Source) else None

    def make(out: Path) -> dict[str, Any]:
        root, files = verified_files(workspace, raw)
        records = source.read(root, partition, files)
        # Partitions are harmonized side by side: BLAS threads of each would spin while they wait for the others' cores.
        with threadpool_limits(1, user_api="blas"):
            counts = harmonize(
                records, out, source=source.name, limits=limits, incomplete=incomplete, progress=progress
            )
        facts = HarmonizedFacts(**counts.facts(), role=source.role.value)
        made = Product(name=f"ecgs/{name}", path=out, fingerprint="", digest="", seconds=0.0, facts=facts.to_dict())
        return replace(facts, findings=shard_findings(made, listed)).to_dict()

    return workspace.build(
        f"ecgs/{name}",
        version=versions.ECGS,
        config={
            "source": name,
            "version": source.version,
            "role": source.role.value,
            "limits": asdict(limits),
            "incomplete": asdict(incomplete),
        },
        inputs={raw.name: raw.digest},
        make=make,
        still_valid=lambda shard: _is_sound(shard, listed),
    )


def _is_sound(shard: Product, listed: int | None) -> bool:
    try:
        return all(finding.holds for finding in shard_findings(shard, listed).values())
    except (ValueError, OSError, RuntimeError) as error:  # codecs raise various errors if the array cannot be read
        log.warning("%s: it is damaged and is harmonized again: %s", shard.name, error)
        return False
