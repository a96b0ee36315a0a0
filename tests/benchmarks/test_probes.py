"""The benchmark measures what it says: all labels, chosen on validation, and AUCs that are scikit-learn's."""

from benchmarks import probes
from pipelines.tasks.catalogue import SUITE_TASKS


def test_simulated_features_are_probed_for_all_labels():
    task = SUITE_TASKS["ptbxl_all"]
    feature_ND, records = probes.simulated(1500, 12)
    y_NC, _ = task.targets(records)
    assert y_NC.shape == (1500, 71)
    assert 0.35 < y_NC[:, 0].mean() < 0.45
    figures = probes.probe_figures(task, feature_ND, records)
    assert figures["labels"] == 71
    assert figures["penalties_tried"] > 1
    assert figures["test_macro_auc"] > 0.6


def test_the_bootstrap_is_checked_against_scikit_learn(monkeypatch):
    monkeypatch.setattr(probes, "RESAMPLES", 2)
    assert probes.bootstrap_figures(checked=2)["from_scikit_learn"] < 1e-12
