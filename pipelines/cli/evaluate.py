"""`ecg evaluate`: evaluations by name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.encoders.names import EncoderNames
    from pipelines.evaluate.features import OnProgress
    from pipelines.evaluate.suite.names import Evaluation
    from pipelines.home import Home

OnEvaluation = Callable[[int, int, str], None]
"""Called with the ECGs of a shard that are embedded, the ECGs of that shard, and the evaluation's name."""
Tables = Iterator[tuple[str, list[dict[str, Any]]]]
"""Tables, each a title and rows with equal keys."""


@click.command("evaluate")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option(
    "--encoder",
    type=click.Choice(["pretrained", "reference"]),
    default="pretrained",
    show_default=True,
    help="The data home's own encoder, or the imported one.",
)
def command(names: tuple[str, ...], encoder: str) -> None:
    """Evaluate the encoder by NAME, beside the random encoder and handcrafted features; without a NAME, list them.

    A name is a task, with variants after it, or a kind of waves and a source. `dense/` before a task compares the
    encoder with one that has dense attention, which is pretrained first if there is none. Results are stored, and found
    again by the same command.

    \b
    ecg evaluate
    ecg evaluate segmentation/ludb regression/ptbxl
    ecg evaluate ptbxl_superclass ptbxl_superclass__attention_pool
    ecg evaluate cpsc2018__multi_class__nearest_mean ptbxl_all__labels_25
    """
    from pipelines.cli.console import counting, print_table, stdout
    from pipelines.evaluate.exposure import SEEN
    from pipelines.home import Home

    home = Home.default()
    if not names:
        print_table(("evaluation", "what it is", "its ECGs"), evaluation_rows(home))
        return
    with counting("evaluating") as on_count:
        for title, rows in evaluate(home, names, encoder, on_count):
            print_table(rows[0], (row.values() for row in rows), title=title)
    stdout().print(f"seen: {SEEN}")


def evaluation_rows(home: Home) -> list[tuple[str, str, str]]:
    """Return a row per evaluation that is kept up to date: name, title, and whether its ECGs are here."""
    from pipelines.evaluate.suite.names import AGAINST_DENSE, DENSE, SUITE, evaluation
    from pipelines.evaluate.waves.run import KINDS, WAVE_EVALUATIONS
    from pipelines.harmonize.shards import shards_of
    from pipelines.tasks.catalogue import TASKS

    workspace = home.workspace()
    tasks = [*TASKS.values(), *(variant.task for variant in SUITE.values())]
    rows = [(task.name, task.title, task.source) for task in tasks]
    for name in AGAINST_DENSE:
        task = evaluation(name).task
        rows.append((f"{DENSE}/{name}", f"{task.title}, CroPA against dense attention", task.source))
    for name in WAVE_EVALUATIONS:
        kind, source = name.split("/")
        rows.append((name, f"{source}: {KINDS[kind]}", source))
    here = {source: bool(shards_of(workspace, source)) for source in {source for _, _, source in rows}}
    return [(name, title, "here" if here[source] else f"no {source}") for name, title, source in rows]


def evaluate(home: Home, names: Sequence[str], encoder: str, on_evaluation: OnEvaluation) -> Tables:
    """Yield the tables of each evaluation: the encoder's row first, then those of its baselines.

    If an evaluation could not be scored, its table is one row with the reason.
    Raises ValueError for an unknown name, before any is evaluated, and for one whose ECGs are not here.
    """
    from pipelines.encoders.names import OURS, REFERENCE
    from pipelines.evaluate.probes.step import ProbeFacts
    from pipelines.evaluate.suite.names import DENSE
    from pipelines.evaluate.suite.run import evaluate_encoder
    from pipelines.harmonize.shards import shards_of

    workspace = home.workspace()
    encoder_names = {names.probe: names for names in (OURS, REFERENCE)}[encoder]
    requested = [_by_name(name, encoder_names) for name in names]
    for name, item in zip(names, requested, strict=True):
        source = item[1] if isinstance(item, tuple) else item.task.source
        if not shards_of(workspace, source):
            raise ValueError(f"{name}: no ECGs of {source} in {workspace.root}: harmonize them first")
    for name, item in zip(names, requested, strict=True):

        def progress(done: int, total: int, title: str = name) -> None:
            on_evaluation(done, total, title)

        if isinstance(item, tuple):
            yield from _waves(home, *item, encoder_names, progress)
            continue
        if name.startswith(f"{DENSE}/"):
            yield name, _against_dense(home, item, progress)
            continue
        rows = evaluate_encoder(workspace, item, encoder_names=encoder_names, progress=progress)
        reason, drawn = ProbeFacts.of(rows[0].product).reason, rows[0].drawn
        if reason is not None:
            yield name, [{"not scored": reason}]
        else:
            yield f"{name}, intervals by {drawn}", [row.row() for row in rows]


def _by_name(name: str, encoder_names: EncoderNames) -> Evaluation | tuple[str, str]:
    """Return the evaluation of that name, or for a wave evaluation its kind and source."""
    from pipelines.encoders.names import OURS
    from pipelines.evaluate.suite.names import DENSE, evaluation

    kind, _, rest = name.partition("/")
    if kind != DENSE:
        return _wave_evaluation(name) if "/" in name else evaluation(name)
    if encoder_names != OURS:
        raise ValueError(
            f"{name}: dense attention is compared with the encoder that was pretrained here, not "
            f"{encoder_names.probe!r}"
        )
    return evaluation(rest)


def _against_dense(home: Home, variant: Evaluation, progress: OnProgress) -> list[dict[str, Any]]:
    """Compare with dense attention. The dense encoder is pretrained first if there is none, which takes as long as ours
    took or longer."""
    from pipelines.evaluate.suite.attention_ablation import DenseFacts, against_dense, materialize_dense

    workspace = home.workspace()
    dense = materialize_dense(workspace, run_pretraining, track=home.tracking_uri, artifact_root=home.artifact_root)
    ablation = against_dense(workspace, variant, dense, progress=progress)
    reason = DenseFacts.of(ablation.product).reason
    return [{"not scored": reason}] if reason else [row.row() for row in ablation.rows]


def run_pretraining(command: list[str]) -> None:
    """Run a pretraining to its end; its messages go to stderr. Raises ValueError if it fails."""
    from pipelines.pretrain.step import tied

    with subprocess.Popen(tied(command), stdout=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupts it, too: it writes a checkpoint first
            raise
    if code:
        raise ValueError(f"pretraining ended with exit code {code}; the same command resumes from its last checkpoint")


def _wave_evaluation(name: str) -> tuple[str, str]:
    """Return the kind and the source of a wave evaluation, such as `segmentation/ludb`."""
    from pipelines.evaluate.waves.run import KINDS
    from pipelines.sources import SOURCES

    kind, _, source = name.partition("/")
    if kind not in KINDS or source not in SOURCES:
        raise ValueError(f"evaluation {name!r}: use {' or '.join(KINDS)}, a slash, and one of {', '.join(SOURCES)}")
    return kind, source


def _waves(home: Home, kind: str, source: str, encoder_names: EncoderNames, progress: OnProgress) -> Tables:
    """Yield the tables of a wave evaluation, whose kind is `segmentation` or `regression`."""
    from pipelines.evaluate.exposure import Overlaps
    from pipelines.evaluate.waves import tables
    from pipelines.evaluate.waves.run import overlap_of_waves, regress_encoder, segment_encoder

    overlaps = Overlaps(home.workspace())
    if kind == "regression":
        regressed = regress_encoder(home, source, encoder_names=encoder_names, progress=progress)
        seen = f"{regressed.task.title}; seen: {overlap_of_waves(overlaps, regressed.ours).in_words()}"
        yield f"mean absolute errors, {seen}", tables.error_rows(regressed.ours, regressed.random_baseline)
        return
    segmented = segment_encoder(home, source, encoder_names=encoder_names, progress=progress)
    if segmented.reason is not None:
        yield f"segmentation, {segmented.task.title}", [{"not scored": segmented.reason}]
        return
    seen = f"{segmented.task.title}; seen: {overlap_of_waves(overlaps, segmented.best).in_words()}"
    yield f"overlap, {seen}", tables.overlap_rows(segmented.products)
    yield "boundaries, fine-tuned, predicted minus annotated", tables.boundary_rows(segmented.best)
    yield "read off the predicted waves", tables.read_off_rows(segmented.best)
