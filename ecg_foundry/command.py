"""The command `ecg`: that of the checkout, in which the pipeline is run; elsewhere it says so."""

from __future__ import annotations

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


def main() -> None:
    """Run the pipeline's command line."""
    if not (_CHECKOUT / "pyproject.toml").is_file():
        sys.exit(
            "ecg: the pipeline runs from its checkout, and this is the installed package, which opens harmonized ECGs "
            "(`from ecg_foundry import ecgs`) and runs encoders (`ecg_model`): git clone the project, `make install`, "
            "and use its .venv/bin/ecg"
        )
    from pipelines.cli import main as run  # of the checkout; an installed package has no such module

    run()
