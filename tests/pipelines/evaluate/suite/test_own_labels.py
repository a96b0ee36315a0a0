"""Labels of one's own: what a csv may say, what is refused, and what the command prints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cli import main
from pipelines.evaluate.probes.assessment import assess
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.suite.own_labels import own_task, read_labels
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.home import Home
from pipelines.tasks.catalogue import LabelTask
from tests.support.own_ecgs import TINY, harmonized
from tests.support.pages import self_contained


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    home = Home.default()

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(TINY, 1))
        return {}

    home.workspace().build("encoder", version="test", config={}, inputs={}, make=make)
    return home


def written(folder: Path, text: str) -> Path:
    file = folder / "Height of R.csv"
    file.write_text(text)
    return file


def test_lines_become_labels(tmp_path):
    file = written(tmp_path, "\ufeffrecord_id, label,reader\na,AF,1\nb, NORM,1\na,LBBB,2\na,AF,3\n")
    assert read_labels(file) == {"a": ("AF", "LBBB"), "b": ("NORM",)}
    spreadsheet = written(tmp_path, 'record_id,label,,\r\n\r\na,"Block, ""left""",,\r\nb,NORM\r\n,,,\r\n')
    with pytest.raises(ValueError, match="line 5: give a record_id and a label"):
        read_labels(spreadsheet)
    spreadsheet.write_text(spreadsheet.read_text().replace("\n,,,", ""))
    assert read_labels(spreadsheet) == {"a": ('Block, "left"',), "b": ("NORM",)}


@pytest.mark.parametrize(
    "joined",
    [
        "AF;LBBB",
        "AF | LBBB",
        "AF; LBBB",
        *(f'"{listed}"' for listed in ("['AF', 'LBBB']", "('AF','LBBB',)", "['AF' 'LBBB']", "[ 'AF',  'LBBB' ]")),
        '"[""AF"", ""LBBB""]"',
    ],
)
def test_joined_labels_are_several(tmp_path, joined):
    file = written(tmp_path, f"record_id,label\na,{joined}\nb,NORM\n")
    assert read_labels(file) == {"a": ("AF", "LBBB"), "b": ("NORM",)}


def test_a_comma_joins_labels_that_are_there_on_their_own(tmp_path):
    file = written(tmp_path, 'record_id,label\na,"AF,LBBB"\nb,AF\nc,LBBB\nd,"Infarction, old"\ne,"AF, old"\n')
    assert read_labels(file) == {
        "a": ("AF", "LBBB"),
        "b": ("AF",),
        "c": ("LBBB",),
        "d": ("Infarction, old",),
        "e": ("AF, old",),
    }


def test_spaces_and_the_case_of_columns_make_no_difference(tmp_path):
    file = written(tmp_path, "Record_ID,LABEL\na,atrial \u00a0 fibrillation\nb, atrial fibrillation\n")
    assert set(read_labels(file).values()) == {("atrial fibrillation",)}


def numbers(values: Iterable[float]) -> str:
    return "record_id,label\n" + "\n".join(f"e{at},{value}" for at, value in enumerate(values))


def test_measured_values_are_no_labels_and_codes_and_classes_are(tmp_path):
    for values in ([20.5 + at for at in range(40)], range(40)):
        with pytest.raises(ValueError, match=r"its labels are 40 different numbers .* taken for measured values"):
            read_labels(written(tmp_path, numbers(values)))
    assert len(read_labels(written(tmp_path, numbers(at % 20 for at in range(40))))) == 40
    assert len(read_labels(written(tmp_path, numbers(164889000 + at for at in range(40))))) == 40


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-16", "it is UTF-16, as Excel's Unicode text is: save it as a csv in UTF-8"),
        ("utf-16-le", "it is UTF-16"),
        ("cp1252", r"line 3: byte 0xe9 is no UTF-8, maybe Windows' cp1252: save it"),
    ],
)
def test_another_encoding_is_said(tmp_path, encoding, says):
    (tmp_path / "x.csv").write_bytes("record_id,label\na,AF\nb,Extrasystol\u00e9\n".encode(encoding))
    with pytest.raises(ValueError, match=says):
        read_labels(tmp_path / "x.csv")


@pytest.mark.parametrize("nothing", ["nan", "NaN", "<NA>", "AF;nan", "AF;;LBBB", "AF;", "[]"])
def test_a_label_that_is_missing_is_no_class(tmp_path, nothing):
    with pytest.raises(ValueError, match=r"line 3: label .* leave the line out"):
        read_labels(written(tmp_path, f"record_id,label\na,AF\nb,{nothing}\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\na,AF\n", "no column 'record_id'"),
        ("", "no column 'record_id'"),
        ("record_id,label\na,AF\nb,\n", "line 3: give a record_id and a label"),
        ("record_id,label\na\n", "line 2: give a record_id and a label"),
        ("record_id,label\na,AF\nb,AF,PVC\n", "line 3: 3 fields under 2 columns: give each label a line"),
        ("record_id,label,\na,AF,PVC\n", "line 2: 3 fields under 2 columns"),
        ("record_id,label,label\na,AF,PVC\n", "the column 'label' is there 2 times"),
        ("record_id;label\na;AF\n", "separated by semicolons: save it with commas"),
        ("record_id\tlabel\na\tAF\n", "separated by tabs: save it with commas"),
        ('record_id,label\na,NORM\nb,"AF\nc,NORM\n', "line 3: unexpected end of data"),
        ('record_id,label\na,"AF\nb,NORM\nc,"LBBB"\n', "line 2: ',' expected after"),
        ('record_id,label\na,"AF\nb,NORM"\n', r"line 2: a field holds a line break .*'AF\\nb,NORM'"),
        ("record_id,label\na,A\0F\n", r"line 2: a field holds .*control character, 'A\\x00F'"),
        (f"record_id,label\na,AF\nb,{'x' * 140_000}\n", "line 3: field larger than field limit"),
        ("record_id,AF,NORM\na,0,1\nb,1,\n", r"a column of zeros and ones for each label \(AF, NORM\): .*table\.melt"),
        ("record_id,age,note\na,63,1\nb,50,x\n", "no column 'label': make the first line"),
        ("record_id,label\na,\"{'NORM': 100.0, 'SR': 0.0}\"\n", "line 2: label .* is no list of texts: join"),
        ("record_id,label\na,[AF; LBBB]\n", "line 2: label .* is no list of texts: join"),
        ("record_id,label\na,AF\nb,NORM\nc,af\n", "labels 'AF' and 'af' differ in case alone"),
    ],
)
def test_a_csv_that_is_none_is_refused_with_its_line(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read_labels(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"record_id,label\n\xff\xfe\x00,AF\n")
    with pytest.raises(ValueError, match="save it as a csv in UTF-8"):
        read_labels(tmp_path / "x.csv")


def test_unknown_and_ambiguous_records_and_a_single_label_are_refused(home, tmp_path):
    workspace = home.workspace()
    with pytest.raises(ValueError, match="no ECGs of incoming"):
        own_task(workspace, written(tmp_path, "record_id,label\ne0,x\n"), "incoming")
    harmonized(workspace, "one", 5)
    with pytest.raises(ValueError, match="1 of 2 records are not among the 5 harmonized ECGs of incoming, such as 'q'"):
        own_task(workspace, written(tmp_path, "record_id,label\ne0,x\nq,y\n"), "incoming")
    for theirs in ("00004", "4.0", "00004_hr", "p1/4.hea"):
        with pytest.raises(ValueError, match=f"such as '{theirs}'; ECGs there are called 'e4', 'e0', 'e1': correct"):
            own_task(workspace, written(tmp_path, f"record_id,label\ne0,x\n{theirs},y\n"), "incoming")
    with pytest.raises(ValueError, match=r"such as 'w1/e3.csv'; ECGs there are called 'e3', "):
        own_task(workspace, written(tmp_path, "record_id,label\ne0,x\nw1/e3.csv,y\n"), "incoming")
    with pytest.raises(ValueError, match="1 labels \\(x\\)"):
        own_task(workspace, written(tmp_path, "record_id,label\ne0,x\ne1,x\n"), "incoming")
    harmonized(workspace, "other", 3)
    with pytest.raises(ValueError, match="in more than one drop of incoming, such as 'e0'"):
        own_task(workspace, written(tmp_path, "record_id,label\ne0,x\ne4,y\n"), "incoming")


def test_the_task_is_about_the_files_records_alone(home, tmp_path):
    workspace = home.workspace()
    harmonized(workspace, "one", 6)
    task = own_task(workspace, written(tmp_path, "record_id,label\ne4,a\ne1,b\n"), "incoming")
    assert (task.name, task.kind, task.names) == ("own_height_of_r", "multi-class", ("a", "b"))
    y_NC, _ = task.targets(read_records(shards_of(workspace, "incoming")))
    assert y_NC.tolist() == [[False, i == 1] if i != 4 else [True, False] for i in range(6)]
    assert task.takes_part(y_NC).sum() == 2
    several = own_task(workspace, written(tmp_path, "record_id,label\ne4,a\ne4,b\ne1,b\n"), "incoming")
    assert several.kind == "multi-label"
    assert several.to_dict()["codes_sha256"] != task.to_dict()["codes_sha256"]
    assert "codes_sha256" not in LabelTask(**{**vars(task), "codes": None}).to_dict()


def test_the_command_scores_an_encoder_on_them(home, tmp_path):
    tall = harmonized(home.workspace(), "one", 300)
    lines = [f"e{i},{'tall' if one else 'small'}" for i, one in enumerate(tall)] + ["e299,rare"]
    done = CliRunner().invoke(main, ["evaluate-labels", str(written(tmp_path, "record_id,label\n" + "\n".join(lines)))])
    assert done.exit_code == 0, done.output
    for word in ("pretrained", "random", "handcrafted", "left out"):
        assert word in done.stdout
    assert "multi-label, since 1 record has several labels, such as 'e299'" in " ".join(done.stdout.split())
    facts = home.workspace().require("probe/own_height_of_r/pretrained").facts
    assert facts["test_macro_auc"]["value"] > 0.95
    assert f"{facts['test_macro_auc']['value']:.3f}"[:4] in done.stdout
    assert set(facts["omitted"]) == {"rare"}
    assert "splits and intervals by ECG (the source names no patients)" in done.stdout
    (place,) = re.findall(r"as a page, .*: (/.*)", done.stdout)
    page = self_contained(Path(place).read_text())
    assert Path(place).parent == home.workspace().require("probe/own_height_of_r/pretrained").aside
    result = load_result(home.workspace().require("probe/own_height_of_r/pretrained").path)
    figures = assess(result, ProbeConfig())
    rows = [cells for section, cells in page.rows if section == "own_height_of_r"]
    (ours,) = [cells for cells in rows if cells[""] == "this encoder"]
    for name, value in (
        ("average precision", figures.average_precision),
        ("F1", figures.f1),
        ("Brier score", figures.brier),
    ):
        assert value is not None
        assert ours[name] == f"{value.value:.3f} {value.low:.3f} to {value.high:.3f}"
    assert ours["seen"] == "not known"
    (label,) = [cells for cells in rows if cells[""] == "tall" and "positives" in cells]
    assert label["positives"] == str(figures.labels[-1].positives)
    assert "rare (" in page.words
    assert "Tested on " in page.words


def test_too_few_labels_are_said_in_one_line(home, tmp_path):
    harmonized(home.workspace(), "one", 30)
    lines = "record_id,label\n" + "\n".join(f"e{i},{i % 2}" for i in range(30))
    done = CliRunner().invoke(main, ["evaluate-labels", str(written(tmp_path, lines))])
    assert done.exit_code == 1
    assert "cannot be scored: labelled patients by split" in done.output
    shown = [line.split() for line in done.stdout.splitlines()[:4]]
    assert shown[:3] == [["label", "ECGs"], ["0", "15"], ["1", "15"]]
    assert shown[3][:3] == ["30", "labelled", "ECGs;"]


def test_of_two_labels_that_exclude_each_other_one_is_scored(home, tmp_path):
    """The other has the same AUC: it would stand on the page twice, and count twice in the mean."""
    tall = harmonized(home.workspace(), "one", 300)
    lines = [f"e{i},{'tall' if one else 'small'}" for i, one in enumerate(tall)]
    done = CliRunner().invoke(main, ["evaluate-labels", str(written(tmp_path, "record_id,label\n" + "\n".join(lines)))])
    assert done.exit_code == 0, done.output
    scores = load_result(home.workspace().require("probe/own_height_of_r/pretrained").path).scores
    assert scores is not None
    assert scores.validation is not None
    (scored,) = scores.test.classes
    (other,) = {"tall", "small"} - {scored.name}
    assert scores.test.omitted == {other: f"it is what is not {scored.name}, so its AUC is the same"}
    assert [score.name for score in scores.validation.classes] == [scored.name]
    assert scores.test.accuracy is not None
