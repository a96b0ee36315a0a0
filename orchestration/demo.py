"""`make demo`: run all stages once, on the instance that `make ui` opens, and report each.

    python -m orchestration.demo [--mirror FOLDER|URL] [--recipe demo]

Every stage is an asset and runs as the UI would run it, partition by partition. Without a mirror, the demo uses
simulated ECGs in the sources' native layouts.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets.release import gate_verdict
from orchestration.instance import open_instance
from orchestration.jobs import TRAIN, harvest_job_name
from orchestration.run_here import run_here
from pipelines.corpus.config import TRAINING_FOLDS
from pipelines.corpus.step import WITHOUT_LABELS, only_ptbxl
from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.download.mirror import Mirror, absent, list_source
from pipelines.download.unread import unread_records
from pipelines.formatting import escape_output, format_name, format_text
from pipelines.home import HOSTS, Home
from pipelines.pretrain.recipes import RECIPES
from pipelines.simulate import ensure_mirror
from pipelines.sources import SOURCES

console = Console(highlight=False, soft_wrap=True)

GATE = gate_verdict.key
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class StageFailed(Exception):
    """A step or a blocking check failed; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """An asset that ran."""

    name: str
    metadata: Mapping[str, Any]  # as plain values
    warnings: tuple[str, ...]  # descriptions of the checks that did not pass

    @property
    def status(self) -> str:
        return "cached" if self.metadata["cached"] else "done"


def run(
    job: str, instance: dg.DagsterInstance, *, partition: str | None = None, config: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Run a job in this process on the persistent instance, and return what it materialized.

    Raises StageFailed if a step or a blocking check failed. A challenger that the gate refuses ends the run, but it is
    an outcome and not a failure.
    """
    result = run_here(job, instance, partition=partition, config={**QUIET, **(config or {})})
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    refused = any(check.asset_key == GATE for check in failed)
    for check in failed:
        if check.asset_key != GATE and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
            name = check.asset_key.to_user_string()
            raise StageFailed(f"{name}: check {check.check_name} failed: {check.description}")
    for event in result.all_events:
        if event.is_step_failure and not (refused and event.step_key == GATE.to_python_identifier()):
            raise StageFailed(f"{event.step_key}: {_reason(event.step_failure_data)}")
    if not result.success and not refused:
        raise StageFailed(f"{job}: run {result.run_id} did not succeed; look at it with `make ui`")
    materializations = [event.materialization for event in result.get_asset_materialization_events()]
    return [
        Outcome(
            name=made.asset_key.to_user_string(),
            metadata={name: value.value for name, value in made.metadata.items()},
            warnings=tuple(check.description or "" for check in failed if check.asset_key == made.asset_key),
        )
        for made in materializations
    ]


def harvest(home: Home, instance: dg.DagsterInstance) -> None:
    """Download and harmonize every partition that the mirror has, source by source."""
    mirror = Mirror.parse(home.mirror)
    for source in SOURCES.values():
        partitions = source.available(list_source(source, mirror, raw_root=home.raw_root))
        if not partitions:
            console.print(f"  {source.name:24} {escape(format_name(absent(source, mirror)))}")
            continue
        outcomes: list[Outcome] = []
        with console.status(source.name) as status:
            for number, partition in enumerate(partitions, 1):
                status.update(f"{source.name}: partition {partition} ({number} of {len(partitions)})")
                outcomes += run(harvest_job_name(source.name), instance, partition=partition)
        for kind in ("raw", "ecgs"):
            part = [outcome for outcome in outcomes if outcome.name.startswith(f"{kind}/")]
            cached = sum(outcome.status == "cached" for outcome in part)
            status_text = "cached" if cached == len(part) else f"{len(part) - cached} done, {cached} cached"
            console.print(f"  {f'{kind}/{source.name}':24} {status_text:20} {_counts(part)}")
    for place, count in unread_records(mirror.folder).items() if mirror.folder is not None else ():
        console.print(f"  {'no source reads':24} {escape(format_name(place))}: {count:,} records")


def _counts(outcomes: Sequence[Outcome]) -> str:
    """Sum up partitions, as `3 partitions, 900 entered, 890 kept`."""
    words = [f"{len(outcomes)} partition{'s' if len(outcomes) != 1 else ''}"]
    for name, word in (("files", "files"), ("entered", "entered"), ("dagster/row_count", "kept")):
        if outcomes and name in outcomes[0].metadata:
            words.append(f"{sum(outcome.metadata[name] for outcome in outcomes):,} {word}")
    return ", ".join(words)


def train(home: Home, instance: dg.DagsterInstance, recipe: str) -> dict[str, Outcome]:
    """Run corpus, pretraining, probes, report, release and gate; return their outcomes by name."""
    settings: dict[str, Any] = {"encoder": {"config": {"recipe": recipe}}}
    if only_ptbxl(home.workspace()):
        console.print(f"  {WITHOUT_LABELS}")
        settings["corpus"] = {"config": {"unlabelled_folds": list(TRAINING_FOLDS)}}
    with console.status("corpus, pretraining, probes, release"):
        outcomes = run(TRAIN, instance, config={"ops": settings})
    for outcome in outcomes:
        console.print(f"  {outcome.name:24} {outcome.status:20} {_main_figure(outcome)}")
        for warning in outcome.warnings:
            console.print(f"  {'':24} [yellow]warning[/]: {escape(warning)}")
    return {outcome.name: outcome for outcome in outcomes}


def _main_figure(outcome: Outcome) -> str:
    """Return the most telling figure of an asset, as text; empty if it has none."""
    metadata = outcome.metadata
    for name, form in (
        ("verdict", "{}"),
        ("version", "version {}"),
        ("not scored", "not scored: {}"),
        ("test macro AUC, pretrained", "test macro AUC {:.3f}"),
        ("loss", "loss {:.4f}"),
        ("dagster/row_count", "{:,} ECGs"),
    ):
        if name in metadata:
            return escape(form.format(metadata[name]))
    return ""


def print_summary(home: Home, outcomes: Mapping[str, Outcome]) -> None:
    """Print the last lines: the version, its scores beside the random encoder's, and what to do next."""
    released = outcomes["released_encoder"].metadata
    table = Table(title="Macro AUC on the test split of linear probes (95 % interval)", title_justify="left")
    for column in ("task", "labels scored", "pretrained encoder", "random encoder"):
        table.add_column(column)
    for name, outcome in outcomes.items():
        if name.startswith("probe/"):
            table.add_row(name.removeprefix("probe/"), *_scores(outcome.metadata))
    console.print()
    console.print(table)
    alias = "champion" if "champion" in outcomes else "challenger"
    console.print(f"Released: [bold]ecg-encoder version {released['version']}[/] ({alias})")
    console.print(f"\nRead it:      {escape(outcomes['evaluation_report'].metadata['page'])}")
    console.print("Look at it:   make ui")
    console.print(f"Pull it:      {escape(pull_command(home, alias))}")
    console.print("Your ECGs:    docs/from-your-cart.md; a classifier of your labels: ecg train-classifier")


def pull_command(home: Home, alias: str) -> str:
    """Return the line for a shell that pulls the encoder and prints the embedding of an ECG, here of noise."""
    code = (
        "import mlflow, numpy; "
        f"encoder = mlflow.pyfunc.load_model('models:/ecg-encoder@{alias}'); "
        "ecg = numpy.random.default_rng(0).normal(0, 0.2, (1, 12, 5000)); "
        "print(encoder.predict(ecg, params={'sampling_rate': 500.0}).round(2))"
    )
    return f'MLFLOW_TRACKING_URI={quote(home.tracking_uri)} {quote(sys.executable)} -c "{code}"'


def _why_so_long(outcomes: Mapping[str, Outcome]) -> str:
    """Say what a run did whose training was in the cache; nothing if something was trained."""
    if any(outcome.status != "cached" for outcome in outcomes.values() if outcome.name in ("corpus", "encoder")):
        return ""
    return (
        " The training was in the cache: the time went into Dagster's record of each run, into loading Python "
        "packages, and into looking at the files."
    )


def _scores(metadata: Mapping[str, Any]) -> list[str]:
    if "not scored" in metadata:
        return ["none", "not scored", "not scored"]
    names = ("pretrained", "random")
    scores = [f"{metadata[f'test macro AUC, {name}']:.3f} ({metadata[f'test interval, {name}']})" for name in names]
    return [metadata["labels scored"], *scores]


def _reason(failure: Any) -> str:
    """Return why a step failed: a Failure's description, or else the innermost error's message."""
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error
    while error.cause is not None:
        error = error.cause
    return error.message.strip()


@click.command(help="Run all stages once and report each; a finished stage is not done again.")
@click.option("--mirror", metavar="FOLDER|URL", help="Real data in the hosts' layout; without it, simulated ECGs.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="demo", show_default=True, help="How to pretrain.")
def main(mirror: str | None, recipe: str) -> None:
    os.umask(0o077)  # what is written is its owner's alone
    escape_output()
    began = time.monotonic()
    # Dagster warns about a function that its own Pipes client calls.
    warnings.filterwarnings("ignore", message="Function `PipesMessageReader.expected_writer_count`")
    try:
        home = Home.default()
        with full_disk_explained(home.root):
            instance = open_instance(home)
            if mirror is None:
                with console.status("writing a mirror of simulated ECGs"):
                    ensure_mirror(home.simulated_mirror)
            home.set_mirror(mirror or str(home.simulated_mirror))
            os.environ["ECG_MIRROR"] = home.mirror or HOSTS  # for all steps, whatever `ecg mirror` sets meanwhile
            home = Home.default()
            console.print(f"Data home {escape(str(home.root))}, ECGs from {escape(str(home.mirror))}\n")
            harvest(home, instance)
            outcomes = train(home, instance, recipe)
    except (StageFailed, ValueError, DiskFull) as error:
        console.print(f"\n[bold red]failed[/]: {escape(format_text(str(error)))}")
        sys.exit(1)
    print_summary(home, outcomes)
    seconds = time.monotonic() - began
    console.print(f"Took {seconds:.0f} s.{_why_so_long(outcomes)}")


if __name__ == "__main__":
    main()
