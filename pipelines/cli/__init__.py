"""`ecg`: the commands for people who are not in the UI. Results go to stdout, progress and errors to stderr.

    console.py     tables and progress bars
    ecg_files.py   ECG files that lie outside any partition
    store.py       the data home's MLflow store
    <command>.py   one command each, as `command`

A command's file is imported when the command is asked for, and imports what it needs inside its functions. So `ecg
--help` and the help of each command answer at once, without torch or pyarrow.

Exit codes: 0 done; 1 refused, for a reason that is printed in one line; 2 the command was not understood.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "sources": "List the data sets, and what of them is in the data home.",
    "inspect": "Show what is read from an ECG FILE, and whether harmonization keeps it.",
    "embed": "Embed ECG FILEs with a released encoder: one row per record.",
    "simulate": "Write a mirror of all sources into DIR, filled with simulated ECGs.",
    "mirror": "Show where ECGs come from, or set it.",
    "download": "Download a SOURCE, or some of its PARTITIONs, and verify the files.",
    "verify": "Hash all downloaded files again, and list what is missing or damaged.",
    "export": "Write harmonized ECGs into the new folder OUT, to the microvolt.",
    "check-drop": "Check DIR, a drop of own ECGs: what would be read, what dropped, and why.",
    "withdraw-drop": "Remove the drop NAME from the data home: the copy and what came from it.",
    "import-reference": "Import the author's released encoder from FILE, the published .pth.",
    "compare": "Compare two encoders on the same ECGs and splits.",
    "evaluate-labels": "Probe an encoder on labels of your own, given as a CSV.",
    "upstream": "Ask the hosts whether they still have what was downloaded.",
    "gc": "List the outputs that are no longer needed; with --delete, remove them.",
    "evaluate": "Evaluate the encoder by NAME, beside baselines; without a NAME, list them.",
    "models": "List the released versions, their scores, verdicts and times as champion.",
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # `ecg sources | head`: click ends without a message
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecg-foundry", prog_name="ecg")
def main() -> None:
    """ECG Foundry: from raw 12-lead ECGs to a pretrained encoder.

    The data home is ECG_HOME, or ./var. `make demo` fills it and `make ui` shows it.
    """
