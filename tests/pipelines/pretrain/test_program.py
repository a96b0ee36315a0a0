"""`python -m pipelines.pretrain` in processes of its own: killed, stopped, damaged, refused, and gone on from."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param

from ecg_model.encoder_file import load_encoder
from pipelines.cache import MAKING
from pipelines.pretrain.__main__ import main
from pipelines.pretrain.options import device_named
from pipelines.pretrain.recipes import recipe_named
from pipelines.program import REFUSED, stop_on_signals
from tests.support.pretraining import (
    ROOT,
    STEPS,
    Program,
    environment,
    in_this_process,
    lasting,
    small_home,
    tensors_of,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_home(tmp_path_factory.mktemp("home"))


def products(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def whole(home: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A run that nothing interrupted."""
    program = Program(home, tmp_path_factory.mktemp("whole"))
    done = program.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(program.out / "encoder.safetensors")
    assert f"step {STEPS}/{STEPS}" in done.stderr
    return program


def test_the_folder_of_a_product_is_not_named_since_it_gets_another_name(
    home: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program(home, tmp_path / "0123.partial")
    program.out.mkdir()
    (program.out / MAKING).write_text("{}")
    assert program.here(steps=2)[0] == 0
    assert (program.out / "encoder.safetensors").is_file()
    assert capsys.readouterr().out == ""


def test_too_few_validation_ecgs_are_said_before_the_training(tmp_path: Path) -> None:
    code, said = Program(small_home(tmp_path / "home", ecgs=8), tmp_path / "out").here(steps=2)
    assert code == 0
    assert re.match(r"[123] validation ECGs: 4 are needed to tell if the encoder learns: harmonize more ECGs", said)


def test_a_run_leaves_its_products_and_the_newest_two_checkpoints(whole: Program) -> None:
    assert set(products(whole.out)) == {"encoder.safetensors", "summary.json"}
    assert load_encoder(whole.out / "encoder.safetensors").config.dim == 16
    summary = json.loads((whole.out / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["recipe"]["jepa"]["encoder"]["dim"] == 16
    assert summary["first"]["loss"] > summary["last"]["loss"] > 0
    assert [whole.step(path) for path in whole.checkpoints()] == [39, 40]
    for path in whole.checkpoints():
        subprocess.run(
            ["sha256sum", "--check", f"{path.name}.sha256"], cwd=path.parent, check=True, capture_output=True
        )
    steps = [line["step"] for line in whole.metrics()]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert {"validation_loss", "embedding_std", "effective_rank", "target_std", "gradient_norm"} <= set(
        whole.metrics()[0]
    )


def same(program: Program, whole: Program) -> None:
    """Products, metrics and all tensors of the last checkpoint are equal to the bit."""
    assert products(program.out) == products(whole.out)
    assert lasting(program.metrics()) == lasting(whole.metrics())
    expected, actual = (tensors_of(each.checkpoints()[-1]) for each in (whole, program))
    assert len(expected) > 1000
    assert actual == expected


@pytest.mark.slow
def test_a_run_that_is_killed_and_stopped_ends_with_the_bytes_of_one_that_is_not(
    home: tuple[Path, Path], whole: Program, tmp_path: Path
) -> None:
    program = Program(home, tmp_path)
    assert program.interrupted(signal.SIGKILL, 7)[0] == -signal.SIGKILL
    assert not products(tmp_path)
    with program.metrics_file.open("a") as stream:
        stream.write('{"step": 39, "lo')  # a line that a kill cut short
    # As a supervisor does, and whoever else stops with it: each tells it, also while the interpreter ends.
    code, output = program.interrupted(signal.SIGTERM, 23, until_it_ends=True)
    assert code == 128 + signal.SIGTERM
    assert "going on from step" in output
    stopped_at = int(re.findall(r"stopped at step (\d+)", output)[0])
    assert program.step(program.checkpoints()[-1]) == stopped_at
    again = program.run()
    assert again.returncode == 0, again.stderr
    assert f"going on from step {stopped_at}" in again.stderr
    same(program, whole)


def test_a_second_sigint_ends_the_process_and_no_second_sigterm_does() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        received = stop_on_signals()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert received == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
        assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_damaged_checkpoint_is_passed_over_aloud(home: tuple[Path, Path], whole: Program, tmp_path: Path) -> None:
    shutil.copytree(whole.out / "aside", tmp_path / "aside")
    program = Program(home, tmp_path)
    newest = program.checkpoints()[-1]
    flip_a_bit(newest)
    again = program.run()
    assert again.returncode == 0, again.stderr
    assert f"{newest.name} is damaged (its sha256 is not the recorded one)" in again.stderr
    assert "going on from step 39" in again.stderr
    same(program, whole)


def test_with_all_checkpoints_damaged_it_does_not_begin_again(
    home: tuple[Path, Path], whole: Program, tmp_path: Path
) -> None:
    shutil.copytree(whole.out / "aside", tmp_path / "aside")
    program = Program(home, tmp_path)
    for path in program.checkpoints():
        flip_a_bit(path)
    for _ in range(2):  # and it stays an error
        code, output = program.here()
        assert code == REFUSED
        assert output.splitlines()[-1].startswith("pretraining: all 2 checkpoints")
    assert not products(tmp_path)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_a_changed_recipe_is_refused_with_the_fields_name(
    home: tuple[Path, Path], whole: Program, tmp_path: Path
) -> None:
    shutil.copytree(whole.out / "aside", tmp_path / "aside")
    code, output = Program(home, tmp_path).here(**{"peak_lr": 0.03, "jepa.masking.kind": "random"})
    assert code == REFUSED
    assert f"peak_lr: {recipe_named('demo').peak_lr} -> 0.03" in output
    assert "jepa.masking.kind: 'block' -> 'random'" in output
    assert not products(tmp_path)


def test_under_dagster_pipes_it_reports_its_log_and_its_summary(home: tuple[Path, Path], tmp_path: Path) -> None:
    program, messages = Program(home, tmp_path / "out"), tmp_path / "messages.jsonl"
    params = {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": {"extras": {}}}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(messages)}),
    }
    command = program.command(steps=2)
    subprocess.run(command, cwd=ROOT, env=environment() | params, capture_output=True, check=True)
    sent = [json.loads(line) for line in messages.read_text().splitlines()]
    logged = [message["params"]["message"] for message in sent if message["method"] == "log"]
    assert any("step 2/2" in line for line in logged)
    (custom,) = [message["params"]["payload"] for message in sent if message["method"] == "report_custom_message"]
    assert custom == json.loads((program.out / "summary.json").read_text())


def test_it_starts_with_no_more_than_a_bare_gpu_machine_has() -> None:
    loaded = "print(*{name.split('.')[0] for name in sys.modules})"
    code = f"import sys, pipelines.pretrain.recipes; {loaded}; import pipelines.pretrain.__main__; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    recipes, program = (set(line.split()) for line in done.stdout.splitlines())
    assert not recipes & {"torch", "numpy"}
    assert {"torch", "zarr", "pyarrow"} <= program
    assert not program & {"dagster", "dagster_pipes", "mlflow", "pandas", "scipy", "sklearn", "rich", "wfdb", "h5py"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--recipe", "huge"], "recipe 'huge': use demo, small, paper_block, paper_random"),
        (["--set", "lr=1"], "lr: Recipe has no field 'lr': use name, jepa, cpc, batch"),
        (["--set", "batch"], "write FIELD=VALUE"),
        (["--set", "batch=many"], "batch='many': use a value of type int"),
        (["--set", "jepa.encoder.dim=97"], "dim=97"),
        (["--recipe-json", "{"], "Expecting property name"),
        (["--device", "tpu"], "use auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--corpus", "nowhere"], "nowhere holds no corpus"),
    ],
)
def test_a_mistake_is_one_clear_line(
    options: list[str], complaint: str, tmp_path: Path, home: tuple[Path, Path]
) -> None:
    places = ["--workspace", str(home[0]), "--corpus", str(home[1]), "--out", str(tmp_path / "out"), "--device", "cpu"]
    code, output = in_this_process([*places, *options])
    assert code == REFUSED
    assert complaint in output
    assert len(output.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] in ([], [".lock"])


@pytest.mark.parametrize(("name", "torchrun", "chosen"), [("auto", "", ""), ("cuda", "", ""), ("auto", "1", ":1")])
def test_a_gpu_is_chosen_by_name_and_rank(
    name: str, torchrun: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", lambda index: None, raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("LOCAL_RANK", torchrun)
    assert str(device_named(name)) == f"cuda{chosen}"


def test_intervals_of_checkpoints_are_steps_or_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("0", "-3", "1.5", "m", "0m", "nanm", "10 minutes"):
        with pytest.raises(SystemExit):
            main(["--workspace", "w", "--corpus", "c", "--out", "o", "--checkpoint-every", text])
        assert f"{text!r}: give steps, such as 500, or minutes, such as 10m" in capsys.readouterr().err
