"""Two assets a source, partitioned by its shards: the verified raw files, and the harmonized ECGs."""

import dagster as dg
from pydantic import Field

from assets import show
from assets.resources import DataHome
from pipelines import versions
from pipelines.sources import SOURCES
from pipelines.sources.base import Source

COUNTS_ADD_UP = "every_record_accounted_for"
SHARD_IS_WHOLE = "leads_in_order_and_no_sample_missing"


class DownloadConfig(dg.Config):
    connections: int = Field(default=16, ge=1, le=64, description="Parallel connections to one host.")
    bring_back: bool = Field(
        default=False, description="Fetch raw files again that were let go after harmonization (keep_raw off)."
    )


class HarmonizeConfig(dg.Config):
    """keep_raw, and the fields of pipelines.quality.QualityLimits, where each default is explained."""

    keep_raw: bool = Field(
        default=True,
        description="Keep the downloaded files of the partition. Off: they are deleted once it is harmonized and "
        "checked, and not fetched again while that is current. Files of a folder mirror always stay.",
    )
    flat_leads: int = Field(default=0, ge=0, le=8, description="How many of the eight leads may be constant.")
    flat_millivolt: float = Field(
        default=0.0005, ge=0, lt=1, description="A lead whose range is at most this, in millivolt, is constant."
    )
    amplitude: float = Field(
        default=32.767, gt=0, le=32.767, description="Largest absolute value that is kept, in millivolt."
    )
    saturation_share: float | None = Field(
        default=None, ge=0, description="Largest share of samples that may stand still at a lead's extreme."
    )
    einthoven: float | None = Field(
        default=None, ge=0, description="Largest rms of III, aVR, aVL, aVF against their formulas, in millivolt."
    )
    wander: float | None = Field(default=None, ge=0, description="Largest rms of 0.05-0.5 Hz, in millivolt.")
    mains: float | None = Field(default=None, ge=0, description="Largest rms of 50 or 60 Hz, in millivolt.")
    noise: float | None = Field(default=None, ge=0, description="Largest rms of 70-110 Hz, in millivolt.")
    heart_rate_least: float | None = Field(default=None, ge=0, description="Slowest rate kept, beats a minute.")
    heart_rate_most: float | None = Field(default=None, ge=0, description="Fastest rate kept, beats a minute.")


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
        retry_policy=dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL),
    )
    def raw(context: dg.AssetExecutionContext, data_home: DataHome, config: DownloadConfig) -> dg.MaterializeResult:
        from pipelines import download, pace

        home = data_home.open()
        with show.mistakes_explained():
            product = download.materialize_raw(
                home.workspace(),
                source,
                context.partition_key,
                mirror=download.Mirror.parse(home.mirror),
                raw_root=home.raw_root,
                connections=config.connections,
                progress=pace.told_now_and_then(context.log.info),
                bring_back=config.bring_back,
            )
        return show.materialized(product, {"files": product.facts["files"], "bytes": product.facts["bytes"]})

    @dg.asset(
        key=["ecgs", source.name],
        deps=[raw],
        partitions_def=partitions,
        group_name="harmonize",
        description="Eight leads, ten seconds, 250 Hz, 16-bit microvolt in Zarr; a table of records and one of drops. "
        f"{about}",
        code_version=versions.ECGS,
        kinds={"zarr", "parquet"},
        tags=tags,
        check_specs=[
            dg.AssetCheckSpec(name, asset=["ecgs", source.name], blocking=True, description=text)
            for name, text in (
                (COUNTS_ADD_UP, "Records that the source lists = records that entered = kept + dropped with a reason."),
                (
                    SHARD_IS_WHOLE,
                    "The array holds the eight leads in order and a row for each record, none of them empty.",
                ),
            )
        ],
    )
    def ecgs(context: dg.AssetExecutionContext, data_home: DataHome, config: HarmonizeConfig) -> dg.MaterializeResult:
        from pipelines import checks, download, gallery, harmonize, pace
        from pipelines.quality import QualityLimits

        home = data_home.open()
        workspace = home.workspace()
        with show.mistakes_explained():
            product = harmonize.materialize_ecgs(
                workspace,
                source,
                context.partition_key,
                limits=QualityLimits(**config.model_dump(exclude={"keep_raw"})),
            )
            _, files = download.recorded(workspace.require(f"raw/{source.name}/{context.partition_key}"))
        found = {
            COUNTS_ADD_UP: checks.counts_add_up(product, checks.records_listed(files)),
            SHARD_IS_WHOLE: checks.shard_is_whole(product),
        }
        if not config.keep_raw and all(finding.holds for finding in found.values()):
            freed = download.let_go(workspace, source, context.partition_key, raw_root=home.raw_root)
            context.log.info(f"raw files let go: {pace.in_bytes(freed)}")
        facts = product.facts
        return show.materialized(
            product,
            {
                "dagster/row_count": facts["kept"],
                "entered": facts["entered"],
                "dropped": show.counts(facts["dropped"], "reason", "records", "Nothing was dropped."),
                **show.pictures(ECGs=gallery.sampled_ecgs(product), quality=gallery.quality_histograms(product)),
            },
            [show.checked(name, finding) for name, finding in found.items()],
        )

    return [raw, ecgs]


all_source_assets = [asset for source in SOURCES.values() for asset in source_assets(source)]
