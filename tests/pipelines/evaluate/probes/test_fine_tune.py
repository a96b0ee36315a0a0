"""Fine-tuning learns, reaches every layer at its own rate, chooses on validation, and goes on to the bit."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from ecg_model.band_pass import band_pass
from ecg_model.config import EncoderConfig, S4EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import load_encoder, random_encoder
from pipelines.cache import Workspace
from pipelines.evaluate.features import EncoderSource, FeatureConfig, embed
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.augment import AugmentConfig
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune, Training
from pipelines.evaluate.probes.heads import FitProblem, Logistic
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.probes.tuned_network import FineTunedClassifier, Network, parameter_groups
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.formats.shard import QUALITY, ShardWriter
from pipelines.program import Stopped
from pipelines.simulate import Diagnosis, simulate
from pipelines.tasks.catalogue import TASKS

TINY = EncoderConfig(dim=32, depth=2, heads=2, input_scale=5.0, patch_init_scale=7.0)
TRAIN, VALIDATION, TEST = np.arange(96), np.arange(96, 144), np.arange(144, 240)
DIAGNOSES = (Diagnosis.LBBB, Diagnosis.RBBB, Diagnosis.SINUS_TACHYCARDIA)
ON_S4 = S4EncoderConfig(
    leads=8, rate=250, samples=250, token_samples=25, stem_dim=8, stem_depth=2, dim=12, depth=1, input_scale=5.0
)
BOTH_KINDS = pytest.mark.parametrize("config", [TINY, ON_S4], ids=["patches", "s4"])
# The published rate is made for a pretrained encoder and many steps; here is neither.
QUICK = FineTune(epochs=2, warmup=1, rate=0.2, device="cpu")


def encoder() -> Encoder:
    return random_encoder(TINY, seed=1)


@pytest.fixture(scope="module")
def simulated() -> FitProblem:
    """Five seconds of 240 people, each with one of three diagnoses."""
    drawn = np.random.default_rng(0).integers(len(DIAGNOSES), size=240)
    ecgs = [simulate([7, i], rate=250, diagnosis=DIAGNOSES[c]).signal_LT for i, c in enumerate(drawn)]
    x_NLT = np.round(np.stack(ecgs)[:, [0, 1, 6, 7, 8, 9, 10, 11]] * 1000).astype(np.int16)
    return FitProblem(
        x=np.ascontiguousarray(x_NLT[:, :, :1250]),
        y_NC=np.eye(len(DIAGNOSES), dtype=bool)[drawn],
        train=TRAIN,
        validation=VALIDATION,
        multi_class=False,
        seed=3,
        encoder=encoder,
    )


@pytest.fixture
def problem(simulated) -> FitProblem:
    """Two seconds of fewer of them: enough where nothing has to be learned well."""
    return replace(simulated, x=np.asarray(simulated.x)[:, :, :500], train=TRAIN[:40], validation=VALIDATION[:24])


def tuned(fit) -> FineTunedClassifier:
    assert isinstance(fit.model, FineTunedClassifier)
    return fit.model


def test_band_pass_keeps_its_band_and_moves_nothing():
    time_T = np.arange(2500) / 250
    inner = slice(500, 2000)

    def gain(hertz: float) -> float:
        wave_T = np.sin(2 * np.pi * hertz * time_T)
        return float(band_pass(wave_T)[inner] @ wave_T[inner] / (wave_T[inner] @ wave_T[inner]))

    assert [gain(hertz) for hertz in (2, 10, 25)] == pytest.approx([1, 1, 1], abs=0.02)
    # There and back, each edge is at half the amplitude.
    assert [gain(hertz) for hertz in (0.67, 40)] == pytest.approx([0.5, 0.5], abs=0.05)
    assert [gain(hertz) for hertz in (0.2, 60, 100)] == pytest.approx([0, 0, 0], abs=0.01)


def test_it_learns_what_a_frozen_encoder_does_not_show(simulated):
    # Without augmentation: it takes more than 40 steps to pay for itself.
    head = replace(QUICK, epochs=5, rate=0.3, batch=12, augment=AugmentConfig(count=0))
    model = tuned(head.fit(simulated))
    assert model.losses[-1] < 0.9 * model.losses[0]
    frozen_ND = embed(encoder(), np.asarray(simulated.x), FeatureConfig(device="cpu"))
    linear = Logistic(penalties=(1e-1, 1e-2, 1e-3)).fit(replace(simulated, x=frozen_ND))
    y_NC = simulated.y_NC[TEST]
    frozen = roc_auc_score(y_NC, linear.model.probabilities(frozen_ND, TEST), average="macro")
    assert roc_auc_score(y_NC, model.probabilities(simulated.x, TEST), average="macro") > max(0.9, frozen + 0.05)


def test_classes_that_exclude_each_other_share_one_probability(problem):
    given = replace(problem, multi_class=True)
    model = tuned(replace(QUICK, epochs=5, augment=AugmentConfig(count=0)).fit(given))
    assert model.losses[-1] < model.losses[0] == pytest.approx(np.log(3), abs=0.1)  # at first nothing is known
    assert model.probabilities(given.x, TEST).sum(axis=1) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("depth", "low"), [(2, 0), (4, 1), (12, 3)])
def test_each_group_of_layers_has_its_rate_and_matrices_alone_decay(depth, low):
    """The benchmark's groups of twelve blocks: the first three with the patches, nine with the last norm, the layer."""
    network = Network(Encoder(replace(encoder().config, depth=depth)), classes=3)
    groups = parameter_groups(network, rate=1.0, weight_decay=0.05, group_decay=0.1)
    of = {id(weight): group for group in groups for weight in group["params"]}
    names = dict(network.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(of) == len(names)
    lowest = ("encoder.patch.", *(f"encoder.blocks.{block}." for block in range(low)))
    for name, weight in names.items():
        peak = 1.0 if name.startswith("layer.") else 0.01 if name.startswith(lowest) else 0.1
        assert of[id(weight)]["peak"] == pytest.approx(peak), name
        assert of[id(weight)]["weight_decay"] == (0.05 if weight.ndim == 2 else 0.0), name


def test_the_stem_of_an_s4_encoder_is_its_lower_group():
    network = Network(random_encoder(ON_S4, seed=1), classes=3)
    groups = parameter_groups(network, rate=1.0, weight_decay=0.05, group_decay=0.1)
    peak = {id(weight): group["peak"] for group in groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        expected = 1.0 if name.startswith("layer.") else 0.01 if name.startswith("encoder.stem.") else 0.1
        assert peak[id(weight)] == pytest.approx(expected), name


def test_one_step_moves_every_layer_by_its_own_rate(problem):
    """Adam's first step is the learning rate, whatever the gradient: see what each layer's largest step was."""
    head = replace(QUICK, epochs=1, warmup=0, batch=len(problem.train), group_decay=0.5, weight_decay=0.0, keep="last")
    after = dict(tuned(head.fit(problem)).network.encoder.named_parameters())
    rate = head.rate * head.batch / 256
    for name, before in encoder().named_parameters():
        groups_above = 2 if "patch" in name else 1
        moved = float((after[name].detach() - before.detach()).abs().max())
        assert moved == pytest.approx(rate * 0.5**groups_above, rel=0.05), name


@BOTH_KINDS
def test_a_frozen_encoder_stays_to_the_bit_while_the_layer_learns(problem, config):
    problem = replace(problem, encoder=lambda: random_encoder(config, seed=1))
    short, long = (tuned(replace(QUICK, train_encoder=False, epochs=n, keep="last").fit(problem)) for n in (1, 2))
    after = long.network.encoder.state_dict()
    for name, before in random_encoder(config, seed=1).state_dict().items():
        assert torch.equal(after[name], before), name
    assert not torch.equal(long.network.layer.weight, short.network.layer.weight)


def test_the_seed_decides_everything(problem):
    first, again, other = (QUICK.fit(replace(problem, seed=seed)) for seed in (3, 3, 4))
    assert tuned(first).losses == tuned(again).losses
    assert first.trials == again.trials
    probability_NC = first.model.probabilities(problem.x, TEST)
    assert np.array_equal(probability_NC, again.model.probabilities(problem.x, TEST))
    assert not np.array_equal(probability_NC, other.model.probabilities(problem.x, TEST))


def test_the_epoch_that_is_best_on_validation_is_kept(problem):
    head = replace(QUICK, epochs=3)
    fit = head.fit(problem)
    found = [trial.validation_macro_auc for trial in fit.trials]
    assert [trial.epoch for trial in fit.trials] == [1, 2, 3]
    assert tuned(fit).epoch == 1 + int(np.argmax(found))
    kept_VC = fit.model.probabilities(problem.x, problem.validation)
    assert roc_auc_score(problem.y_NC[problem.validation], kept_VC, average="macro") == pytest.approx(
        max(found), abs=1e-12
    )


FROM_PROBE = replace(QUICK, epochs=3, start="probe", keep="last_or_start")


def test_it_starts_at_the_linear_probe_and_keeps_the_start_if_the_end_is_no_better(problem):
    filtered = band_pass(np.asarray(problem.x) * 1e-3)
    with torch.inference_mode():
        feature_ND = encoder().eval().embed(torch.from_numpy(filtered)).numpy()
    probe = Logistic(penalties=ProbeConfig().penalties).fit(replace(problem, x=feature_ND))
    still = replace(FROM_PROBE, rate=1e-12).fit(problem)
    probability_NC = still.model.probabilities(problem.x, TEST)
    np.testing.assert_allclose(probability_NC, probe.model.probabilities(feature_ND, TEST), atol=1e-4)
    assert still.trials[0].validation_macro_auc == pytest.approx(problem.validation_auc(still.model), abs=0.01)

    ruined = replace(FROM_PROBE, rate=200.0).fit(problem)
    assert [trial.epoch for trial in ruined.trials] == [0, 1, 2, 3]
    assert tuned(ruined).epoch == 0
    np.testing.assert_allclose(ruined.model.probabilities(problem.x, TEST), probability_NC, atol=1e-4)


def test_of_the_epochs_the_last_one_alone_may_be_kept(simulated, monkeypatch):
    problem = replace(simulated, x=np.asarray(simulated.x)[:, :, :500], train=TRAIN[:16], validation=VALIDATION[:24])
    scores = iter([0.6, 0.9, 0.5, 0.7])
    monkeypatch.setattr(FitProblem, "validation_auc", lambda *_: next(scores))
    monkeypatch.setattr("pipelines.evaluate.probes.fine_tune.start_at_probe", lambda *_: None)
    assert tuned(FROM_PROBE.fit(problem)).epoch == 3, "0.7 at the end is above 0.6 at the start"


def test_labels_of_other_records_do_not_matter_and_the_paper_chooses_nothing(problem):
    flipped_NC = problem.y_NC.copy()
    flipped_NC[TEST] = ~flipped_NC[TEST]
    fits = [QUICK.fit(replace(problem, y_NC=y_NC)) for y_NC in (problem.y_NC, flipped_NC)]
    one, other = (fit.model.probabilities(problem.x, TEST) for fit in fits)
    assert np.array_equal(one, other)
    last = replace(QUICK, keep="last")
    assert QUICK.chooses
    assert not last.chooses
    without = last.fit(replace(problem, validation=np.arange(0)))
    assert without.trials == ()
    assert tuned(without).epoch == 2


class Killed(BaseException):
    """As far as the disk can tell: nothing is caught, nothing is tidied up."""


class Signals:
    """Signals that kill whoever reads them for the n-th time."""

    def __init__(self, x_NLT: np.ndarray, last: int) -> None:
        self.x_NLT, self.left = x_NLT, last

    def __len__(self) -> int:
        return len(self.x_NLT)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return self.x_NLT[rows]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_what_was_fitted_before_there_was_a_choice_of_the_start_is_found(problem):
    assert "start" not in FineTune().to_dict()
    for head in (FineTune(), FROM_PROBE):
        assert FineTune.from_dict({**head.to_dict(), "device": head.device}) == head


def test_a_run_that_was_stopped_within_its_first_epoch_does_not_start_again(problem, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    straight.mkdir()
    stopped.mkdir()
    expected = FROM_PROBE.fit(replace(problem, folder=straight))
    steps: list[int] = []
    first = Training(
        FROM_PROBE,
        replace(problem, folder=stopped),
        on_step=lambda at: steps.append(at.step),
        asked_to_stop=lambda: len(steps) == 2,
    )
    with pytest.raises(Stopped):
        first.finish()
    assert FROM_PROBE.fit(replace(problem, folder=stopped)).trials == expected.trials
    assert files(stopped) == files(straight)


@BOTH_KINDS
def test_a_killed_run_goes_on_to_the_same_bytes(problem, config, tmp_path, caplog):
    problem = replace(problem, encoder=lambda: random_encoder(config, seed=1))
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    head = replace(QUICK, epochs=3)
    expected = head.fit(replace(problem, folder=straight))
    reads = -(-len(problem.train) // head.batch) + 1  # of an epoch: its batches and validation
    with pytest.raises(Killed):
        head.fit(replace(problem, x=Signals(np.asarray(problem.x), 2 * reads + 2), folder=killed))
    assert not (killed / "encoder.safetensors").exists()
    with pytest.raises(ValueError, match="another head or of other records"):
        replace(head, group_decay=0.75).fit(replace(problem, folder=killed))
    counted = Signals(np.asarray(problem.x), 10**6)
    with caplog.at_level(logging.INFO):
        found = head.fit(replace(problem, x=counted, folder=killed))
    assert "resumed after epoch 2 of 3" in caplog.text
    assert "s left" in caplog.text
    assert 10**6 - counted.left == reads
    assert found.trials == expected.trials
    assert files(killed) == files(straight)
    assert {path.name for path in killed.iterdir()} == {
        "encoder.safetensors",
        "layer.safetensors",
        "fine_tuning.json",
        "checkpoints",
    }
    probability_NC = found.model.probabilities(problem.x, TEST)
    assert np.array_equal(probability_NC, expected.model.probabilities(problem.x, TEST))


def test_the_weights_in_the_product_are_the_model(problem, tmp_path):
    fit = QUICK.fit(replace(problem, folder=tmp_path))
    kept = load_encoder(tmp_path / "encoder.safetensors")
    layer = load_file(tmp_path / "layer.safetensors")
    x_BLT = torch.from_numpy(band_pass(np.asarray(problem.x)[TEST] * 1e-3))
    with torch.inference_mode():
        logit_NC = torch.nn.functional.linear(kept.embed(x_BLT), layer["weight"], layer["bias"])
    found_NC = fit.model.probabilities(problem.x, TEST)
    np.testing.assert_allclose(logit_NC.sigmoid().numpy(), found_NC, atol=1e-5)
    about = json.loads((tmp_path / "fine_tuning.json").read_text())
    assert about == {"losses": list(tuned(fit).losses), "epoch": tuned(fit).epoch}


def test_augmentation_changes_what_is_learned_from_and_not_what_is_tested(problem):
    plain = replace(QUICK, augment=AugmentConfig(count=0))
    with_it, without = (tuned(head.fit(problem)) for head in (QUICK, plain))
    assert with_it.losses != without.losses
    once, again = (with_it.probabilities(problem.x, TEST) for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"warmup": 11}, "warmup=11: use 0 to 10"),
        ({"rate": 0.0}, "rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"group_decay": 1.5}, "group_decay"),
        ({"keep": "first"}, "keep"),
        ({"start": "best"}, "start='best': use 'prevalence' or 'probe'"),
        ({"precision": "fp16"}, "precision"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FineTune(**wrong)


def test_problems_that_cannot_be_are_refused_before_the_first_step(problem):
    with pytest.raises(ValueError, match="needs an encoder"):
        QUICK.fit(replace(problem, encoder=None))
    with pytest.raises(InsufficientData, match="validation"):
        QUICK.fit(replace(problem, x=Signals(np.asarray(problem.x), 0), min_positives=25))
    with pytest.raises(ValueError, match="diverged in epoch 1: use a lower rate"):
        replace(QUICK, rate=1e30, warmup=0).fit(problem)


@pytest.fixture(scope="module")
def workspace(simulated, tmp_path_factory) -> Workspace:
    """The simulated ECGs as a harmonized shard of PTB-XL: bundle branch blocks are CD, tachycardia is no superclass."""
    workspace = Workspace(tmp_path_factory.mktemp("home"))
    x_NLT = np.tile(np.asarray(simulated.x), (1, 1, 2))[:120]

    def make(folder: Path) -> dict:
        writer = ShardWriter(folder)
        for i, x_LT in enumerate(x_NLT):
            row = {"source": "ptbxl", "record_id": f"{i}", "patient_id": f"{i}", "age": None, "sex": None}
            row |= {"rate": 500.0, "samples": 5000, "labels": ["NORM" if simulated.y_NC[i, 2] else "CLBBB"]}
            row |= {"fold": i % 10 + 1, "notes": [], "content_hash": f"{i}", "signature": bytes(128)}
            writer.append(x_LT, row | {f"quality_{name}": 0.0 for name in QUALITY})
        writer.close()
        return {}

    workspace.build("ecgs/ptbxl/00000", version="1", config={}, inputs={}, make=make)
    return workspace


TASK = TASKS["ptbxl_superclass"]
SMALL = ProbeConfig(resamples=20, min_patients=5, min_positives=1)
SOURCE = EncoderSource.random("tiny", replace(TINY, dim=16, depth=1), 0)


class KillAfter(logging.Handler):
    """Kills the process that logs this."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            raise Killed


def test_a_product_whose_making_was_killed_is_gone_on_with(workspace, caplog):
    caplog.set_level(logging.INFO)
    logger, handler = logging.getLogger("pipelines.evaluate.probes.fine_tune"), KillAfter("epoch 1 of 2")
    logger.addHandler(handler)
    try:
        with pytest.raises(Killed):
            materialize_probe(workspace, TASK, SOURCE, SMALL, head=QUICK)
    finally:
        logger.removeHandler(handler)
    product = materialize_probe(workspace, TASK, SOURCE, SMALL, head=QUICK)
    assert "resumed after epoch 1 of 2" in caplog.text
    assert product.facts["scored"]
    names = {path.name for path in product.path.iterdir()}
    assert {"scores.json", "predictions.parquet", "encoder.safetensors", "layer.safetensors"} < names
    assert "checkpoints" not in names
    scores = load_result(product.path).scores
    assert scores is not None
    assert [trial.epoch for trial in scores.trials] == [1, 2]
    # The weights in it are an encoder like any other.
    again = EncoderSource.of_product("fine", product).loaded()
    assert again.config == SOURCE.loaded().config


def test_a_product_that_was_killed_after_its_training_trains_no_more(workspace, caplog, monkeypatch):
    def killed(*_: object) -> None:
        raise Killed

    caplog.set_level(logging.INFO)
    head = replace(QUICK, rate=0.1)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.evaluate.probes.step.write_result", killed)
        with pytest.raises(Killed):
            materialize_probe(workspace, TASK, SOURCE, SMALL, head=head)
    caplog.clear()
    product = materialize_probe(workspace, TASK, SOURCE, SMALL, head=head)
    assert "resumed after epoch 2 of 2" in caplog.text
    assert "loss" not in caplog.text
    assert not (product.path / "checkpoints").exists()


def test_attention_pooling_reads_the_tokens_of_a_workspace(workspace, monkeypatch):
    head = AttentionPool(heads=2, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=1000))
        with pytest.raises(ValueError, match=r"tokens of 120 ECGs take 1\.\d+ MB and .* are free"):
            materialize_probe(workspace, TASK, SOURCE, SMALL, head=head)
    product = materialize_probe(workspace, TASK, SOURCE, SMALL, head=head)
    scores = load_result(product.path).scores
    assert scores is not None
    assert len(scores.trials) == 2 * len(head.rates) * len(head.weight_decays)
    assert materialize_probe(workspace, TASK, SOURCE, SMALL, head=head).cached
