"""The training loop in this process, for each pair of encoder and objective: optimizer, options, what stops it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from ecg_model.blocks import set_recompute
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from ecg_model.jepa import JEPA
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.pretrain.data import Resident
from pipelines.pretrain.metrics_log import NonFinite
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.objectives.jepa import matrices_decay
from pipelines.pretrain.recipes import Recipe, changed, recipe_named
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.train import RunConfig, adamw, gradient_norm, train
from pipelines.program import Stopped
from tests.support.pretraining import CPU, PAIRS, TINY_RECIPE, TINY_RECIPES, changes_of, corpus, lasting


def test_weight_decay_is_on_matrices_alone() -> None:
    model = JEPA(TINY_RECIPE.jepa)
    decayed, spared = adamw(matrices_decay(model, 0.05)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])
    trained = {id(p) for p in (*model.student.parameters(), *model.predictor.parameters())}
    assert {id(p) for p in (*decayed["params"], *spared["params"])} == trained


def test_the_gradient_norm_is_that_of_one_long_vector() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 1.0)
    assert gradient_norm(layer).item() == pytest.approx(math.sqrt(6 * 4 + 2))


@pytest.fixture(params=PAIRS)
def tiny(request: pytest.FixtureRequest) -> Recipe:
    """The tiny recipe of a pair."""
    return TINY_RECIPES[request.param]


def last_checkpoint(out: Path) -> Checkpoint:
    found = CheckpointFolder(out / "aside/checkpoints").newest()
    assert found is not None
    return found


def weights(encoder: ECGEncoder) -> list[torch.Tensor]:
    return [value.detach().clone() for value in encoder.parameters()]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_training_gives_the_encoder_and_starts_from_the_random_one(tiny: Recipe, tmp_path: Path) -> None:
    """One step at a learning rate of zero leaves the initial weights: those of `random_encoder` with the same seed."""
    recipe = dataclasses.replace(tiny, steps=1, edge_lr=0.0, warmup_share=0.9)
    lines = []
    summary = train(recipe, corpus(), RunConfig(out=tmp_path, device=CPU), on_log=lambda line, _: lines.append(line))
    initial = weights(random_encoder(recipe.encoder, recipe.seed))
    assert equal(weights(load_encoder(tmp_path / "encoder.safetensors")), initial)
    assert summary.to_dict() == json.loads((tmp_path / "summary.json").read_text())
    assert [line["step"] for line in lines] == [1]
    assert summary.first == summary.last
    assert summary.parameters["encoder"] == sum(value.numel() for value in initial)


def test_the_loss_falls_and_a_teacher_follows(tiny: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny, steps=60, peak_lr=3e-3)
    summary = train(recipe, corpus(), RunConfig(out=tmp_path, device=CPU))
    # In noise CPC has nothing to find but that its scores say nothing.
    floor = 0.0 if recipe.cpc is None else summary.last["chance_nats"] * (25 - recipe.cpc.horizon)
    for name in ("loss", "validation_loss"):
        assert summary.last[name] - floor < 0.95 * (summary.first[name] - floor)
    tensors = last_checkpoint(tmp_path).tensors
    for name, value in random_encoder(recipe.encoder, recipe.seed).named_parameters():
        if f"model.teacher.{name}" in tensors and value.ndim > 1:
            student, teacher = tensors[f"model.student.{name}"], tensors[f"model.teacher.{name}"]
            assert 0 < (teacher - value).norm() < (student - value).norm()


def test_both_precisions_train(tiny: Recipe, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = dataclasses.replace(tiny, precision=precision)
        losses[precision] = train(recipe, corpus(), RunConfig(out=tmp_path / precision, device=CPU)).first["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_records(tiny: Recipe, tmp_path: Path) -> None:
    bad = corpus(12)
    recipe = dataclasses.replace(tiny, steps=80, batch=4)  # a log every third step
    assert isinstance(bad.train, Resident)
    bad.train.signal_NLT = bad.train.signal_NLT.float()
    bad.train.signal_NLT[7, 0] = float("nan")
    order = Order(seed=recipe.seed, batch=4, chunk_N=bad.chunk_N)
    step = next(s for s in range(9) if 7 in order.rows(s))
    with pytest.raises(NonFinite) as raised:
        train(recipe, bad, RunConfig(out=tmp_path, device=CPU))
    message = str(raised.value)
    assert f"loss is nan at step {step + 1}:" in message
    assert all(bad.names[row] in message for row in order.rows(step))
    assert "chapman/JS00007" in message
    assert message.count("chapman/") == 4
    assert not (tmp_path / "encoder.safetensors").exists()


def test_weights_that_diverge_at_the_last_step_are_not_delivered(tmp_path: Path) -> None:
    """The loss is of before the update: what the update breaks is seen in the figures of after it."""
    recipe = dataclasses.replace(TINY_RECIPE, steps=1, warmup_share=0.0)
    huge = dataclasses.replace(
        recipe.jepa.encoder,
        input_scale=1e38,
    )
    diverging = dataclasses.replace(recipe, jepa=dataclasses.replace(recipe.jepa, encoder=huge))
    with pytest.raises(NonFinite, match="at step 1"):
        train(diverging, corpus(), RunConfig(out=tmp_path, device=CPU))
    assert not (tmp_path / "encoder.safetensors").exists()


def test_another_corpus_and_another_recipe_are_refused(tiny: Recipe, tmp_path: Path) -> None:
    train(tiny, corpus(), RunConfig(out=tmp_path, device=CPU))
    other = dataclasses.replace(corpus(), digest="f" * 64)
    with pytest.raises(ValueError, match=f"corpus: {'0' * 64} -> {'f' * 64}"):
        train(tiny, other, RunConfig(out=tmp_path, device=CPU))
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        train(dataclasses.replace(tiny, seed=1), corpus(), RunConfig(out=tmp_path, device=CPU))


class Killed(Exception):
    """As if the process ended."""


def files(out: Path) -> dict[str, bytes]:
    """All that a training leaves, but for what depends on the day."""
    found = {name: (out / name).read_bytes() for name in ("encoder.safetensors", "summary.json")}
    lines = [json.loads(line) for line in (out / "aside/metrics.jsonl").read_text().splitlines()]
    return found | {"metrics": json.dumps(lasting(lines)).encode()}


def test_killed_or_stopped_after_any_step_it_ends_with_the_same_bits(tiny: Recipe, tmp_path: Path) -> None:
    """Every second step writes a checkpoint: after a kill the steps since then are done again."""
    recipe = dataclasses.replace(tiny, steps=5)
    whole = RunConfig(out=tmp_path / "whole", device=CPU, checkpoint_steps=2)
    train(recipe, corpus(), whole)
    for killed, step in ((True, 1), (True, 3), (False, 3)):
        run = dataclasses.replace(whole, out=tmp_path / f"{killed}-{step}")
        asked: list[None] = []

        def stops(asked: list[None] = asked, killed: bool = killed, step: int = step) -> bool:
            asked.append(None)
            if killed and len(asked) == step:
                raise Killed
            return len(asked) == step

        with pytest.raises(Killed if killed else Stopped):
            train(recipe, corpus(), run, asked_to_stop=stops)
        assert not (run.out / "encoder.safetensors").exists()
        torch.rand(7)  # a new process has other random numbers
        train(recipe, corpus(), run)
        assert files(run.out) == files(whole.out)
        state, expected = last_checkpoint(run.out), last_checkpoint(whole.out)
        assert state.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(state.tensors[name], value) for name, value in expected.tensors.items())
        counted = {int(value) for name, value in state.tensors.items() if name.endswith("num_batches_tracked")}
        assert counted == ({5} if recipe.encoder.batch_statistics else set())


def test_names_must_fit_the_signals() -> None:
    with pytest.raises(ValueError, match="names has 1 entries for 10 ECGs"):
        dataclasses.replace(corpus(), names=["a"])


@pytest.mark.parametrize("field", ["checkpoint_steps", "checkpoint_minutes"])
def test_intervals_are_positive(field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        RunConfig(out=tmp_path, device=CPU, **{field: 0})


def test_clipping_bounds_the_gradients_and_is_off_by_default(tiny: Recipe, tmp_path: Path) -> None:
    clipped = dataclasses.replace(tiny, clip_norm=1e-6)
    lines: list[dict[str, float]] = []
    train(clipped, corpus(), RunConfig(out=tmp_path / "a", device=CPU), on_log=lambda line, _: lines.append(line))
    free = train(tiny, corpus(), RunConfig(out=tmp_path / "b", device=CPU))
    assert lines[0]["gradient_norm"] == free.first["gradient_norm"], "the figure is of before"
    assert lines[0]["gradient_norm"] > 100 * 1e-6
    tensors = last_checkpoint(tmp_path / "a").tensors
    last = math.sqrt(sum(v.square().sum().item() for n, v in tensors.items() if n.endswith(".exp_avg")))
    assert 0 < last <= 1e-6 * (1 + 1e-4), "Adam's mean of gradients that are each that long at most"


ANOTHER = {
    "jepa": ("jepa.encoder.dim", "dim: 16 -> 32"),
    "cpc": ("cpc.encoder.samples", "samples: 600 -> 1200"),  # weights of another length fit by their shapes
    "jepa_s4": ("jepa.encoder.samples", "samples: 625 -> 1250"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_warm_start_begins_as_the_encoder_it_names(pair: str, tmp_path: Path) -> None:
    """One step at a learning rate of zero leaves its weights."""
    path, tiny = tmp_path / "former.safetensors", TINY_RECIPES[pair]
    save_encoder(path, random_encoder(tiny.encoder, 99))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    recipe = dataclasses.replace(tiny, steps=1, edge_lr=0.0, warmup_share=0.9, warm_start=sha256)
    train(recipe, corpus(), RunConfig(out=tmp_path / "out", device=CPU, warm_start=path))
    former = load_encoder(path)
    assert equal(weights(load_encoder(tmp_path / "out/encoder.safetensors")), weights(former))
    tensors = last_checkpoint(tmp_path / "out").tensors
    for name, value in former.named_parameters():
        assert torch.equal(tensors.get(f"model.teacher.{name}", value), value)

    with pytest.raises(ValueError, match="give the encoder's file with that sha256 too"):
        train(recipe, corpus(), RunConfig(out=tmp_path / "no", device=CPU))
    other = dataclasses.replace(recipe, warm_start="0" * 64)
    with pytest.raises(ValueError, match=f"has sha256 {sha256}; give the file that the recipe names"):
        train(other, corpus(), RunConfig(out=tmp_path / "no", device=CPU, warm_start=path))
    size, change = ANOTHER[pair]
    wider = changed(recipe, {size: change.split()[-1]})
    with pytest.raises(ValueError, match=rf"is another network \({change}\): give the recipe's encoder its sizes"):
        train(wider, corpus(), RunConfig(out=tmp_path / "no", device=CPU, warm_start=path))


def test_the_weights_of_another_network_are_refused_whatever_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "former.safetensors"
    save_encoder(path, random_encoder(TINY_RECIPES["jepa_s4"].encoder, 0))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for pair in ("jepa", "cpc"):
        recipe = dataclasses.replace(TINY_RECIPES[pair], warm_start=sha256)
        with pytest.raises(ValueError, match=r"is another network \(.*: give the recipe's encoder its sizes"):
            train(recipe, corpus(), RunConfig(out=tmp_path / "no", device=CPU, warm_start=path))


@pytest.mark.parametrize(
    "changes",
    [
        {"jepa.encoder.patches": 12},
        {"jepa.encoder.leads": 12},
        {"jepa.encoder.attention": "dense"},
        {"jepa.masking.per_record": "True"},
        {"jepa.masking.per_record": "True", "jepa.masking.kind": "random", "jepa.encoder.drop_path": 0.2},
    ],
)
def test_each_option_trains_to_an_encoder_of_its_own(changes: dict[str, object], tmp_path: Path) -> None:
    recipe = recipe_named("demo", {**changes_of(TINY_RECIPE), "steps": 30, "peak_lr": 3e-3, **changes})
    plain = dataclasses.replace(TINY_RECIPE, steps=30, peak_lr=3e-3)
    summaries = [
        train(variant, corpus(), RunConfig(out=tmp_path / variant.digest, device=CPU)) for variant in (recipe, plain)
    ]
    assert summaries[0].last["validation_loss"] < summaries[0].first["validation_loss"]
    assert summaries[0].last != summaries[1].last
    x_BLT = torch.randn(2, 8, 2500, generator=torch.Generator().manual_seed(3))
    embeddings = [
        load_encoder(tmp_path / variant.digest / "encoder.safetensors").embed(x_BLT) for variant in (recipe, plain)
    ]
    assert embeddings[0].shape == embeddings[1].shape
    assert not torch.allclose(*embeddings)


@pytest.mark.parametrize("pair", ["cpc", "jepa_s4"])
def test_a_batch_with_statistics_of_its_own_is_not_computed_in_parts(pair: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulate=2: the batch norm .* needs a batch as a whole: use 1"):
        train(TINY_RECIPES[pair], corpus(), RunConfig(out=tmp_path, device=CPU, accumulate=2))
    assert not any(tmp_path.iterdir())


def test_parts_of_a_batch_add_up_to_it(tmp_path: Path) -> None:
    options = {"jepa.encoder.drop_path": 0.5, "jepa.masking.per_record": "True"}
    recipe = recipe_named("demo", {**changes_of(TINY_RECIPE), **options})
    whole = train(recipe, corpus(), RunConfig(out=tmp_path / "a", device=CPU))
    parts = train(recipe, corpus(), RunConfig(out=tmp_path / "b", device=CPU, accumulate=2))
    for name, value in whole.last.items():
        assert parts.last[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("pair", PAIRS)
def test_blocks_computed_again_train_to_the_same_bits_in_less_memory(pair: str, tmp_path: Path) -> None:
    noisy = {"jepa.encoder.drop_path": 0.5} if pair == "jepa" else {}  # S4's dropout is on
    recipe = changed(TINY_RECIPES[pair], noisy)
    for name, recompute in (("kept", False), ("again", True)):
        train(recipe, corpus(), RunConfig(out=tmp_path / name, device=CPU, recompute=recompute))
    plain, recomputed = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("kept", "again"))
    assert plain == recomputed

    def saved(recompute: bool) -> int:
        """Bytes that the graph of a loss holds."""
        total = 0

        def pack(x: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += x.nbytes
            return x

        objective = objective_of(changed(recipe, {recipe_depth(recipe): 6}))
        set_recompute(objective.model, recompute)
        x_BLT = torch.randn(4, 8, recipe.encoder.window, generator=torch.Generator().manual_seed(0))
        draw = objective.draw(4, seed=0, step=0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            objective.model(objective.read(x_BLT), *draw.arguments)
        return total

    assert saved(True) < saved(False) / (2 if pair == "cpc" else 3), "of CPC the scores are kept, too"


def recipe_depth(recipe: Recipe) -> str:
    """The field of a recipe that says how many blocks its encoder has."""
    return f"{'cpc' if recipe.jepa is None else 'jepa'}.encoder.depth"


class _Score:
    """Says what it is told to, one figure a call."""

    def __init__(self, *figures: float) -> None:
        self.left, self.seen = list(figures), []

    def score(self, encoder: ECGEncoder, autocast: torch.autocast) -> dict[str, float]:
        self.seen.append(weights(encoder))
        return {"probe_auc": self.left.pop(0)}


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_best_encoder_by_probe_is_kept_beside_the_last(tiny: Recipe, select: str, tmp_path: Path) -> None:
    """20 steps of 4 of 10 records are 8 epochs: probes at steps 5, 10, 15 and 20."""
    recipe = changed(tiny, {"steps": 20, "probe_epochs": 2, "select": select})
    probe, lines = _Score(0.6, 0.8, 0.8, 0.7), []
    run = RunConfig(out=tmp_path, device=CPU)
    summary = train(recipe, corpus(), run, probe=probe, on_log=lambda line, _: lines.append(line))
    assert {line["step"]: line["probe_auc"] for line in lines if "probe_auc" in line} == {
        5: 0.6,
        10: 0.8,
        15: 0.8,
        20: 0.7,
    }
    assert summary.best == {"step": 10, "probe_auc": 0.8}
    best, chosen = (weights(load_encoder(tmp_path / name)) for name in ("best.safetensors", "encoder.safetensors"))
    assert equal(best, probe.seen[1])
    assert equal(chosen, probe.seen[1 if select == "best" else 3])
