"""`ecg evaluate`: the suite by name from a shell, on simulated PTB-XL."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from pipelines.cli import main
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.evaluate.probes.assessment import assess
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.suite.baselines import probe_pair
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.hashing import sha256_of_file
from pipelines.home import Home
from pipelines.release.model import Scores
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import TASKS
from tests.support.releases import crown, put


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A data home with 300 simulated ECGs of PTB-XL and an encoder that was not trained."""
    root = tmp_path_factory.mktemp("evaluate")
    sizes = MirrorSizes(chapman=(), code15=(), ptbxl=(300,), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(root / "mirror", seed=1, sizes=sizes)
    found = Home(root / "home", str(root / "mirror"))
    workspace, source = found.workspace(), SOURCES["ptbxl"]
    materialize_raw(workspace, source, "00000", mirror=Mirror.parse(found.mirror), raw_root=found.raw_root)
    materialize_ecgs(workspace, source, "00000", limits=QualityLimits())

    def make(work: Path) -> dict:
        config = EncoderConfig(dim=32, depth=1, heads=2, input_scale=5.0, patch_init_scale=25.0)
        save_encoder(work / "encoder.safetensors", random_encoder(config, 5))
        return {"recipe": {"seed": 4}}

    workspace.build("encoder", version="test", config={}, inputs={}, make=make)
    return found


def ecg(home: Home, *arguments: str) -> Result:
    environment = {"ECG_HOME": str(home.root), "ECG_MIRROR": home.mirror}
    result = CliRunner(env=environment).invoke(main, ["evaluate", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_without_a_name_all_that_is_kept_up_to_date_is_listed(home):
    lines = ecg(home).stdout.splitlines()
    here = {line.split()[0]: line.rstrip().endswith(" here") for line in lines[1:]}
    assert here["ptbxl_superclass"]
    assert here["ptbxl_superclass__labels_1"]
    assert not here["cpsc2018__multi_class__nearest_mean"]


def test_an_evaluation_stands_beside_what_it_has_to_beat_and_is_found_again(home):
    names = ("ptbxl_superclass__leads_II_V1", "ptbxl_superclass__labels_1")
    first = ecg(home, *names)
    assert first.exit_code == 0, first.output
    said, _, tables = first.stdout.partition("\n")
    assert said.startswith(
        "encoder: pretrained, since ecg-encoder has no champion; the data home's own encoder (sha256"
    )
    one, other = tables.split(names[1])
    assert one.startswith(f"{names[0]}, intervals by patient")
    rows = {line.split()[0]: line.split() for line in one.splitlines()[2:] if line.strip()}
    assert set(rows) == {"pretrained", "random", "handcrafted"}
    assert all(0 < float(row[1]) < 1 for row in rows.values())
    lines = {line.split()[0]: line for line in one.splitlines()[2:] if line.strip()}
    assert " not known" in lines["pretrained"], "its corpus is not here"
    assert " nothing " in lines["random"]
    assert " nothing " in lines["handcrafted"]
    assert "each needs 20" in other, "one percent of so few patients is not scored, and says so"
    product = home.workspace().require("probe/ptbxl_superclass__leads_II_V1/pretrained")
    figures = assess(load_result(product.path), ProbeConfig())
    assert figures.f1 is not None
    for value in (figures.average_precision.value, figures.f1.value, figures.brier.value):
        assert f" {round(value, 4)} " in lines["pretrained"]
    assert ecg(home, *names).stdout == first.stdout
    assert home.workspace().require("probe/ptbxl_superclass__leads_II_V1/pretrained").path == product.path


def test_the_champion_is_judged_unless_another_version_is_named(home, tmp_path, new_store):
    copied = Home(Path(shutil.copytree(home.root, tmp_path / "home", symlinks=True)), home.mirror)
    store, own = new_store(copied.root / "mlflow"), copied.workspace().require("encoder").path / "encoder.safetensors"
    other = tmp_path / "encoder.safetensors"
    save_encoder(other, random_encoder(load_encoder(own).config, 6))
    crown(store, "ecg-encoder", other, Scores())
    put(store, "ecg-encoder", own, Scores())
    name = "ptbxl_superclass__leads_II"
    judged = ecg(copied, name)
    assert judged.exit_code == 0, judged.output
    said, *lines = judged.stdout.splitlines()
    assert said.startswith(
        "encoder: models:/ecg-encoder@champion, which is version 1; not the data home's own encoder (sha256 "
    )
    assert lines[2].split()[0] == f"encoder-{sha256_of_file(other)[:12]}"
    said, _, _, row, *_ = ecg(copied, name, "--encoder", "models:/ecg-encoder/2").stdout.splitlines()
    assert said.startswith("encoder: models:/ecg-encoder/2; the data home's own encoder (sha256 ")
    assert row.split()[0] == "pretrained"


def test_the_plain_probe_keeps_the_settings_of_its_asset(home):
    workspace, task = home.workspace(), TASKS["ptbxl_superclass"]
    few = ProbeConfig(min_positives=3, penalties=(1e-2,))
    probed = probe_pair(workspace, task, few).pretrained
    shown = ecg(home, "ptbxl_superclass")
    assert shown.exit_code == 0, shown.output
    assert workspace.require("probe/ptbxl_superclass/pretrained").path == probed.path, "one encoder, one score"
    scores = load_result(probed.path).scores
    assert scores is not None
    assert f" {scores.test.labels} " in shown.stdout


def test_intervals_are_told_beside_the_random_encoder(home):
    shown = ecg(home, "regression/ptbxl")
    assert shown.exit_code == 0, shown.output
    _, title, *lines = shown.stdout.splitlines()
    assert title.rstrip() == "mean absolute errors, ptbxl, the simulator's known boundaries; seen: not known"
    rows = {line[:14].strip(): line for line in lines[1:]}
    facts = home.workspace().require("regression/ptbxl_truth/pretrained").facts
    for one in facts["figures"]:
        assert f" {round(one['mae']['value'], 2)} " in rows[one["title"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "evaluation 'nothing': begin with one of ptbxl_superclass"),
        ("ptbxl_superclass__leads_V9", "variant 'leads_V9': name some of I, II"),
        ("cpsc2018", "cpsc2018: no ECGs of cpsc2018 in"),
        ("segmentation/ludb", "segmentation/ludb: no ECGs of ludb in"),
        ("waves/ludb", "evaluation 'waves/ludb': use segmentation or regression, a slash, and one of chapman"),
        ("regression/../ptbxl", "evaluation 'regression/../ptbxl': use"),
    ],
)
def test_a_mistake_is_one_line(home, name, message):
    shown = ecg(home, "ptbxl_superclass", name)
    assert shown.exit_code == 1
    assert message in shown.stderr
    assert shown.stdout == "", "nothing is computed before all names are understood"
