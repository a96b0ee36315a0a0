"""`ecg`: the commands for people who are not in the UI. Results go to stdout, progress and errors to stderr.

    console.py     tables and progress bars
    ecg_files.py   ECG files that lie outside any partition
    store.py       the data home's MLflow store
    source_state.py, source_details.py
                   what a home has of all sources, and of one in full
    road.py        the steps of `ecg run`; partitions.py: which; changes.py: its --set; launch.py: trainings, and stops
    <command>.py   one command each, as `command`

A command's file is imported when the command is asked for, and imports what it needs inside its functions. So `ecg
--help` and the help of each command answer at once, without torch or pyarrow.

Exit codes: 0 done; 1 refused, for a reason that is printed in one line; 2 the command was not understood. `ecg run` has
others, too.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from pipelines.formatting import escape_output, format_text

COMMANDS = {
    "run": "Do STEPs of the pipeline, from raw files to a model.",
    "sources": "List the data sets and what is here, or all about NAME.",
    "inspect": "Show what is read from ECG files, and if it is kept.",
    "embed": "Embed ECG files or a drop with a released encoder.",
    "request": "Write ECG files as a request to a served model.",
    "serve": "Serve a released model over HTTP.",
    "simulate": "Write a mirror of all sources with simulated ECGs.",
    "mirror": "Show where ECGs come from, or set it.",
    "download": "Download a SOURCE and verify its files.",
    "verify": "Hash downloads or products again; list the damaged.",
    "export": "Write harmonized ECGs as NumPy or WFDB files.",
    "check-drop": "Check a drop of own ECGs; nothing is written.",
    "withdraw-drop": "Remove a drop from the data home.",
    "add-encoder": "Take up a training of the shell as the encoder.",
    "import-reference": "Import a released encoder: ECG-JEPA or ECG-CPC.",
    "compare": "Compare two encoders on the same ECGs and splits.",
    "evaluate-labels": "Probe an encoder on labels of your own.",
    "train-classifier": "Train, judge and register a classifier of your labels.",
    "upstream": "Ask the hosts whether their files have changed.",
    "gc": "List, or remove, outputs that are no longer needed.",
    "evaluate": "Evaluate the encoder by NAME, or list what there is.",
    "scale": "Draw how the score grows with the ECGs of pretraining.",
    "models": "List the released versions, scores and verdicts.",
    "promote": "Make a challenger champion by hand, with a reason.",
    "rollback": "Make the previous champion, or VERSION, champion again.",
}
"""The commands with their lines in `ecg --help`. The file of `check-drop` is check_drop.py."""


class LazyCommands(click.Group):
    """Commands that are imported when they are asked for.

    A user's mistake (ValueError) and a fault of a file (OSError) are one line and exit code 1, not a traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"pipelines.cli.{cmd_name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        escape_output()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        from pipelines.disk_space import full_disk_explained
        from pipelines.home import Home

        try:
            with full_disk_explained(Home.default().root):
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # `ecg sources | head`: click ends without a message
        except (ValueError, OSError) as error:
            raise click.ClickException(format_text(str(error))) from error


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecg-foundry", prog_name="ecg")
@click.pass_context
def main(context: click.Context) -> None:
    """ECG Foundry: from raw 12-lead ECGs to a released model of your own.

    The data home is ECG_HOME, or ./var. `make demo` fills it and `make ui` shows it.
    """
    before = os.umask(0o077)  # what a command writes is its owner's alone
    context.call_on_close(lambda: os.umask(before))
