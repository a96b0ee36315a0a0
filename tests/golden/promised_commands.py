"""The command `ecg` as scripts call it: commands, options, and the keys of what `--json` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli import main


def commands() -> dict[str, Any]:
    """Every command with its parameters; commands may be loaded late, so the group is asked for each."""
    # With main's settings: click keeps a command's first help option, so that other tests' calls must give the same.
    context = click.Context(main, info_name="ecg", **main.context_settings)
    found: dict[str, Any] = {"": [_parameter(one) for one in main.get_params(context)]}
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        found[name] = parameters_of(command, context)
    return found


def parameters_of(command: click.Command, parent: click.Context | None = None) -> list[dict[str, Any]]:
    """A command's parameters in their order."""
    return [_parameter(one) for one in command.get_params(click.Context(command, parent=parent))]


def _parameter(parameter: click.Parameter) -> dict[str, Any]:
    kind = parameter.type
    told: dict[str, Any] = {
        "name": parameter.name,
        "kind": parameter.param_type_name,
        "opts": [*parameter.opts, *parameter.secondary_opts],
        "type": kind.name,
        "required": parameter.required,
        "nargs": parameter.nargs,
        "multiple": parameter.multiple,
        "default": None if callable(parameter.default) else repr(parameter.to_info_dict()["default"]),
        "envvar": parameter.envvar,
        "metavar": parameter.metavar,
    }
    if isinstance(kind, click.Choice):
        told["choices"] = list(map(str, kind.choices))
    if isinstance(kind, click.IntRange | click.FloatRange):
        told |= {"min": kind.min, "max": kind.max}
    if isinstance(parameter, click.Option):
        told |= {"flag": parameter.is_flag, "prompt": parameter.prompt}
    return told


def json_keys(folder: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the keys of each command's `--json` are, on a small home with a partition of Chapman and a drop."""
    monkeypatch.setenv("ECG_HOME", str(folder / "home"))
    for name in ("ECG_MIRROR", "ECG_INCOMING", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    drop = folder / "incoming" / "ward-7"
    drop.mkdir(parents=True)
    np.savez(drop / "ecgs.npz", signals=np.zeros((2, 12, 5000), np.float32))
    (drop / "_COMPLETE").touch()
    _ecg("mirror", str(mirror))
    _ecg("download", "chapman")
    left = next(one for one in (folder / "home").iterdir() if (one / "raw").is_dir())
    lost = left / "raw" / "chapman" / "01" / ("0" * 24)  # an output that is not current
    lost.mkdir()
    (lost / "done.json").write_text(
        json.dumps({"digest": "0", "seconds": 0, "version": "1", "config": {}, "inputs": {}, "facts": {}})
    )
    header = sorted(mirror.glob("physionet.org/files/ecg-arrhythmia/*/WFDBRecords/01/010/*.hea"))[0]
    return {
        " ".join(words): _shape(json.loads(_ecg(*words, *more, "--json", fails=fails)))
        for words, more, fails in (
            (("sources",), (), False),
            (("inspect",), (str(header),), False),
            (("verify",), (), False),
            (("upstream",), (), False),
            (("gc",), (), False),
            (("check-drop",), (str(drop),), True),
        )
    }


def _ecg(*words: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code != 0) == fails, result.output
    return result.stdout


def _shape(value: Any) -> Any:
    """The keys of a JSON value, and nothing of what they hold; of a list the first."""
    if isinstance(value, Mapping):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value and isinstance(value[0], Mapping) else []
    return None
