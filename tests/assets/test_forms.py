"""Launchpad forms take fields, defaults, help and limits from the dataclass, and give the dataclass back."""

from dataclasses import dataclass, field

import dagster as dg
import pydantic
import pytest

from assets.corpus import CORPUS, CorpusSettings
from assets.delineation import PSEUDO, SEGMENTATION, SegmentationSettings, WaveSettings
from assets.evaluate import FOLDS, PROBE, FoldProbeSettings, ProbeSettings
from assets.forms import Part, changes_form, form, refused_at_launch
from assets.release import ENCODER_GATE, GATE, EncoderGateSettings, GateSettings
from assets.sources import INCOMPLETE, LIMITS, HarmonizeConfig, HarmonizeOwnConfig
from pipelines.corpus.config import CorpusConfig
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.waves.config import PseudoConfig, SegmentationConfig
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.release.gate import GateConfig
from pipelines.tasks.splits import FoldProtocol


@dataclass(frozen=True, kw_only=True)
class Roast:
    beans: tuple[str, ...] = ("arabica", "robusta")
    """Kinds of beans,
    in this order."""
    degrees: float = field(default=220, metadata={"gt": 0, "le": 300})
    """Celsius."""
    minutes: int | None = None
    """Length."""

    def __post_init__(self) -> None:
        if not self.beans:
            raise ValueError("beans=(): name one kind")


def test_a_form_has_the_fields_defaults_help_and_limits_of_its_dataclass() -> None:
    shown = form(Part(Roast)).model_fields
    assert {name: (one.default, one.description) for name, one in shown.items()} == {
        "beans": (["arabica", "robusta"], "Kinds of beans, in this order."),
        "degrees": (220.0, "Celsius. More than 0 and at most 300."),
        "minutes": (None, "Length."),
    }
    for degrees in (0, 301):
        with pytest.raises(pydantic.ValidationError):
            form(Part(Roast))(degrees=degrees)


def test_a_part_leaves_out_renames_and_overrides() -> None:
    part = Part(
        Roast,
        only=("degrees", "beans"),
        names={"degrees": "heat"},
        defaults={"degrees": 200.0},
        helps={"beans": "Which beans."},
    )
    made = form(part)
    assert list(made.model_fields) == ["heat", "beans"]
    assert made.model_fields["beans"].description == "Which beans."
    assert part.read(made(beans=["liberica"])) == Roast(degrees=200.0, beans=("liberica",))


def test_an_empty_field_is_not_given() -> None:
    part = Part(Roast, only=("beans", "degrees"), empty={"beans": "the last ones", "degrees": "as before"})
    made = form(part)
    assert made.model_fields["degrees"].description == "Celsius. More than 0 and at most 300. Empty: as before."
    assert part.given(made()) == {}
    assert part.given(made(beans=[], degrees=1.0)) == {"beans": (), "degrees": 1.0}


def test_the_checks_of_the_dataclass_run() -> None:
    part = Part(Roast)
    with pytest.raises(ValueError, match="beans=\\(\\): name one kind"):
        part.read(form(part)(beans=[]))


@dataclass(frozen=True, kw_only=True)
class Coffee:
    cups: int | None = field(default=2, metadata={"ge": 1})
    """How many."""
    roast: Roast = field(default_factory=Roast)


def test_changes_of_nested_settings_are_fields_by_path_whose_help_says_what_they_are_unchanged() -> None:
    usual = {"one": Coffee(), "two": Coffee(cups=None), "three": Coffee()}
    made = changes_form(usual, without=("roast.minutes",))
    assert {name: one.description for name, one in made.model_fields.items()} == {
        "cups": "How many. At least 1. Unchanged: 2 (one, three), null (two).",
        "roast.beans": "Kinds of beans, in this order. Unchanged: ['arabica', 'robusta'].",
        "roast.degrees": "Celsius. More than 0 and at most 300. Unchanged: 220.",
    }
    given = made(**{"cups": None, "roast.degrees": 99})
    assert {name: getattr(given, name) for name in given.model_fields_set} == {"cups": None, "roast.degrees": 99}
    with pytest.raises(pydantic.ValidationError):
        made(cups=0)


def test_wrong_values_are_refused_before_a_run_starts() -> None:
    ran: list[float] = []

    class RoastSettings(form(Part(Roast))):
        """A roast."""

    @dg.asset
    def coffee(config: RoastSettings) -> None:
        ran.append(config.degrees)

    job = dg.Definitions([refused_at_launch(coffee)]).resolve_implicit_global_asset_job_def()

    def launch(**values: object) -> None:
        job.execute_in_process(run_config={"ops": {"coffee": {"config": values}}})

    with pytest.raises(
        dg.DagsterInvalidConfigError, match=r"degrees=301\.0: Input should be less than or equal to 300"
    ):
        launch(degrees=301)
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"beans=\(\): name one kind"):
        launch(beans=[])
    launch(degrees=300)
    assert ran == [300.0]


@pytest.mark.parametrize(
    ("part", "config", "settings"),
    [
        (LIMITS, HarmonizeConfig(), QualityLimits()),
        (LIMITS, HarmonizeOwnConfig(), QualityLimits()),
        (INCOMPLETE, HarmonizeOwnConfig(), Incomplete(mark_leads=True)),
        (CORPUS, CorpusSettings(), CorpusConfig()),
        (PROBE, ProbeSettings(), ProbeConfig()),
        (FOLDS, FoldProbeSettings(), FoldProtocol()),
        (GATE, GateSettings(), GateConfig()),
        (ENCODER_GATE, EncoderGateSettings(), GateConfig()),
        (PSEUDO, WaveSettings(), PseudoConfig()),
        (SEGMENTATION, SegmentationSettings(), SegmentationConfig()),
    ],
)
def test_an_untouched_form_stands_for_the_defaults(part: Part, config: dg.Config, settings: object) -> None:
    assert part.read(config) == settings
