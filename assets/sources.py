"""Two assets a source, partitioned by its shards: the verified raw files, and the harmonized ECGs. Own ECGs likewise,
partitioned by the drops that there are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets import show
from assets.forms import Part, form
from assets.resources import DataHome
from pipelines import versions
from pipelines.harmonize.checks import COUNTS_ADD_UP, SHARD_IS_WHOLE
from pipelines.harmonize.convert import Incomplete
from pipelines.harmonize.quality import QualityLimits
from pipelines.incoming import INCOMING
from pipelines.sources import SOURCES
from pipelines.sources.base import Source

if TYPE_CHECKING:
    from pipelines.cache import Product
    from pipelines.finding import Finding

# A host that is away comes back; many that ask again do not ask at once. A wrong file fails at once (`show`).
FETCHED_AGAIN = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


LIMITS = Part(QualityLimits)
INCOMPLETE = Part(Incomplete, defaults={"mark_leads": True})


class DownloadConfig(dg.Config):
    connections: int = Field(default=16, ge=1, le=64, description="Parallel connections to one host.")
    bring_back: bool = Field(
        default=False, description="Fetch raw files again that were let go after harmonization (keep_raw off)."
    )


class HarmonizeConfig(form(LIMITS)):
    """Limits of quality, and what becomes of the raw files."""

    keep_raw: bool = Field(
        default=True,
        description="Keep the downloaded files of the partition. Off: they are deleted once it is harmonized and "
        "checked, and not fetched again while that is current. Files of a folder mirror always stay.",
    )


class HarmonizeOwnConfig(form(LIMITS, INCOMPLETE)):
    """Limits of quality, and what becomes of records that lack time or leads."""


def source_assets(source: Source) -> list[dg.AssetsDefinition]:
    """`raw/<source>` and `ecgs/<source>`: the UI shows the last part of a key, and the group says the rest."""
    partitions = dg.StaticPartitionsDefinition(list(source.partitions))
    tags = {"ecg/role": str(source.role)}
    about = f"{source.title} {source.version}, for {source.role} ({source.licence}). {source.homepage}"

    @dg.asset(
        key=["raw", source.name],
        partitions_def=partitions,
        group_name="download",
        description=f"Files as published, verified against the source's own list of checksums. {about}",
        code_version=versions.RAW,
        kinds={"file"},
        tags=tags,
        pool="download",
        retry_policy=FETCHED_AGAIN,
    )
    def raw(context: dg.AssetExecutionContext, data_home: DataHome, config: DownloadConfig) -> dg.MaterializeResult:
        from pipelines.download.mirror import Mirror
        from pipelines.download.progress import throttled
        from pipelines.download.step import materialize_raw

        home = data_home.open()
        with show.mistakes_explained():
            product = materialize_raw(
                home.workspace(),
                source,
                context.partition_key,
                mirror=Mirror.parse(home.mirror),
                raw_root=home.raw_root,
                connections=config.connections,
                progress=throttled(context.log.info),
                bring_back=config.bring_back,
            )
        return _fetched(product)

    @dg.asset(
        key=["ecgs", source.name],
        deps=[raw],
        partitions_def=partitions,
        group_name="harmonize",
        description="Eight leads, ten seconds, 250 Hz, 16-bit microvolt in Zarr; a table of records and one of drops. "
        f"{about}",
        code_version=versions.ECGS,
        retry_policy=show.ONCE_MORE,
        kinds={"zarr", "parquet"},
        pool="harmonize",
        tags=tags,
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
            product = materialize_ecgs(
                workspace,
                source,
                context.partition_key,
                limits=LIMITS.read(config),
            )
        found = recorded_findings(product)
        if not config.keep_raw and all(finding.holds for finding in found.values()):
            freed = discard_raw(workspace, source, context.partition_key, raw_root=home.raw_root)
            context.log.info(f"raw files let go: {format_bytes(freed)}")
        return _harmonized(product, found)

    return [raw, ecgs]


def _checks_of(source: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=["ecgs", source], blocking=True, description=text)
        for name, text in (
            (COUNTS_ADD_UP, "Records that the source lists = records that entered = kept + dropped with a reason."),
            (SHARD_IS_WHOLE, "The array holds the eight leads in order and a row for each record, none of them empty."),
        )
    ]


def _fetched(product: "Product") -> dg.MaterializeResult:
    """Raw files as Dagster shows them."""
    from pipelines.download.step import RawFacts, recorded_files
    from pipelines.plots.files import files_chart  # not through the gallery, which brings torch along

    _, listed = recorded_files(product)
    chart = files_chart([(file.path, file.bytes or 0) for file in listed], f"{product.name}: {len(listed):,} files")
    return show.materialized(product, {**RawFacts.of(product).to_dict(), **show.pictures(kinds=chart)})


def _harmonized(product: "Product", found: Mapping[str, "Finding"]) -> dg.MaterializeResult:
    """A harmonized partition as Dagster shows it; found: by the checks' names."""
    from assets.previews import quality_histograms, sampled_ecgs
    from pipelines.harmonize.shards import HarmonizedFacts

    facts = HarmonizedFacts.of(product)
    return show.materialized(
        product,
        {
            "dagster/row_count": facts.kept,
            "entered": facts.entered,
            "dropped": show.counts(facts.dropped, "reason", "records", "Nothing was dropped."),
            **show.pictures(ECGs=sampled_ecgs(product), quality=quality_histograms(product)),
        },
        [show.checked(name, finding) for name, finding in found.items()],
    )


incoming_drops = dg.DynamicPartitionsDefinition(name="incoming_drops")


@dg.asset(
    key=["raw", INCOMING.name],
    partitions_def=incoming_drops,
    group_name="download",
    description="A drop of own ECGs, copied and hashed once its marker is there; docs/own-data.md says how to write "
    "one, and `ecg check-drop` what would be read. A partition is a sub-folder of $ECG_INCOMING or $ECG_HOME/incoming.",
    code_version=versions.RAW,
    kinds={"file"},
    tags={"ecg/role": str(INCOMING.role)},
    pool="download",
    retry_policy=FETCHED_AGAIN,
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
    "drops. Leads that were not recorded are zeros, and named in the record's notes.",
    code_version=versions.ECGS,
    retry_policy=show.ONCE_MORE,
    kinds={"zarr", "parquet"},
    pool="harmonize",
    tags={"ecg/role": str(INCOMING.role)},
    check_specs=_checks_of(INCOMING.name),
)
def ecgs_incoming(
    context: dg.AssetExecutionContext, data_home: DataHome, config: HarmonizeOwnConfig
) -> dg.MaterializeResult:
    from pipelines.harmonize.checks import recorded_findings
    from pipelines.harmonize.step import materialize_ecgs

    with show.mistakes_explained():
        product = materialize_ecgs(
            data_home.open().workspace(),
            INCOMING,
            context.partition_key,
            limits=LIMITS.read(config),
            incomplete=INCOMPLETE.read(config),
        )
    return _harmonized(product, recorded_findings(product))


all_source_assets = [
    *(asset for source in SOURCES.values() for asset in source_assets(source)),
    raw_incoming,
    ecgs_incoming,
]
