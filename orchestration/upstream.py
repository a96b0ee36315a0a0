"""A job that asks the hosts whether they still have what was downloaded. The answer stands on each raw asset."""

import dagster as dg
from pydantic import Field

from assets.resources import DataHome

ASK = "ask_upstream"


class AskConfig(dg.Config):
    take: bool = Field(
        default=False,
        description="Keep the new lists, so that partitions that changed are fetched again when they are materialized.",
    )


@dg.op(
    description="Fetch each source's list of files, and nothing else, and compare it with what was taken.",
    pool="download",
)
def ask_hosts(context: dg.OpExecutionContext, data_home: DataHome, config: AskConfig) -> None:
    from pipelines.maintenance.upstream import ask

    for one in ask(data_home.open(), take=config.take):
        told = one.in_words()
        (context.log.info if one.unchanged else context.log.warning)(f"{one.source}: {told}")
        metadata = {"upstream": told, "unchanged": one.unchanged}
        context.log_event(dg.AssetObservation(["raw", one.source], metadata=metadata))


@dg.job(
    name=ASK,
    description="Ask the hosts whether they still have what was downloaded; the answer is an observation of each "
    "raw/<source>. Nothing is fetched but lists, and nothing fails where something changed.",
)
def upstream_job() -> None:
    ask_hosts()
