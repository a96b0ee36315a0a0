"""What others read of this project stays as it is, whatever becomes of its modules and classes.

A cache on somebody's disk, a registered model, a saved launchpad and a script go by fingerprints, keys, commands and
names. Each table beside this file holds some of them; a change of one is a change for all of these people.
To change a table on purpose:

    GOLDEN=rewrite pytest tests/golden
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulate import MirrorSizes, write_mirror
from tests.golden.promised_commands import commands, json_keys
from tests.golden.promised_graph import graph
from tests.golden.promised_models import told_to_mlflow
from tests.golden.promised_names import draws, stored, surroundings, trained, written
from tests.golden.promised_steps import Recorder, tasks, walk

TABLES = Path(__file__).parent


def differences(wanted: Any, found: Any, at: str = "") -> Iterator[str]:
    """What differs between two JSON values, a line each with the path to it."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            here = f"{at} > {key}" if at else key
            if key not in found:
                yield f"gone: {here}: {json.dumps(wanted[key])[:300]}"
            elif key not in wanted:
                yield f"new: {here}: {json.dumps(found[key])[:300]}"
            else:
                yield from differences(wanted[key], found[key], here)
    elif wanted != found and _names(wanted) and _names(found):
        yield from (f"gone: {at}: {name}" for name in wanted if name not in found)
        yield from (f"new: {at}: {name}" for name in found if name not in wanted)
        if sorted(wanted) == sorted(found):
            yield f"another order: {at}: {wanted} -> {found}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif wanted != found or type(wanted) is not type(found):
        yield f"changed: {at}: {json.dumps(wanted)[:300]} -> {json.dumps(found)[:300]}"


def _names(value: Any) -> bool:
    """Whether it is a list of names, each of them once."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len({*value}) == len(value)


def check(name: str, found: Any) -> None:
    """Compare with the table of that name, or write it where GOLDEN=rewrite."""
    table = TABLES / f"{name}.json"
    text = json.dumps(found, sort_keys=True, indent=1, allow_nan=False) + "\n"
    if os.environ.get("GOLDEN") == "rewrite":
        table.write_text(text)
        return
    lines = list(differences(json.loads(table.read_text()), json.loads(text)))
    more = [f"and {len(lines) - 40} more"] if len(lines) > 40 else []
    if lines:
        told = "\n".join([f"{table.name} promises something else than the code says:", *lines[:40], *more])
        pytest.fail(told, pytrace=False)
    assert table.read_text() == text, f"{table.name} was edited by hand: GOLDEN=rewrite pytest tests/golden writes it"


@pytest.fixture(scope="session")
def simulated_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(2,), code15=(2,), ptbxl=(4,), cpsc2018=(2,), georgia=(2,), ludb=2)
    return write_mirror(tmp_path_factory.mktemp("golden") / "mirror", sizes=sizes).path


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory, simulated_mirror: Path) -> Recorder:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: None)  # some 900 small files, which nobody keeps
        return walk(tmp_path_factory.mktemp("walk"), simulated_mirror)


def test_steps_are_found_in_the_cache_of_before(walked: Recorder) -> None:
    check("steps", walked.asked)


def test_tasks_are_what_they_were() -> None:
    check("tasks", tasks())


def test_graph_keeps_its_keys_and_settings() -> None:
    check("graph", graph())


def test_commands_keep_their_options() -> None:
    check("commands", commands())


def test_json_of_commands_keeps_its_keys(
    tmp_path: Path, simulated_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check("json_keys", json_keys(tmp_path, simulated_mirror, monkeypatch))


def test_fields_columns_and_lists_keep_their_names() -> None:
    check("stored", stored())


def test_variables_programs_and_their_options_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    check("surroundings", surroundings(capsys))


def test_seeds_and_salts_give_what_they_gave(walked: Recorder) -> None:
    check("draws", draws(walked))


def test_products_hold_the_same_keys(walked: Recorder) -> None:
    check("products", written(walked))


def test_training_leaves_the_same_files_and_names(walked: Recorder, tmp_path: Path) -> None:
    check("training", trained(walked, tmp_path))


def test_mlflow_is_told_the_same_names(walked: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check("mlflow", told_to_mlflow(walked, tmp_path, monkeypatch))
