"""Two assets per source, partitioned as the source is: the verified raw files, and the harmonized ECGs. Own ECGs have
the same two assets, partitioned by drop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets import show
from assets.forms import Part, form
from assets.resources import DataHome
from pipelines import versions
from pipelines.harmonize.checks import COUNTS_ADD_UP, EVERY_FILE_READ, SHARD_IS_WHOLE
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import MARKED, Incomplete
from pipelines.incoming import INCOMING, own_data
from pipelines.sources import SOURCES
from pipelines.sources.base import Source

if TYPE_CHECKING:
    from pipelines.cache import Product
    from pipelines.finding import Finding

# A host that is away is tried again, not by all steps at the same moment. A wrong file fails at once (see `show`).
DOWNLOAD_RETRIES = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


LIMITS = Part(QualityLimits)
INCOMPLETE = Part(Incomplete, defaults={"mark_leads": MARKED.mark_leads})


class DownloadConfig(dg.Config):
    """How raw files are downloaded."""

    connections: int = Field(default=16, ge=1, le=64, description="Parallel connections to one host.")
    bring_back: bool = Field(
        default=False, description="Fetch raw files again that were deleted after harmonization (keep_raw off)."
    )


class HarmonizeConfig(form(LIMITS)):
    """Quality limits, and what becomes of the raw files."""

    keep_raw: bool = Field(
        default=True,
        description="Keep the downloaded files of the partition. Off: they are deleted once it is harmonized and "
        "checked, and not fetched again while the result is current. Files of a folder mirror are never deleted.",
    )


class HarmonizeOwnConfig(form(LIMITS, INCOMPLETE)):
    """Quality limits, and what becomes of records that lack time or leads."""


def source_assets(source: Source) -> list[dg.AssetsDefinition]:
    """Return `raw/<source>` and `ecgs/<source>`. The UI shows the last part of a key; the group tells them apart."""
    partitions = dg.StaticPartitionsDefinition(list(source.partitions))
    raw = _raw(source, partitions)
    return [raw, _ecgs(source, partitions, raw)]


def _about(source: Source) -> str:
    return f"{source.title} {source.version}, for {source.role} ({source.licence}). {source.homepage}"


def _raw(source: Source, partitions: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=["raw", source.name],
        partitions_def=partitions,
        group_name="download",
        description=f"Files as published, verified against the source's own list of checksums. {_about(source)}",
        code_version=versions.RAW,
        kinds={"file"},
        tags={"ecg/role": str(source.role)},
        pool="download",
        retry_policy=DOWNLOAD_RETRIES,
    )
    def raw(context: dg.AssetExecutionContext, data_home: DataHome, config: DownloadConfig) -> dg.MaterializeResult:
        from pipelines.download.progress import throttled
        from pipelines.download.step import download_to_home

        with show.mistakes_explained():
            product = download_to_home(
                data_home.open(),
                source,
                context.partition_key,
                connections=config.connections,
                progress=throttled(context.log.info),
                bring_back=config.bring_back,
            )
        return _fetched(product)

    return raw


def _ecgs(source: Source, partitions: dg.StaticPartitionsDefinition, raw: dg.AssetsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ecgs", source.name],
        deps=[raw],
        partitions_def=partitions,
        group_name="harmonize",
        description="Eight leads, ten seconds, 250 Hz, 16-bit microvolt in Zarr; a table of records and one of "
        f"dropped records. {_about(source)}",
        code_version=versions.ECGS,
        retry_policy=show.ONCE_MORE,
        kinds={"zarr", "parquet"},
        pool="harmonize",
        tags={"ecg/role": str(source.role)},
        check_specs=_checks_of(source.name),
    )
    def ecgs(context: dg.AssetExecutionContext, data_home: DataHome, config: HarmonizeConfig) -> dg.MaterializeResult:
        from pipelines.download.step import discard_raw
        from pipelines.formatting import format_bytes
        from pipelines.harmonize.checks import recorded_findings
        from pipelines.harmonize.step import materialize_ecgs

        home = data_home.open()
        workspace = home.workspace()
        with show.mistakes_explained():
            product = materialize_ecgs(workspace, source, context.partition_key, limits=LIMITS.read(config))
        findings = recorded_findings(product)
        if not config.keep_raw and all(finding.holds for finding in findings.values()):
            freed = discard_raw(workspace, source, context.partition_key, raw_root=home.raw_root)
            context.log.info(f"raw files deleted: {format_bytes(freed)}")
        return _harmonized(product, findings)

    return ecgs


def _checks_of(source: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=["ecgs", source], blocking=True, description=text)
        for name, text in (
            (COUNTS_ADD_UP, "Records that the source lists = records that were read = kept + dropped with a reason."),
            (SHARD_IS_WHOLE, "The array has the eight leads in order and one row per record; no row is empty."),
        )
    ]


def _fetched(product: "Product") -> dg.MaterializeResult:
    """Return raw files as the result of an asset."""
    from pipelines.download.step import RawFacts, recorded_files
    from pipelines.plots.files import files_chart  # not from `previews`, which imports torch

    def chart(product: "Product") -> bytes | None:
        _, files = recorded_files(product)
        return files_chart([(file.path, file.bytes or 0) for file in files], f"{product.name}: {len(files):,} files")

    kinds = show.drawn_once(product, "kinds", chart)
    return show.materialized(product, {**RawFacts.of(product).to_dict(), **show.pictures(kinds=kinds)})


def _harmonized(
    product: "Product", findings: Mapping[str, "Finding"], *checks: dg.AssetCheckResult
) -> dg.MaterializeResult:
    """Return a harmonized partition as the result of an asset; findings by the names of their checks, other checks."""
    from assets.previews import dropped_records, patients_in_words, quality_histograms, sampled_ecgs
    from pipelines.harmonize.shards import HarmonizedFacts

    facts = HarmonizedFacts.of(product)
    return show.materialized(
        product,
        {
            "dagster/row_count": facts.kept,
            "entered": facts.entered,
            "dropped": show.counts(facts.dropped, "reason", "records", "Nothing was dropped."),
            **show.one_by_one("dropped records", dropped_records(product)),
            "patients": patients_in_words(product),
            "padding trimmed": facts.trimmed,
            "not recorded": show.table(
                [{"lead": lead, "share of its samples": round(share, 6)} for lead, share in facts.missing.items()],
                "No lead lacks a sample.",
            ),
            **show.pictures(
                ECGs=show.drawn_once(product, "ECGs", sampled_ecgs),
                quality=show.drawn_once(product, "quality", quality_histograms),
            ),
        },
        [*(show.checked(name, finding) for name, finding in findings.items()), *checks],
    )


incoming_drops = dg.DynamicPartitionsDefinition(name="incoming_drops")


@dg.asset(
    key=["raw", INCOMING.name],
    partitions_def=incoming_drops,
    group_name="download",
    description="A drop of own ECGs, copied and hashed once its marker is there. docs/own-data.md describes how to "
    "write one; `ecg check-drop` shows what would be read. A partition is a sub-folder of $ECG_INCOMING or "
    "$ECG_HOME/incoming.",
    code_version=versions.RAW,
    kinds={"file"},
    tags={"ecg/role": str(INCOMING.role)},
    pool="download",
    retry_policy=DOWNLOAD_RETRIES,
)
def raw_incoming(context: dg.AssetExecutionContext, data_home: DataHome) -> dg.MaterializeResult:
    from pipelines.incoming.step import materialize_drop

    with show.mistakes_explained():
        product = materialize_drop(data_home.open(), context.partition_key)
    return _fetched(product)


@dg.asset(
    key=["ecgs", INCOMING.name],
    deps=[raw_incoming],
    partitions_def=incoming_drops,
    group_name="harmonize",
    description="Own ECGs: eight leads, ten seconds, 250 Hz, 16-bit microvolt in Zarr; a table of records and one of "
    "dropped records. Leads that were not recorded are zeros, and are named in the record's notes.",
    code_version=versions.ECGS,
    retry_policy=show.ONCE_MORE,
    kinds={"zarr", "parquet"},
    pool="harmonize",
    tags={"ecg/role": str(INCOMING.role)},
    check_specs=[
        *_checks_of(INCOMING.name),
        dg.AssetCheckSpec(
            EVERY_FILE_READ,
            asset=["ecgs", INCOMING.name],
            description="No file of the drop is of a format that is not read. If one is, the others are used.",
        ),
    ],
)
def ecgs_incoming(
    context: dg.AssetExecutionContext, data_home: DataHome, config: HarmonizeOwnConfig
) -> dg.MaterializeResult:
    from pipelines.harmonize.checks import every_file_read, recorded_findings
    from pipelines.harmonize.step import materialize_ecgs

    with show.mistakes_explained():
        home = data_home.open()
        product = materialize_ecgs(
            home.workspace(),
            own_data(home),
            context.partition_key,
            limits=LIMITS.read(config),
            incomplete=INCOMPLETE.read(config),
        )
    unread = show.checked(EVERY_FILE_READ, every_file_read(product), dg.AssetCheckSeverity.WARN)
    return _harmonized(product, recorded_findings(product), unread)


all_source_assets = [
    *(asset for source in SOURCES.values() for asset in source_assets(source)),
    raw_incoming,
    ecgs_incoming,
]
