"""Names of files, records and labels reach a terminal escaped, whatever its encoding, and end no command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.cli.console import counting, print_table
from pipelines.cli.embed import Embedded, write_embeddings

ODD = os.fsdecode(b"M\xfcller\x1b[31m")
ESCAPED = "M\\udcfcller\\x1b[31m"


def in_terminal(encoding: str, *arguments: str) -> Result:
    """Run a command as in a terminal of an encoding; an error that it does not explain is raised."""
    return CliRunner(charset=encoding).invoke(main, list(arguments), catch_exceptions=False)


def odd_header(folder: Path) -> Path:
    header = folder / f"{ODD}.hea"
    header.write_text("I\n1\n")
    return header


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_file_of_an_odd_name_is_inspected(tmp_path: Path, encoding: str) -> None:
    header = odd_header(tmp_path)
    shown = in_terminal(encoding, "inspect", str(header))
    assert (shown.exit_code, shown.stderr) == (1, "")
    assert f"file              {tmp_path}/{ESCAPED}.hea\n" in shown.stdout
    assert "unreadable header" in shown.stdout
    read = json.loads(in_terminal(encoding, "inspect", "--json", str(header)).stdout)
    assert read["file"] == str(header)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_refusal_that_names_it_is_one_line(tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / f"{ODD}[/red]"
    shown = in_terminal(encoding, "check-drop", str(folder))
    assert shown.exit_code == 1
    error = shown.stderr.splitlines()[-1]
    assert error.startswith(f"Error: {tmp_path}/{ESCAPED}[/red]: no such folder")


def test_the_home_is_a_name_that_mlflow_and_dagster_can_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / os.fsdecode(b"K\xe4the")))
    shown = in_terminal("utf-8", "models")
    assert shown.exit_code == 1
    assert "K\\udce4the': its name is no text in UTF-8: rename the folder" in shown.stderr


def test_no_name_is_markup_of_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("[bold]label", "n"), [("[red]x[/]", 1), ("[/nothing]\x1b[2J", None)])
    with counting("[/reading]") as on_count:
        on_count(1, 2, "[/own labels]\x1b[2J")
    seen = capsys.readouterr()
    assert "[bold]label" in seen.out
    assert "[red]x[/]" in seen.out
    assert "[/nothing]\\x1b[2J" in seen.out
    assert "\x1b[2J" not in seen.out + seen.err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_embeddings_of_a_file_of_an_odd_name_are_written(tmp_path: Path, ending: str) -> None:
    rows = [Embedded(file=f"{ODD}.hea", record_id=ODD, embedding_D=np.zeros(2, np.float32))]
    write_embeddings(tmp_path / f"e.{ending}", rows)
    if ending == "csv":
        table = pa_csv.read_csv(tmp_path / "e.csv")
        assert table.column("file").to_pylist() == ["M\\udcfcller\x1b[31m.hea"]
