"""The launchpad offers every limit that harmonization knows, with the same default."""

from dataclasses import asdict

from assets.sources import HarmonizeConfig
from pipelines.harmonize.quality import QualityLimits


def test_the_form_has_every_limit() -> None:
    assert asdict(QualityLimits()).items() <= HarmonizeConfig().model_dump().items()


def test_each_field_says_what_it_is() -> None:
    assert all(field.description for field in HarmonizeConfig.model_fields.values())
