"""The product `ecgs/<source>/<partition>`: one harmonized shard."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.download.step import recorded_files, verified_files
from pipelines.formats.shard import FINDINGS
from pipelines.harmonize.checks import records_listed, shard_findings
from pipelines.harmonize.convert import COMPLETE, Incomplete, OnConverted, harmonize
from pipelines.harmonize.quality import QualityLimits
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
    """Harmonize one downloaded partition: the product `ecgs/<source>/<partition>` from `raw/<source>/<partition>`.

    Its facts are `Counts.facts`, the source's role, and what its checks found; a shard that was damaged since, or never
    passed them, is made again. Raises ValueError where the partition was not downloaded, what the reader raises for a
    file that cannot be read at all, and where there are no records; nothing is left then.
    """
    name = f"{source.name}/{partition}"
    raw = workspace.require(f"raw/{name}")
    # How many records a drop's files hold is not known from their names.
    listed = records_listed(recorded_files(raw)[1]) if isinstance(source, Source) else None

    def make(out: Path) -> dict[str, Any]:
        root, files = verified_files(workspace, raw)
        # Partitions are harmonized side by side: BLAS threads of each would spin while they wait for the others' cores.
        with threadpool_limits(1, user_api="blas"):
            counts = harmonize(
                source.read(root, partition, files),
                out,
                source=source.name,
                limits=limits,
                incomplete=incomplete,
                progress=progress,
            )
        facts = {**counts.facts(), "role": source.role.value}
        made = Product(name=f"ecgs/{name}", path=out, fingerprint="", digest="", seconds=0.0, facts=facts)
        return {**facts, FINDINGS: {check: asdict(found) for check, found in shard_findings(made, listed).items()}}

    config = {
        "source": name,
        "version": source.version,
        "role": source.role.value,
        "limits": asdict(limits),
        "incomplete": asdict(incomplete),
    }
    return workspace.build(
        f"ecgs/{name}",
        version=versions.ECGS,
        config=config,
        inputs={raw.name: raw.digest},
        make=make,
        still_valid=lambda shard: _is_sound(shard, listed),
    )


def _is_sound(shard: Product, listed: int | None) -> bool:
    try:
        return all(found.holds for found in shard_findings(shard, listed).values())
    except (ValueError, OSError, RuntimeError) as error:  # as many as there are codecs: it cannot even be read
        log.warning("%s: harmonized again, for it is damaged: %s", shard.name, error)
        return False
