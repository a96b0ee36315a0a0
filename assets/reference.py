"""The encoders that others released, imported."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from assets import show
from assets.resources import DataHome
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.names import REFERENCE, REFERENCE_CPC, EncoderNames


class ReferenceSettings(dg.Config):
    """Which file is imported."""

    file: str = Field(
        default="",
        description="Path of the author's .pth on the machine that runs this. Empty: the encoder that was imported "
        "last, by this asset or by `ecg import-reference FILE`.",
    )


@dg.asset(
    group_name="pretrain",
    description="The encoder that the author of ECG-JEPA released, read from the .pth as weights alone, checked and "
    "written in our format. It is for comparison: `encoder` does not depend on it.",
    code_version=versions.REFERENCE,
    retry_policy=show.ONCE_MORE,
    kinds={"torch"},
)
def reference_encoder(
    context: dg.AssetExecutionContext, data_home: DataHome, config: ReferenceSettings
) -> dg.MaterializeResult:
    from assets.previews import filters
    from pipelines.encoders.import_reference import ReferenceFacts, materialize_reference

    workspace = data_home.open().workspace()
    with show.mistakes_explained():
        file = Path(config.file)
        product = materialize_reference(workspace, file) if config.file else _imported(workspace, REFERENCE)
    facts = ReferenceFacts.of(product)
    return show.materialized(
        product,
        {
            "file": facts.file,
            "sha256": facts.sha256,
            "known as": facts.published or "not one of the published files",
            "epoch": facts.epoch,
            "weights": facts.weights,
            **show.pictures(filters=filters(product)),
        },
    )


class ReferenceCPCSettings(dg.Config):
    """Which file is imported."""

    file: str = Field(
        default="",
        description="Path of the .ckpt of ECG-CPC on the machine that runs this. Empty: the encoder that was imported "
        "last, by this asset or by `ecg import-reference FILE`.",
    )


@dg.asset(
    group_name="pretrain",
    description="A published ECG-CPC, read from the authors' Lightning checkpoint as weights alone, checked and "
    "written in our format. It is for comparison: `encoder` does not depend on it.",
    code_version=versions.REFERENCE_CPC,
    retry_policy=show.ONCE_MORE,
    kinds={"torch"},
)
def reference_cpc_encoder(data_home: DataHome, config: ReferenceCPCSettings) -> dg.MaterializeResult:
    from pipelines.encoders.import_reference_cpc import ReferenceCPCFacts, materialize_reference_cpc

    workspace = data_home.open().workspace()
    with show.mistakes_explained():
        file = Path(config.file)
        product = materialize_reference_cpc(workspace, file) if config.file else _imported(workspace, REFERENCE_CPC)
    facts = ReferenceCPCFacts.of(product)
    return show.materialized(
        product,
        {
            "file": facts.file,
            "sha256": facts.sha256,
            "read": facts.in_words(),
            "weights": facts.weights,
            "passed over and not run": ", ".join(facts.skipped) or "nothing",
        },
    )


def _imported(workspace: Workspace, encoder_names: EncoderNames) -> Product:
    """Return the encoder that was imported last. Raises ValueError if there is none."""
    product = workspace.current(encoder_names.product)
    if product is None:
        raise ValueError("no released encoder was imported: run `ecg import-reference FILE`, or set `file` to its path")
    return product
