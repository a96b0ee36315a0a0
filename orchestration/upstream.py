"""A job that asks the hosts whether their files changed since the download. The answer is on each raw asset."""

import dagster as dg
from pydantic import Field

from assets.resources import DataHome

ASK = "ask_upstream"


class AskConfig(dg.Config):
    take: bool = Field(
        default=False,
        description="Store the new lists, so that changed partitions are fetched again when they are materialized.",
    )


@dg.op(
    description="Fetch only each source's list of files, and compare it with the files that were downloaded.",
    pool="download",
)
def ask_hosts(context: dg.OpExecutionContext, data_home: DataHome, config: AskConfig) -> None:
    from pipelines.maintenance.upstream import ask

    for answer in ask(data_home.open(), take=config.take):
        text = answer.in_words()
        (context.log.info if answer.unchanged else context.log.warning)(f"{answer.source}: {text}")
        metadata = {"upstream": text, "unchanged": answer.unchanged}
        context.log_event(dg.AssetObservation(["raw", answer.source], metadata=metadata))


@dg.job(
    name=ASK,
    description="Ask the hosts whether their files changed since the download; the answer is an observation of each "
    "raw/<source>. Only lists are fetched, and a change is reported, not a failure.",
)
def upstream_job() -> None:
    ask_hosts()
