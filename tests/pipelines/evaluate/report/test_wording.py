"""What scores come to in words."""

from types import SimpleNamespace

import pytest

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import HANDCRAFTED_BASELINE
from pipelines.evaluate.report.wording import below


@pytest.mark.parametrize(
    ("value", "p", "words"),
    [(-0.2, 0.002, ("random encoder",)), (-0.2, 0.2, ()), (0.2, 0.002, ())],
)
def test_only_a_clear_fall_below_a_baseline_is_named(value, p, words):
    clear = SimpleNamespace(difference=SimpleNamespace(value=value), p_adjusted=p)
    level = SimpleNamespace(difference=SimpleNamespace(value=0.0), p_adjusted=1.0)
    task = SimpleNamespace(differences={OURS.random_baseline: clear, HANDCRAFTED_BASELINE: level})
    assert below(task) == words
