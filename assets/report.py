"""The evaluation of the encoder on one page."""

import dagster as dg

from assets import show
from assets.corpus import corpus
from assets.evaluate import probe_assets
from assets.pretrain import encoder
from assets.resources import DataHome
from pipelines import versions


@dg.asset(
    deps=[corpus, encoder, *probe_assets],
    group_name="evaluate",
    description="The verdict on the encoder and its evidence, as one self-contained HTML page: scores with intervals "
    "beside the random encoder's and published ones, label by label, ROC, reliability, embeddings, ECGs.",
    code_version=versions.REPORT,
    retry_policy=show.ONCE_MORE,
    kinds={"html"},
)
def evaluation_report(data_home: DataHome) -> dg.MaterializeResult:
    from assets.previews import scores
    from pipelines.evaluate.report.step import HTML_FILE, ReportFacts, materialize_report

    home = data_home.open()
    with show.mistakes_explained():
        report = materialize_report(home.workspace(), simulated=home.simulated)
    facts = ReportFacts.of(report)
    return show.materialized(
        report,
        {
            "verdict": facts.headline,
            "tasks": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in facts.sentences)),
            "page": dg.MetadataValue.path(str(report.path / HTML_FILE)),
            **show.pictures(scores=scores(report)),
        },
    )
