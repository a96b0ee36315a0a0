"""From probes to a registered version and through the gate, also where the champion was scored on other data."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecg_model.config import AnyEncoderConfig, EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.reference import published_name
from ecg_model.serving.embed import embed
from pipelines.cache import Workspace
from pipelines.cli.import_reference import release_with_scores
from pipelines.cli.models import version_rows
from pipelines.encoders.import_reference import materialize_reference
from pipelines.encoders.names import REFERENCE
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.report.step import materialize_report
from pipelines.evaluate.suite.baselines import probe_pair
from pipelines.evaluate.suite.names import evaluation
from pipelines.evaluate.suite.run import evaluate_encoder
from pipelines.finding import Finding
from pipelines.home import HOSTS, Home
from pipelines.pretrain.recipes import small_cpc
from pipelines.release.aliases import aliases_of, find_alias, promote, rollback, versions_of
from pipelines.release.gate import GateConfig
from pipelines.release.judging import Judged
from pipelines.release.packaging import example_ecg
from pipelines.release.registry import model_folder
from pipelines.release.steps import git_commit, judge_current, release_current, release_reference, scores_of
from pipelines.release.tags import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.tasks.catalogue import TASKS
from pipelines.tracking import Tracking
from tests.support.shared import home_with_ptbxl

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.pyfunc

QUICK = ProbeConfig(resamples=20, penalties=(1e-2, 1e-4))
STARVED = EncoderConfig(dim=32, depth=2, heads=2)
LINEAR = {"linear": 1.0}
LENIENT = GateConfig(margin=0.99, label_margin=0.99, resamples=20, probes=LINEAR)
SEEING = EncoderConfig(dim=32, depth=2, heads=2, input_scale=5.0, patch_init_scale=25.0)
ON_S4 = S4EncoderConfig(
    leads=8, rate=250, samples=625, token_samples=25, stem_dim=16, stem_depth=2, dim=24, depth=1, input_scale=4.0
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, ptbxl_home: Path) -> list[Workspace]:
    """Two data homes with PTB-XL of different patients."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("place1", "place2"))
    shutil.copytree(ptbxl_home / "home", first / "home", symlinks=True)
    home_with_ptbxl(second, seed=2)
    return [Home(root / "home", HOSTS).workspace() for root in (first, second)]


@pytest.fixture
def tracking(tmp_path: Path, new_store: Callable[[Path], Tracking]) -> Tracking:
    return new_store(tmp_path)


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to pull a version: what it would say is another test's."""
    monkeypatch.setattr("pipelines.release.judging.serves", lambda *_, **__: Finding.passed("taken as served"))


def put_encoder(
    workspace: Workspace, config: AnyEncoderConfig, spread: float = 0.1, recipe: dict[str, Any] | None = None
) -> None:
    """An encoder as if it were pretrained; spread: of its embeddings, as its summary has it."""

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(config, 5))
        last = {"loss": 0.5, "embedding_std": spread, "effective_rank": 9.0}
        return {"recipe": recipe or {"seed": 4}, "corpus_digest": "c" * 64, "first": {"loss": 0.9}, "last": last}

    settings = {"scale": config.input_scale, "spread": spread}
    workspace.build("encoder", version="test", config=settings, inputs={}, make=make)


def prepare(
    workspace: Workspace, config: AnyEncoderConfig, spread: float = 0.1, recipe: dict[str, Any] | None = None
) -> None:
    """An encoder and its probes."""
    put_encoder(workspace, config, spread, recipe)
    for task in TASKS.values():
        probe_pair(workspace, task, QUICK)


def judged(workspace: Workspace, tracking: Tracking, config: GateConfig, *, simulated: bool = True) -> Judged:
    """Released, and put before the gate."""
    release_current(workspace, tracking, simulated=simulated)
    return judge_current(workspace, tracking, config=config)


def test_scores_hold_every_probe_and_what_was_not_scored_is_left_out(places):
    prepare(places[0], SEEING)
    scores = scores_of(places[0])
    assert set(scores.metrics) == {
        f"ptbxl_superclass/{split}_macro_auc{kind}" for split in ("validation", "test") for kind in ("", "_random")
    } | {f"ptbxl_superclass/{labels}" for labels in ("labels", "test_labels_scored", "validation_labels_scored")}
    assert scores.validation == scores.metrics["ptbxl_superclass/validation_macro_auc"]
    unscored = scores_of(places[0], "cpsc2018")
    assert (unscored.validation, unscored.data_digest, unscored.task) == (None, None, "cpsc2018")
    with pytest.raises(ValueError, match="gate task 'nothing': use ptbxl_superclass, cpsc2018"):
        scores_of(places[0], "nothing")


@pytest.mark.slow
def test_the_champion_is_contested_on_the_challengers_data_by_the_challengers_protocol(places, tracking):
    first, second = places
    prepare(first, SEEING)
    champion, verdict, _ = judged(first, tracking, GateConfig())
    assert verdict.promote
    assert promote(champion, tracking=tracking).version == 1
    assert judged(first, tracking, GateConfig())[1] == verdict, "a champion's verdict stands"
    prepare(second, STARVED)
    challenger, strict, contest = judged(second, tracking, GateConfig(margin=0.0, label_margin=0.0, probes=LINEAR))
    again = second.require("probe/ptbxl_superclass/champion").facts["validation_macro_auc"]["value"]
    assert again != champion.scores.validation, "the champion's score is not that of the data it was released with"
    validation = challenger.scores.validation
    assert validation is not None
    assert (
        f"{validation:.4f} against {again:.4f} of version 1, {validation - again:+.4f}"
        in strict.rules["not_worse"].seen
    )
    assert (strict.promote, strict.rules["serves"].holds) == (False, True)
    assert contest is not None
    assert contest.macro.value == pytest.approx(validation - again)
    assert challenger.tags["verdict"] == strict.reason
    lenient, verdict, _ = judged(second, tracking, LENIENT)
    assert verdict.promote
    assert promote(lenient, tracking=tracking).version == challenger.version
    rollback(why="a test", tracking=tracking)
    _, verdict, _ = judged(second, tracking, LENIENT)
    assert not verdict.promote, "the gate does not undo a rollback"
    assert "ecg rollback" in verdict.reason
    current = find_alias(CHAMPION, tracking=tracking)
    assert current is not None
    assert current.version == champion.version


BOTH = GateConfig(margin=0.99, label_margin=0.99, resamples=20)
ATTENTION = "ptbxl_superclass__attention_pool"


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_both_encoders_are_probed_by_every_probe_and_the_suites_own_is_taken_if_it_is_there(places, tracking):
    workspace = places[0]
    prepare(workspace, SEEING)
    promote(judged(workspace, tracking, BOTH).release, tracking=tracking)
    assert not workspace.listed(f"probe/{ATTENTION}/*"), "nothing is scored for a first version"
    prepare(workspace, STARVED)
    materialize_report(workspace, simulated=True)
    release, verdict, contest = judged(workspace, tracking, BOTH)
    assert contest is not None
    linear, attention, mean = verdict.probes
    for row, task, ours in ((linear, "ptbxl_superclass", "pretrained"), (attention, ATTENTION, "challenger")):
        names = (f"probe/{task}/{ours}", f"probe/{task}/champion")
        scores = [workspace.require(name).facts["validation_macro_auc"]["value"] for name in names]
        assert [row.challenger, row.champion] == pytest.approx(scores, abs=1e-12)
        assert row.weight == 1.0
    assert linear.difference is not None
    assert attention.difference is not None
    assert contest.macro == mean.difference
    assert contest.macro.value == pytest.approx((linear.difference.value + attention.difference.value) / 2)
    assert release.verdict == verdict
    described = tracking.client().get_model_version("ecg-encoder", str(release.version)).description
    assert described is not None
    assert f"| attention\\_pool&emsp; | 1&emsp; | {attention.challenger:.4f}&emsp;" in described
    shown = version_rows(tracking, "ecg-encoder")[0][2]
    assert shown == f"{linear.challenger:.4f} linear, {attention.challenger:.4f} attention_pool"
    assert materialize_report(workspace, simulated=True).cached, "the report is as it was before the gate"
    evaluate_encoder(workspace, evaluation(ATTENTION), QUICK)
    shutil.rmtree(workspace.folder(f"probe/{ATTENTION}/challenger"))
    assert judged(workspace, tracking, replace(BOTH, margin=0.5)).verdict.probes == verdict.probes
    assert workspace.current(f"probe/{ATTENTION}/challenger") is None


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_a_champion_whose_code_has_no_tokens_is_judged_by_what_both_have(places, tracking):
    prepare(places[0], SEEING)
    champion = promote(judged(places[0], tracking, LENIENT).release, tracking=tracking)
    program = model_folder(champion, tracking=tracking) / "encoder_model.py"
    program.write_text(program.read_text().replace("self.encoder", "self.network"))
    prepare(places[0], STARVED)
    _, verdict, contest = judged(places[0], tracking, BOTH)
    assert contest is not None
    linear, attention = verdict.probes
    assert (contest.macro, attention.champion) == (linear.difference, None)
    assert attention.challenger is not None
    assert "macro AUC by linear" in verdict.reason
    assert "attention_pool not compared (models:/ecg-encoder/1 was registered with other code than" in verdict.reason
    alone = judged(places[0], tracking, replace(BOTH, probes={"attention_pool": 1.0})).verdict
    assert "nothing to compare on validation by the probes that are judged (attention_pool: models:" in alone.reason


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_a_champion_that_was_rolled_back_and_brought_back_passes_its_own_gate(places, tracking):
    prepare(places[0], SEEING)
    promote(judged(places[0], tracking, LENIENT).release, tracking=tracking)
    prepare(places[0], STARVED)
    release, passed, _ = judged(places[0], tracking, LENIENT)
    assert promote(release, tracking=tracking).version == 2
    rollback(why="wrong gains", tracking=tracking)
    former, refused, _ = judged(places[0], tracking, LENIENT)
    assert "ecg rollback" in refused.reason
    assert former.verdict == passed, "the verdict that it passed by stays on the version"
    assert versions_of(tracking=tracking)[0].verdict == passed
    rollback(to=2, why="it was the hospital", tracking=tracking)
    assert judged(places[0], tracking, LENIENT).verdict == passed


@pytest.mark.usefixtures("unserved")
def test_the_champion_scored_anew_stays_and_newer_code_takes_its_place_and_no_other(places, tracking, monkeypatch):
    prepare(places[0], SEEING)
    promote(judged(places[0], tracking, LENIENT).release, tracking=tracking)
    for task in TASKS.values():
        probe_pair(places[0], task, replace(QUICK, penalties=(1.0,)))
    again, verdict, _ = judged(places[0], tracking, LENIENT)
    assert (again.version, again.scores, verdict.promote) == (1, scores_of(places[0]), True)
    monkeypatch.setattr("pipelines.versions.RELEASE", "newer")
    newer, verdict, contest = judged(places[0], tracking, LENIENT)
    assert (newer.version, contest) == (2, None)
    assert verdict.reason == "promoted: the weights are those of version 1, served by other code"
    assert promote(newer, tracking=tracking).version == 2
    assert aliases_of(tracking=tracking) == {CHAMPION: 2}, "one with other weights there never was"


@pytest.mark.usefixtures("unserved")
def test_the_gate_judges_what_was_released_by_the_task_that_stands_on_it(places, tracking):
    prepare(places[0], SEEING)
    with pytest.raises(ValueError, match=r"encoder is not registered at .*: materialize released_encoder first"):
        judge_current(places[0], tracking, config=LENIENT)
    promote(judged(places[0], tracking, LENIENT).release, tracking=tracking)
    prepare(places[0], STARVED)
    release_current(places[0], tracking, gate_task="cpsc2018", simulated=True)
    release, unscored, _ = judge_current(places[0], tracking, config=LENIENT)
    assert (release.version, release.scores.task) == (2, "cpsc2018")
    assert "nothing to compare on validation" in unscored.reason
    release_current(places[0], tracking, simulated=True)
    release, scored, contest = judge_current(places[0], tracking, config=LENIENT)
    assert (release.version, release.scores.task, scored.promote) == (2, "ptbxl_superclass", True)
    assert contest is not None
    put_encoder(places[0], SEEING)
    prepare(places[0], SEEING)
    put_encoder(places[0], STARVED)
    with pytest.raises(ValueError, match="probe/ptbxl_superclass/pretrained is of an earlier encoder"):
        judge_current(places[0], tracking, config=LENIENT)


@pytest.mark.usefixtures("unserved")
def test_the_way_from_the_demo_to_recorded_ecgs_is_open_and_the_way_back_is_not(places, tracking):
    prepare(places[0], SEEING)
    demo = judged(places[0], tracking, LENIENT).release
    assert (demo.tags["ecgs"], promote(demo, tracking=tracking).version) == ("simulated", 1)
    prepare(places[0], STARVED)
    recorded, verdict, contest = judged(places[0], tracking, GateConfig(margin=0.0), simulated=False)
    assert (recorded.tags["ecgs"], verdict.promote, contest) == ("recorded", True, None)
    assert promote(recorded, tracking=tracking).version == 2
    prepare(places[0], replace(SEEING, input_scale=4.0))
    again, verdict, _ = judged(places[0], tracking, LENIENT)
    assert (again.version, verdict.promote) == (3, False)
    assert "it was trained on simulated ECGs, and version 2, the champion, on recorded ones" in verdict.reason
    assert aliases_of(tracking=tracking) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: 3}


@pytest.mark.slow
def test_a_collapsed_encoder_is_not_even_the_first_champion(places, tracking):
    prepare(places[0], SEEING, spread=1e-5)
    release, verdict, _ = judged(places[0], tracking, GateConfig())
    assert {name for name, rule in verdict.rules.items() if not rule.holds} == {"not_collapsed"}
    with pytest.raises(ValueError, match="has not passed the gate: kept as challenger: not_collapsed"):
        promote(release, tracking=tracking)
    assert find_alias(CHAMPION, tracking=tracking) is None


def test_the_same_release_is_found_again(places, tracking):
    prepare(places[0], SEEING)
    first, second = (release_current(places[0], tracking, simulated=True) for _ in range(2))
    assert (first.created, second.created) == (True, False)
    assert first.version == second.version


def test_two_releases_at_once_are_one_version(places, tracking):
    prepare(places[0], SEEING)
    with ThreadPoolExecutor(2) as pool:
        releases = list(pool.map(lambda _: release_current(places[0], tracking, simulated=True), range(2)))
    assert sorted(release.created for release in releases) == [False, True]
    assert {release.version for release in releases} == {1}


@pytest.mark.slow
def test_the_reference_is_released_under_its_own_name_and_pulled_from_there(places, tracking, tmp_path, monkeypatch):
    workspace = places[0]
    prepare(workspace, SEEING)
    ours = scores_of(workspace)
    promote(judged(workspace, tracking, GateConfig())[0], tracking=tracking)
    reference = random_encoder(SEEING, 6)
    state = {published_name(name): value for name, value in reference.state_dict().items()}
    torch.save({"encoder": state, "epoch": 99}, tmp_path / "multiblock.pth")
    imported = materialize_reference(workspace, tmp_path / "multiblock.pth", SEEING)
    pairs = {name: probe_pair(workspace, task, QUICK, REFERENCE) for name, task in TASKS.items()}
    released = release_reference(workspace, tracking)
    assert released.model_uri == "models:/ecg-encoder-reference/1"
    assert not release_reference(workspace, tracking).created

    tags = released.tags
    assert tags["source_sha256"] == imported.facts["sha256"]
    assert (tags["source_file"], tags["source_epoch"], "source_published" in tags) == ("multiblock.pth", "99", False)
    pair = pairs["ptbxl_superclass"]
    assert released.scores.validation == pair.pretrained.facts["validation_macro_auc"]["value"]
    assert released.scores.data_digest == ours.data_digest, "scored on the same data as ours"
    assert scores_of(workspace) == ours, "ours keeps its own probes and its own random baseline"
    assert tracking.client().get_registered_model("ecg-encoder-reference").aliases == {}
    champion = find_alias(CHAMPION, tracking=tracking)
    assert champion is not None
    assert champion.name == "ecg-encoder"

    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        model = mlflow.pyfunc.load_model("models:/ecg-encoder-reference/1")
    embedding = model.predict(example_ecg(), params={"sampling_rate": 100.0})
    np.testing.assert_allclose(embedding, embed(reference, example_ecg(), sampling_rate=100.0), atol=1e-6)


def test_scores_of_an_earlier_encoder_are_not_released_as_this_one_s(places, tracking):
    prepare(places[1], SEEING)
    put_encoder(places[1], STARVED)
    with pytest.raises(ValueError, match="probe/ptbxl_superclass/pretrained is of an earlier encoder"):
        release_current(places[1], tracking, simulated=True)


def test_the_reference_s_scores_are_shown_beside_ours(places, tmp_path, monkeypatch, new_store):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = places[0]
    home = Home(workspace.root.parent, HOSTS)
    new_store(home.root / "mlflow")
    put_encoder(workspace, SEEING)
    ours = probe_pair(workspace, TASKS["ptbxl_superclass"], ProbeConfig())
    state = {published_name(name): value for name, value in random_encoder(STARVED, 6).state_dict().items()}
    torch.save({"encoder": state, "epoch": 1}, tmp_path / "released.pth")
    materialize_reference(workspace, tmp_path / "released.pth", STARVED)
    reports = []
    release, rows = release_with_scores(home, lambda *report: reports.append(report), REFERENCE)
    assert release.name == "ecg-encoder-reference"
    table = {row[0]: row[1:] for row in rows}
    assert table["cpsc2018"][1].startswith("not scored: ")
    assert table["ptbxl_superclass"][0] == ours.figures()["labels scored"]
    reference, pretrained, random, difference = table["ptbxl_superclass"][1:]
    figures = ours.figures()
    assert pretrained == f"{figures['test macro AUC, pretrained']:.3f} ({figures['test interval, pretrained']})"
    assert reference.startswith(f"{release.scores.metrics['ptbxl_superclass/test_macro_auc']:.3f} (")
    assert random.startswith(f"{release.scores.metrics['ptbxl_superclass/test_macro_auc_random']:.3f} (")
    assert abs(float(difference.split()[0]) - (float(reference.split()[0]) - float(pretrained.split()[0]))) < 2e-3
    assert {title for _, _, title in reports} == {TASKS["ptbxl_superclass"].title}


def test_the_commit_is_named():
    inside = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    expected = inside.stdout.strip() if inside.returncode == 0 else "unknown"
    assert git_commit() == expected
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", git_commit())


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_a_champion_may_be_of_either_kind(places, tracking):
    """From a transformer to an S4 encoder and back, each answering as it was released."""
    places, ecgs = places[0], np.concatenate([example_ecg()] * 3, axis=2)  # of 30 s
    prepare(places, SEEING)
    promote(judged(places, tracking, LENIENT).release, tracking=tracking)

    prepare(places, ON_S4, recipe=small_cpc().to_dict())
    challenger, verdict, contest = judged(places, tracking, BOTH)
    assert contest is not None, "both kinds are probed on the same ECGs"
    assert all(row.difference is not None for row in contest.probes)
    assert verdict.promote
    assert promote(challenger, tracking=tracking).version == 2
    page = tracking.client().get_model_version("ecg-encoder", "2").description
    assert page is not None
    assert "- Method: CPC on an S4 encoder" in page
    assert [row[4] for row in version_rows(tracking, "ecg-encoder")] == ["small_cpc", ""]
    report = materialize_report(places, simulated=True)
    shown = json.loads((report.path / "report.json").read_text())
    assert shown["pretraining"]["method"] == "CPC on an S4 encoder"
    assert shown["inputs"]["this encoder"] == "leads I, II, V1 to V6, 2.5 s at 250 Hz, millivolt times 4"
    page = (report.path / "report.html").read_text()
    assert "This encoder is made for 2.5 s, tested on the mean over the windows of 10 s." in page
    assert "this encoder: leads I, II, V1 to V6, 2.5 s at 250 Hz, millivolt times 4." in page

    answers = {}
    for version, width in ((1, 32), (2, 24)):
        released = next(one for one in versions_of(tracking=tracking) if one.version == version)
        model = mlflow.pyfunc.load_model(str(model_folder(released, tracking=tracking)))
        answers[version] = model.predict(ecgs, params={"sampling_rate": 100.0})
        eight = model.predict(ecgs[:, [0, 1, *range(6, 12)]], params={"sampling_rate": 100.0})
        assert answers[version].shape == (1, width)
        np.testing.assert_allclose(eight, answers[version], atol=1e-6)
    encoder = random_encoder(ON_S4, 5)
    np.testing.assert_allclose(answers[2], embed(encoder, ecgs, sampling_rate=100.0), atol=1e-6)

    prepare(places, STARVED)
    release, back, contest = judged(places, tracking, LENIENT)
    assert contest is not None
    assert back.against == 2
    promote(release, tracking=tracking)
    assert rollback(why="of the other kind", tracking=tracking).version == 2
    champion = find_alias(CHAMPION, tracking=tracking)
    assert champion is not None
    assert champion.version == 2
