"""`ecg` as a whole: its help, what it imports, a closed pipe."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from pipelines.cli import main
from tests.support.commands import ECG, ecg, run

pytestmark = pytest.mark.usefixtures("home")


def test_help_names_every_command_and_its_examples() -> None:
    result = run("--help")
    assert result.returncode == 0
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)
        text = ecg(name, "--help").output
        assert f"  ecg {name}" in text
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, click; from pipelines.cli import main; context = click.Context(main)\n"
        "commands = [main.get_command(context, name) for name in main.list_commands(context)]\n"
        "print(sorted({'numpy', 'torch', 'mlflow', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_closed_pipe_ends_in_silence() -> None:
    with subprocess.Popen(
        [str(ECG), "sources", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
