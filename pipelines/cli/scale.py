"""`ecg scale`: scaling curves by recipes, shares and seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cache import Workspace
    from pipelines.evaluate.scaling.config import ScalingConfig
    from pipelines.evaluate.scaling.plan import Plan
    from pipelines.home import Home


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "NUMBERS"

    def __init__(self, read: Callable[[str], float]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._read(item.strip()) for item in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: write numbers with commas between them", param, ctx)


def _share(text: str) -> float:
    """Read `10%` and `0.1` as 0.1."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


@click.command("scale")
@click.option(
    "--recipe",
    "recipes",
    metavar="NAME[:FIELD=VALUE,...]",
    multiple=True,
    help="A curve: demo, small, or any other recipe, with changes after a colon, such as "
    "small:name=narrow,jepa.encoder.dim=96,jepa.encoder.heads=3; may be given several times.  [default: demo]",
)
@click.option(
    "--shares",
    type=_Numbers(_share),
    default="1%,3%,10%,30%,100%",
    show_default=True,
    help="Shares of the corpus's training patients, such as 10% or 0.1; each lies inside the next.",
)
@click.option(
    "--seeds",
    type=_Numbers(int),
    default="0,1,2",
    show_default=True,
    help="Each share is trained once a seed, which draws its patients and the training's random numbers.",
)
@click.option(
    "--fixed",
    type=click.Choice(["epochs", "updates"]),
    default="epochs",
    show_default=True,
    help="What is the same for every share: passes over its ECGs, or updates.",
)
@click.option(
    "--evaluation",
    default="ptbxl_superclass",
    show_default=True,
    metavar="NAME",
    help="What encoders are judged by; `ecg evaluate` lists the names.",
)
@click.option(
    "--set",
    "changes",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Change a field of every recipe, such as epochs=5; may be given several times.",
)
@click.option("--device", default="auto", show_default=True, help="Where to train: auto, cpu, cuda or cuda:N.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what it costs, and train nothing.")
def command(
    recipes: tuple[str, ...],
    shares: tuple[float, ...],
    seeds: tuple[int, ...],
    fixed: Any,
    evaluation: str,
    changes: tuple[str, ...],
    device: str,
    dry_run: bool,
) -> None:
    """Draw how an encoder's score grows with the ECGs that it is pretrained on.

    Each recipe is trained on shares of the corpus's training patients, with several seeds; all are validated on the
    same ECGs and probed by the same evaluation, with few labels, too. A law C N^-a + L0 of 1 - AUC is fitted to each
    curve, with bootstrap intervals over test patients and seeds, and says what twice the ECGs would add; where the
    points do not determine it, the command says so.

    Each training is kept: if the command is stopped or killed, the same command goes on from there, and another one
    with more shares, seeds or recipes uses what is here. The data home's own encoder stays as it is. The curves are in
    the next report, too.

    Exit code: 0 done; 1 refused, for a reason that is printed; 2 the command was not understood; 128 + signal: stopped.

    \b
    ecg scale --dry-run
    ecg scale --recipe small --shares 3%,10%,30%,100% --seeds 0,1 --set epochs=5
    ecg scale --recipe small --recipe small:name=narrow,jepa.encoder.dim=96 --fixed updates
    ecg scale --evaluation ptbxl100_superclass__attention_pool
    """
    from pipelines.device import require_device_name
    from pipelines.evaluate.scaling.config import ScalingConfig
    from pipelines.evaluate.scaling.plan import planned
    from pipelines.home import Home

    home = Home.default()
    config = ScalingConfig(
        recipes=recipes or ScalingConfig.recipes,
        changes=changes,
        shares=shares,
        seeds=seeds,
        fixed=fixed,
        evaluation=evaluation,
    )
    require_device_name(device)
    if dry_run:
        _print_plan(home.workspace(), planned(home.workspace(), config))
        return
    _scale(home, config, device)


def _print_plan(workspace: Workspace, plan: Plan) -> None:
    from pipelines.cli.console import print_table, stdout
    from pipelines.corpus.subset import percent
    from pipelines.evaluate.scaling.cost import measured_speeds, run_flops, seconds_of
    from pipelines.evaluate.scaling.step import trained_before
    from pipelines.formatting import format_duration

    speeds = measured_speeds(workspace)
    rows, flops, seconds = [], 0.0, 0.0
    for run in plan.runs:
        here, lasts = trained_before(workspace, plan, run), seconds_of(run, speeds)
        if not here:
            flops += run_flops(run)
            seconds += lasts or 0.0
        rows.append(
            (
                run.curve,
                f"{percent(run.subset.share)} %",
                run.subset.seed,
                f"{run.subset.records:,}",
                f"{run.subset.patients:,}",
                f"{run.steps:,}",
                f"{run_flops(run):.2g}",
                "here already" if here else "not known" if lasts is None else format_duration(lasts),
            )
        )
    print_table(("recipe", "share", "seed", "ECGs", "patients", "updates", "FLOP", "time"), rows)
    left = sum(row[-1] != "here already" for row in rows)
    lasting = (
        f"about {format_duration(seconds)} at the best speed of the trainings that ended here"
        if speeds
        else "time not known: no training has ended here yet (`ecg run pretrain --recipe demo` measures one)"
    )
    stdout().print(f"\n{left} of {len(rows)} trainings to do: {flops:.2g} FLOP, {lasting}; probes come on top.")


def _scale(home: Home, config: ScalingConfig, device: str) -> None:
    from pipelines.cli.console import counting, print_table, stdout
    from pipelines.cli.launch import run_fine_tuning, run_pretraining, signals_told
    from pipelines.evaluate.scaling.facts import ScalingFacts
    from pipelines.evaluate.scaling.step import PICTURE_FILE, materialize_scaling
    from pipelines.formatting import format_name

    with signals_told(), counting("probing", transient=True) as count:

        def told(done: int, total: int, run: str) -> None:
            count.hide()
            click.echo(f"{done} of {total} trainings are done; next: {run}", err=True)

        def launch(command: list[str]) -> None:
            count.hide()
            run_pretraining(command)

        def fine_tuning(command: list[str]) -> None:
            count.hide()
            run_fine_tuning(command)

        product = materialize_scaling(
            home.workspace(),
            config,
            launch,
            told=told,
            progress=count,
            fine_tuning=fine_tuning,
            device=device,
            track=home.tracking_uri,
            artifact_root=home.artifact_root,
        )
    facts = ScalingFacts.of(product)
    rows = facts.rows()
    print_table(rows[0], (row.values() for row in rows), title=facts.headline())
    for sentence in facts.sentences():
        stdout().print(sentence)
    stdout().print(f"picture: {format_name(str(product.path / PICTURE_FILE))}")
