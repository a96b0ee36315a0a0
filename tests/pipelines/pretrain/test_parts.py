"""The parts of the training engine: recipes, schedules, order, figures, and what the loop does with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.blocks import set_recompute
from ecg_model.encoder import Encoder, load_encoder, random_encoder, save_encoder
from ecg_model.jepa import JEPA, split_columns
from pipelines.pretrain import monitor as monitoring
from pipelines.pretrain import schedule
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder, DamagedCheckpoints
from pipelines.pretrain.data import Corpus, Resident, to_millivolt
from pipelines.pretrain.metrics_log import NonFinite
from pipelines.pretrain.monitor import Monitor, effective_rank
from pipelines.pretrain.recipes import RECIPES, Recipe, differences, recipe_named
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.train import RunConfig, adamw, gradient_norm, train

CPU = torch.device("cpu")
TINY = recipe_named(
    "demo",
    {
        "jepa.encoder.dim": 16,
        "jepa.encoder.depth": 2,
        "jepa.encoder.heads": 2,
        "jepa.encoder.patch_init_scale": 1,  # targets that are mostly position, which even noise lets it predict
        "jepa.predictor.dim": 8,
        "jepa.predictor.depth": 1,
        "jepa.predictor.heads": 2,
        "batch": 4,
        "steps": 6,
        "precision": "fp32",
    },
)


def corpus(train: int = 10, validation: int = 5) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    signal_NLT = torch.randint(-900, 900, (train + validation, 8, 2500), generator=generator, dtype=torch.int16)
    return Corpus(
        train=Resident(signal_NLT[:train]),
        chunk_N=np.zeros(train, np.int64),
        validation_NLT=signal_NLT[train:],
        names=[f"chapman/JS{row:05d}" for row in range(train)],
        digest="0" * 64,
    )


# --- recipes


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json_and_have_a_digest_of_their_own(name: str) -> None:
    recipe = recipe_named(name)
    assert recipe.name == name
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert len({recipe_named(other).digest for other in RECIPES}) == len(RECIPES)
    assert dataclasses.replace(recipe, seed=1).digest != recipe.digest


def test_the_paper_recipes_have_the_published_numbers() -> None:
    block, random = recipe_named("paper_block"), recipe_named("paper_random")
    for recipe in (block, random):
        assert (recipe.jepa.encoder.dim, recipe.jepa.encoder.depth, recipe.jepa.encoder.heads) == (768, 12, 16)
        assert (recipe.jepa.predictor.dim, recipe.jepa.predictor.depth, recipe.jepa.predictor.heads) == (384, 6, 12)
        assert (recipe.jepa.encoder.input_scale, recipe.jepa.encoder.patch_init_scale) == (1.0, 1.0)
        assert (recipe.epochs, recipe.warmup_share, recipe.edge_lr, recipe.weight_decay) == (100, 0.05, 1e-6, 0.05)
        assert (recipe.ema_start, recipe.ema_end) == (0.996, 1.0)
    assert (block.jepa.masking.kind, block.batch, block.peak_lr) == ("block", 64, 5e-5)
    assert (random.jepa.masking.kind, random.batch, random.peak_lr) == ("random", 128, 2.5e-5)
    assert block.total_steps(174_140) == 174_140 * 100 // 64


def test_changes_are_parsed_by_the_fields_type_and_checked_together() -> None:
    changed = recipe_named("demo", {"jepa.encoder.dim": "120", "jepa.encoder.heads": 5, "peak_lr": "2e-3"})
    assert (changed.jepa.encoder.dim, changed.jepa.encoder.heads, changed.peak_lr) == (120, 5, 0.002)
    assert recipe_named("demo", {"epochs": 2, "steps": None}) == recipe_named("demo", {"epochs": "2", "steps": "none"})
    assert recipe_named("demo", {"jepa.masking.ratio": [0.3, 0.5]}).jepa.masking.ratio == (0.3, 0.5)
    assert recipe_named("demo", {"peak_lr": 1e-3}).digest == recipe_named("demo", {"peak_lr": "0.001"}).digest


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch": 0}, "batch=0"),
        ({"batch": 2.5}, "batch='2.5': use a value of type int"),
        ({"peak_lr": "nan"}, "peak_lr=nan"),
        ({"edge_lr": 0.5}, "edge_lr=0.5"),
        ({"epochs": 3}, "set one of them, the other to none"),
        ({"steps": None}, "set one of them, the other to none"),
        ({"warmup_share": 1}, "warmup_share=1.0"),
        ({"ema_start": 1.1}, "ema_start=1.1"),
        ({"ema_end": 0.5}, "ema_end=0.5"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"name": "../up"}, "name='../up'"),
        ({"seed": -1}, "seed=-1"),
        ({"clip_norm": 0}, "clip_norm=0.0"),
        ({"warm_start": "models:/ecg-encoder@champion"}, "use the sha256 of an encoder's file"),
        ({"probe_epochs": -1}, "probe_epochs=-1.0"),
        ({"select": "first"}, "select='first'"),
        ({"jepa.masking.per_record": "maybe"}, "jepa.masking.per_record='maybe': use true or false"),
        ({"jepa.encoder": 3}, "jepa.encoder: name a field inside it"),
        ({"batch.size": 3}, "batch.size: name a field without parts"),
        ({"jepa.encoder.width": 3}, "EncoderConfig has no field 'width'"),
        ({"jepa.masking.ratio": "wide"}, "use a list of numbers"),
    ],
)
def test_a_bad_change_names_its_field(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(").replace("[", r"\[")):
        recipe_named("demo", changes)


def test_differences_are_named_by_their_path() -> None:
    before, after = recipe_named("demo"), recipe_named("demo", {"jepa.encoder.depth": 7, "seed": 3})
    assert differences(before.to_dict(), before.to_dict()) == []
    depth = before.jepa.encoder.depth
    assert differences(before.to_dict(), after.to_dict()) == [f"jepa.encoder.depth: {depth} -> 7", "seed: 0 -> 3"]


# --- schedules


def test_the_learning_rate_warms_up_and_follows_torchs_cosine() -> None:
    """Oracle: torch's own schedulers, chained."""
    total, warmup, peak, edge = 50, 10, 3e-4, 1e-6
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    oracle = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, edge / peak, 1.0, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=edge),
        ],
        milestones=[warmup],
    )
    for step in range(total):
        ours = schedule.learning_rate(step, total=total, warmup=warmup, peak=peak, edge=edge)
        assert ours == pytest.approx(oracle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        oracle.step()


@given(total=st.integers(1, 500), share=st.floats(0, 0.99))
@settings(deadline=None, max_examples=50)
def test_schedules_stay_within_their_ends(total: int, share: float) -> None:
    warmup = round(share * total)
    rates = [schedule.learning_rate(step, total=total, warmup=warmup, peak=1e-3, edge=1e-6) for step in range(total)]
    assert all(1e-6 <= rate <= 1e-3 * (1 + 1e-12) for rate in rates)
    assert np.argmax(rates) == min(warmup, total - 1)
    momenta = [schedule.momentum(step, total=total, start=0.9, end=1.0) for step in range(total + 1)]
    assert (momenta[0], momenta[-1]) == (0.9, pytest.approx(1.0))
    assert momenta == sorted(momenta)


# --- batches


def test_batches_are_millivolt() -> None:
    signal_NLT = corpus().validation_NLT
    rows_B = np.array([3, 1, 3])
    x_BLT = to_millivolt(signal_NLT, rows_B, CPU)
    assert x_BLT.dtype == torch.float32
    np.testing.assert_allclose(x_BLT.numpy(), signal_NLT.numpy()[rows_B] / 1000.0, rtol=1e-6)


# --- figures


@given(rank=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_effective_rank_counts_equal_directions(rank: int, seed: int) -> None:
    """`rank` orthogonal directions of equal strength, each with mean zero: the rank is exactly that."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(np.c_[np.ones(40), rng.standard_normal((40, rank))])
    axes, _ = np.linalg.qr(rng.standard_normal((16, rank)))
    x_ND = torch.from_numpy(basis[:, 1:] @ axes.T + rng.standard_normal(16))  # an offset changes nothing
    assert effective_rank(x_ND) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_at_its_limits() -> None:
    assert effective_rank(torch.full((5, 3), 0.1)) == 0.0
    assert effective_rank(torch.randn(1, 3)) == 0.0
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("nan")], [0.0, 1.0]])))


def test_the_monitor_agrees_with_figures_over_all_records_at_once() -> None:
    torch.manual_seed(0)
    model = JEPA(TINY.jepa).train()
    signal_NLT = corpus(1, 70).validation_NLT  # three batches, the last one short
    state = torch.get_rng_state()
    figures = Monitor(signal_NLT, CPU).figures(model, torch.autocast("cpu", enabled=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.teacher.training
    x_NLT = to_millivolt(signal_NLT, np.arange(70), CPU)
    with torch.no_grad():
        embedding_ND = model.student.eval().embed(x_NLT)
        targets_NLPD = model.targets(x_NLT)
    assert figures["embedding_std"] == pytest.approx(embedding_ND.numpy().std(axis=0).mean(), rel=1e-5)
    assert figures["target_std"] == pytest.approx(targets_NLPD.double().numpy().std(axis=0).mean(), rel=1e-5)
    assert figures["effective_rank"] == pytest.approx(effective_rank(embedding_ND), rel=1e-3)
    assert 0 < figures["validation_loss"] < 2


def test_the_monitor_takes_evenly_spaced_records_of_many() -> None:
    many = torch.zeros(1000, 8, 2500, dtype=torch.int16)
    rows = Monitor(many, CPU)._rows
    assert len(rows) == monitoring.RECORDS
    assert (rows[0], rows[-1]) == (0, 999)


# --- optimizer


def test_weight_decay_is_on_matrices_alone() -> None:
    model = JEPA(TINY.jepa)
    decayed, spared = adamw(model, 0.05).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])
    trained = {id(p) for p in (*model.student.parameters(), *model.predictor.parameters())}
    assert {id(p) for p in (*decayed["params"], *spared["params"])} == trained


def test_the_gradient_norm_is_that_of_one_long_vector() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 1.0)
    assert gradient_norm(layer).item() == pytest.approx(math.sqrt(6 * 4 + 2))


# --- the loop


def test_training_gives_the_student_and_starts_from_the_random_encoder(tmp_path: Path) -> None:
    """One step at a learning rate of zero leaves the initial weights: those of `random_encoder` with the same seed."""
    recipe = dataclasses.replace(TINY, steps=1, edge_lr=0.0, warmup_share=0.9)
    lines = []
    summary = train(recipe, corpus(), RunConfig(out=tmp_path, device=CPU), on_log=lambda line, _: lines.append(line))
    initial = random_encoder(recipe.jepa.encoder, recipe.seed).state_dict()
    stored = load_encoder(tmp_path / "encoder.safetensors").state_dict()
    assert all(torch.equal(stored[name], value) for name, value in initial.items())
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert [line["step"] for line in lines] == [1]
    assert summary["first"] == summary["last"]
    assert summary["parameters"]["encoder"] == sum(value.numel() for value in initial.values())


def test_the_loss_falls_and_the_teacher_follows(tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, steps=60, peak_lr=3e-3)
    summary = train(recipe, corpus(), RunConfig(out=tmp_path, device=CPU))
    assert summary["last"]["loss"] < 0.95 * summary["first"]["loss"]
    assert summary["last"]["validation_loss"] < 0.95 * summary["first"]["validation_loss"]
    state = CheckpointFolder(tmp_path / "aside/checkpoints").newest()
    assert state is not None
    student, teacher = state.tensors["model.student.patch.weight"], state.tensors["model.teacher.patch.weight"]
    initial = random_encoder(recipe.jepa.encoder, recipe.seed).patch.weight
    assert 0 < (teacher - initial).norm() < (student - initial).norm()


def test_both_precisions_train(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = recipe_named("demo", {**_changes(TINY), "precision": precision})
        losses[precision] = train(recipe, corpus(), RunConfig(out=tmp_path / precision, device=CPU))["first"]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def _changes(recipe: Recipe) -> dict[str, object]:
    demo = recipe_named("demo").to_dict()

    def leaves(values: dict[str, object], path: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in values.items():
            found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
        return found

    before = leaves(demo)
    return {name: value for name, value in leaves(recipe.to_dict()).items() if before[name] != value}


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_records(tmp_path: Path) -> None:
    bad = corpus(12)
    recipe = dataclasses.replace(TINY, steps=80, batch=4)  # a log every third step
    assert isinstance(bad.train, Resident)
    bad.train.signal_NLT = bad.train.signal_NLT.float()
    bad.train.signal_NLT[7, 0, 0] = float("nan")
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
    recipe = dataclasses.replace(TINY, steps=1, warmup_share=0.0)
    huge = dataclasses.replace(
        recipe.jepa.encoder,
        input_scale=1e38,
    )
    diverging = dataclasses.replace(recipe, jepa=dataclasses.replace(recipe.jepa, encoder=huge))
    with pytest.raises(NonFinite, match="at step 1"):
        train(diverging, corpus(), RunConfig(out=tmp_path, device=CPU))
    assert not (tmp_path / "encoder.safetensors").exists()


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    train(TINY, corpus(), RunConfig(out=tmp_path, device=CPU))
    other = dataclasses.replace(corpus(), digest="f" * 64)
    with pytest.raises(ValueError, match=f"corpus: {'0' * 64} -> {'f' * 64}"):
        train(TINY, other, RunConfig(out=tmp_path, device=CPU))


def test_names_must_fit_the_signals() -> None:
    with pytest.raises(ValueError, match="names has 1 entries for 10 ECGs"):
        dataclasses.replace(corpus(), names=["a"])


@pytest.mark.parametrize("field", ["checkpoint_steps", "checkpoint_minutes"])
def test_intervals_are_positive(field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        RunConfig(out=tmp_path, device=CPU, **{field: 0})


# --- checkpoints


def test_checkpoints_come_back_and_the_newest_two_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None
    for step in (5, 100, 20):
        tensors = {"a": torch.arange(step), "b": torch.tensor(float(step))}
        folder.save(Checkpoint(step=step, facts={"of": step}, tensors=tensors))
    found = folder.newest()
    assert found is not None
    assert (found.step, found.facts) == (100, {"of": 100})
    assert torch.equal(found.tensors["a"], torch.arange(100))
    stem = "step-000000{:03d}.safetensors"
    kept = {stem.format(step) for step in (20, 100)}
    assert {path.name for path in folder.folder.iterdir()} == kept | {f"{name}.sha256" for name in kept}


def test_a_damaged_checkpoint_never_costs_the_good_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path)
    paths = [folder.save(Checkpoint(step=step, facts={}, tensors={"a": torch.arange(step)})) for step in (10, 20)]
    paths[1].with_name(f"{paths[1].name}.sha256").unlink()
    found = folder.newest()
    assert found is not None
    assert found.step == 10
    assert "step-000000020.safetensors is damaged (step-000000020.safetensors.sha256 is missing)" in caplog.text
    folder.save(Checkpoint(step=15, facts={}, tensors={"a": torch.arange(15)}))
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "step-000000010.safetensors",
        "step-000000015.safetensors",
    }
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(DamagedCheckpoints, match="all 2 checkpoints"):
            folder.newest()


# --- options


def test_clipping_bounds_the_gradients_and_is_off_by_default(tmp_path: Path) -> None:
    clipped = dataclasses.replace(TINY, clip_norm=1e-6)
    lines: list[dict[str, float]] = []
    train(clipped, corpus(), RunConfig(out=tmp_path / "a", device=CPU), on_log=lambda line, _: lines.append(line))
    free = train(TINY, corpus(), RunConfig(out=tmp_path / "b", device=CPU))
    assert lines[0]["gradient_norm"] == free["first"]["gradient_norm"], "the figure is of before"
    assert lines[0]["gradient_norm"] > 100 * 1e-6
    state = CheckpointFolder(tmp_path / "a/aside/checkpoints").newest()
    assert state is not None
    last = math.sqrt(sum(v.square().sum().item() for n, v in state.tensors.items() if n.endswith(".exp_avg")))
    assert 0 < last <= 1e-6 * (1 + 1e-4), "Adam's mean of gradients that are each that long at most"


def test_a_warm_start_begins_as_the_encoder_it_names(tmp_path: Path) -> None:
    """One step at a learning rate of zero leaves its weights."""
    path = tmp_path / "former.safetensors"
    save_encoder(path, random_encoder(TINY.jepa.encoder, 99))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    recipe = dataclasses.replace(TINY, steps=1, edge_lr=0.0, warmup_share=0.9, warm_start=sha256)
    train(recipe, corpus(), RunConfig(out=tmp_path / "out", device=CPU, warm_start=path))
    found, former = load_encoder(tmp_path / "out/encoder.safetensors"), load_encoder(path)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in former.state_dict().items())
    state = CheckpointFolder(tmp_path / "out/aside/checkpoints").newest()
    assert state is not None
    assert torch.equal(state.tensors["model.teacher.patch.weight"], former.patch.weight)

    with pytest.raises(ValueError, match="give the encoder's file with that sha256 too"):
        train(recipe, corpus(), RunConfig(out=tmp_path / "no", device=CPU))
    other = dataclasses.replace(recipe, warm_start="0" * 64)
    with pytest.raises(ValueError, match=f"has sha256 {sha256}; give the file that the recipe names"):
        train(other, corpus(), RunConfig(out=tmp_path / "no", device=CPU, warm_start=path))
    wider = recipe_named("demo", {**_changes(recipe), "jepa.encoder.dim": 32})
    with pytest.raises(ValueError, match=r"is another network \(dim: 16 -> 32\): give jepa.encoder its sizes"):
        train(wider, corpus(), RunConfig(out=tmp_path / "no", device=CPU, warm_start=path))


@pytest.mark.parametrize(
    "changes",
    [
        {"jepa.encoder.leads": 12},
        {"jepa.encoder.attention": "dense"},
        {"jepa.masking.per_record": "True"},
        {"jepa.masking.per_record": "True", "jepa.masking.kind": "random", "jepa.encoder.drop_path": 0.2},
    ],
)
def test_each_option_trains_to_an_encoder_of_its_own(changes: dict[str, object], tmp_path: Path) -> None:
    recipe = recipe_named("demo", {**_changes(TINY), "steps": 30, "peak_lr": 3e-3, **changes})
    plain = dataclasses.replace(TINY, steps=30, peak_lr=3e-3)
    summaries = [train(one, corpus(), RunConfig(out=tmp_path / one.digest, device=CPU)) for one in (recipe, plain)]
    assert summaries[0]["last"]["validation_loss"] < summaries[0]["first"]["validation_loss"]
    assert summaries[0]["last"] != summaries[1]["last"]
    x_BLT = torch.randn(2, 8, 2500, generator=torch.Generator().manual_seed(3))
    found = [load_encoder(tmp_path / one.digest / "encoder.safetensors").embed(x_BLT) for one in (recipe, plain)]
    assert found[0].shape == found[1].shape
    assert not torch.allclose(*found)


def test_parts_of_a_batch_add_up_to_it(tmp_path: Path) -> None:
    recipe = recipe_named("demo", {**_changes(TINY), "jepa.encoder.drop_path": 0.5, "jepa.masking.per_record": "True"})
    whole = train(recipe, corpus(), RunConfig(out=tmp_path / "a", device=CPU))
    parts = train(recipe, corpus(), RunConfig(out=tmp_path / "b", device=CPU, accumulate=2))
    for name, value in whole["last"].items():
        assert parts["last"][name] == pytest.approx(value, rel=1e-4), name


def test_blocks_computed_again_train_to_the_same_bits_in_less_memory(tmp_path: Path) -> None:
    recipe = recipe_named("demo", {**_changes(TINY), "jepa.encoder.drop_path": 0.5})
    for name, recompute in (("kept", False), ("again", True)):
        train(recipe, corpus(), RunConfig(out=tmp_path / name, device=CPU, recompute=recompute))
    kept, again = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("kept", "again"))
    assert kept == again

    def saved(recompute: bool) -> int:
        """Bytes that the graph of a loss holds."""
        total = 0

        def pack(x: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += x.nbytes
            return x

        model = JEPA(TINY.jepa)
        set_recompute(model, recompute)
        columns = split_columns(torch.arange(50) >= 23)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(torch.randn(4, 8, 2500), *columns)
        return total

    assert saved(True) < saved(False) / 3


class _Score:
    """Says what it is told to, one figure a call."""

    def __init__(self, *figures: float) -> None:
        self.left, self.seen = list(figures), []

    def score(self, encoder: Encoder, autocast: torch.autocast) -> dict[str, float]:
        self.seen.append(encoder.patch.weight.detach().clone())
        return {"probe_auc": self.left.pop(0)}


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_best_encoder_by_probe_is_kept_beside_the_last(select: str, tmp_path: Path) -> None:
    """20 steps of 4 of 10 records are 8 epochs: probes at steps 5, 10, 15 and 20."""
    recipe = recipe_named("demo", {**_changes(TINY), "steps": 20, "probe_epochs": 2, "select": select})
    probe, lines = _Score(0.6, 0.8, 0.8, 0.7), []
    run = RunConfig(out=tmp_path, device=CPU)
    summary = train(recipe, corpus(), run, probe=probe, on_log=lambda line, _: lines.append(line))
    assert {line["step"]: line["probe_auc"] for line in lines if "probe_auc" in line} == {
        5: 0.6,
        10: 0.8,
        15: 0.8,
        20: 0.7,
    }
    assert summary["best"] == {"step": 10, "probe_auc": 0.8}
    best, chosen = (load_encoder(tmp_path / name).patch.weight for name in ("best.safetensors", "encoder.safetensors"))
    assert torch.equal(best, probe.seen[1])
    assert torch.equal(chosen, probe.seen[1 if select == "best" else 3])


def test_probes_fall_after_every_so_many_epochs_and_after_the_last_step() -> None:
    recipe = recipe_named("demo", {"batch": 4, "steps": 23, "probe_epochs": 1.5})
    assert [step + 1 for step in range(23) if recipe.probe_due(step, 10)] == [4, 8, 12, 15, 19, 23]
    assert not any(dataclasses.replace(recipe, probe_epochs=None).probe_due(step, 10) for step in range(23))
