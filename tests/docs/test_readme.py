"""README.md's examples on what the demo leaves: the files are there, and the commands do what is said."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.demo import pull_command
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.evaluate.suite.own_labels import own_task
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.pretrain.options import program_parser, recipe_of
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.pipelines.cli.test_embed import Direct
from tests.support.commands import ecg
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("   #")[0].partition(" # ")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
]
SIZES = MirrorSizes(chapman=(), code15=(6,), ptbxl=(3, 4, 4), cpsc2018=(12, 1, 1, 1, 1, 1, 1), georgia=(), ludb=0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `var` as a small demo leaves it, without a model."""
    folder = tmp_path_factory.mktemp("clone")
    home = Home(folder / "var")
    write_mirror(home.simulated_mirror, sizes=SIZES)
    home.set_mirror(str(home.simulated_mirror))
    for source, partition in (("code15", "0"), ("cpsc2018", "g1")):
        raw = {"mirror": Mirror.parse(home.mirror), "raw_root": home.raw_root}
        materialize_raw(home.workspace(), SOURCES[source], partition, **raw)
        materialize_ecgs(home.workspace(), SOURCES[source], partition, limits=QualityLimits())
    return folder


@pytest.fixture
def clone(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of somebody who types what README.md says."""
    monkeypatch.chdir(demo)
    monkeypatch.delenv("ECG_HOME", raising=False)
    monkeypatch.delenv("ECG_MIRROR", raising=False)
    return demo


def the(start: str) -> str:
    """The command that begins so."""
    (command,) = [line for line in COMMANDS if line.startswith(start)]
    return command


def words(command: str) -> list[str]:
    (folder,) = [line.partition("=")[2] for line in COMMANDS if line.startswith("ECGS=")]
    return shlex.split(command.replace("$ECGS", folder))


def test_ecgs_of_the_demo_are_inspected_and_embedded(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cli.embed.pull", lambda uri: nullcontext(Direct()))
    commands = [line for line in COMMANDS if re.match(r"\.venv/bin/ecg (inspect|embed) \$ECGS", line)]
    assert len(commands) == 3
    for command in commands:
        done = ecg(*words(command)[1:])
        assert done.exit_code == 0, done.output
    assert Path("ecg.png").stat().st_size > 10_000
    assert pq.read_table("embeddings.parquet").num_rows == 3


def test_the_records_that_were_left_out_are_listed(clone: Path) -> None:
    command, file = the(".venv/bin/ecg sources code15 --dropped").split(" > ")
    assert file == "dropped.csv"
    shown = ecg(*words(command)[1:])
    assert "code15,0,1000002,harmonize,flat lead,all leads are zero throughout" in shown.stdout


def test_the_labels_of_the_example_are_read(clone: Path) -> None:
    shutil.rmtree("cpsc2018", ignore_errors=True)
    assert ecg(*words(the(".venv/bin/ecg export"))[1:]).exit_code == 0
    subprocess.run(["bash", "-c", the("sed ")], check=True)
    _, name, file, *options = words(the(".venv/bin/ecg evaluate-labels"))
    assert (name, options) == ("evaluate-labels", ["--source", "cpsc2018"])
    task = own_task(Home("var").workspace(), Path(file), "cpsc2018")
    assert len(task.codes or {}) > 8


def test_the_training_is_understood() -> None:
    command = re.sub(r"\$\(.*?\)", "FINGERPRINT", the(".venv/bin/python -m pipelines.pretrain --recipe"))
    options = program_parser().parse_args(shlex.split(command)[3:])
    assert (recipe_of(options).name, str(options.out)) == ("small", "runs/first")


class Encoder:
    """Stands in for what MLflow loads."""

    def predict(self, ecgs: np.ndarray, params: dict[str, Any]) -> np.ndarray:
        assert params == {"sampling_rate": 500.0}
        assert ecgs.shape == (1, 12, 5000)
        assert 0.05 < float(ecgs.std()) < 1, "millivolt"
        return np.full((1, 96), 0.123456, np.float32)


def test_the_model_is_pulled_and_gives_an_embedding(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlflow.set_tracking_uri", lambda uri: None)
    monkeypatch.setattr("mlflow.pyfunc.load_model", lambda uri: Encoder())
    section = README.partition("## Pull the model\n")[2]
    snippet = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    exec(snippet, {})
    assert capsys.readouterr().out == "(1, 96) [0.12 0.12 0.12 0.12]\n"
    place, *_, code = shlex.split(pull_command(Home(clone / "a home"), "champion"))
    assert place == f"MLFLOW_TRACKING_URI=sqlite:///{clone}/a home/mlflow/mlflow.db"
    exec(code, {})
    assert capsys.readouterr().out.startswith("[[0.12 0.12")
