"""`ecg evaluate`: evaluations by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cli.console import Count
    from pipelines.evaluate.features import EncoderSource, OnProgress
    from pipelines.evaluate.suite.names import Evaluation
    from pipelines.home import Home
    from pipelines.program import Launch

Tables = Iterator[tuple[str, list[dict[str, Any]]]]
"""Tables, each a title and rows with equal keys."""


@click.command("evaluate")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option(
    "--encoder",
    help="models:/NAME@ALIAS, models:/NAME/VERSION, `pretrained` (the data home's own), `reference` or `reference-cpc` "
    "(the imported ones) or an encoder.safetensors.  [default: the champion of ecg-encoder; without one, `pretrained`]",
)
def command(names: tuple[str, ...], encoder: str | None) -> None:
    """Evaluate an encoder by NAME, beside the random encoder and handcrafted features; without a NAME, list them.

    The first line names the encoder that is judged: the champion, unless you name another. A NAME is a task, with
    variants after it, or a kind of waves and a source. `dense/` before a task compares the data home's own encoder with
    one that has dense attention, which is pretrained first if there is none. Results are stored, and found again by the
    same command.

    \b
    ecg evaluate
    ecg evaluate segmentation/ludb regression/ptbxl
    ecg evaluate ptbxl_superclass --encoder models:/ecg-encoder/2
    ecg evaluate ptbxl_superclass ptbxl_superclass__attention_pool
    ecg evaluate cpsc2018__multi_class__nearest_mean ptbxl_all__labels_25
    """
    from pipelines.cli.console import counting, print_table, stdout
    from pipelines.evaluate.exposure import SEEN
    from pipelines.formatting import format_text
    from pipelines.home import Home

    home = Home.default()
    if not names:
        print_table(("evaluation", "what it is", "its ECGs"), evaluation_rows(home))
        return
    requested = requested_by(home, names, encoder)
    with judged_encoder(home, encoder) as judged, counting("evaluating") as on_count:
        stdout().print(format_text(judged.in_words))
        for title, rows in evaluate(home, requested, judged, on_count):
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


@dataclass(frozen=True, kw_only=True)
class JudgedEncoder:
    """The encoder that is evaluated."""

    encoders: tuple[EncoderSource, EncoderSource]
    """It, and its random baseline."""
    name: str
    """As it was named, or as its default is."""
    in_words: str
    """Which encoder it is, for people."""


@contextmanager
def judged_encoder(home: Home, encoder: str | None) -> Iterator[JudgedEncoder]:
    """Yield an encoder by its name; without one the champion, and without a champion the data home's own.

    It can be loaded inside the block. Raises ValueError if there is no such encoder.
    """
    from pipelines.cli.store import store_if_made, store_of
    from pipelines.encoders.names import OURS
    from pipelines.release.aliases import find_alias
    from pipelines.release.resolve import RANDOM, named_encoders
    from pipelines.release.tags import CHAMPION

    why = ""
    if encoder is None:
        store = store_if_made(home)
        champion = None if store is None else find_alias(CHAMPION, tracking=store)
        encoder = OURS.probe if champion is None else f"models:/{OURS.model}@{CHAMPION}"
        why = f", since {OURS.model} has no champion" if champion is None else f", which is version {champion.version}"
    with named_encoders(encoder, RANDOM, home.workspace(), store_of(home)) as ((title, source), (_, random_baseline)):
        own = "the data home's own encoder" if source.name == OURS.probe else "not the data home's own encoder"
        words = f"encoder: {title}{why}; {own} (sha256 {source.digest[:12]})"
        yield JudgedEncoder(encoders=(source, random_baseline), name=encoder, in_words=words)


@dataclass(frozen=True, kw_only=True)
class Requested:
    """An evaluation that was asked for."""

    name: str
    """As it was asked for."""
    of: Evaluation | tuple[str, str]
    """For a wave evaluation, its kind and source."""
    dense: bool
    """Whether the encoder is compared with one of dense attention."""


def requested_by(home: Home, names: Sequence[str], encoder: str | None) -> list[Requested]:
    """Return the evaluations of these names.

    encoder: as the user named it, if they did.
    Raises ValueError for an unknown name, and for one whose ECGs are not here.
    """
    from pipelines.harmonize.shards import shards_of

    workspace = home.workspace()
    requested = [_by_name(name, encoder) for name in names]
    for one in requested:
        source = one.of[1] if isinstance(one.of, tuple) else one.of.task.source
        if not shards_of(workspace, source):
            raise ValueError(f"{one.name}: no ECGs of {source} in {workspace.root}: harmonize them first")
    return requested


def evaluate(home: Home, requested: Sequence[Requested], judged: JudgedEncoder, count: Count) -> Tables:
    """Yield the tables of each evaluation: the encoder's row first, then those of its baselines.

    If an evaluation could not be scored, its table is one row with the reason.
    """
    from pipelines.cli.launch import run_fine_tuning
    from pipelines.evaluate.probes.step import ProbeFacts
    from pipelines.evaluate.suite.run import evaluate_encoder

    for one in requested:

        def progress(done: int, total: int, title: str = one.name) -> None:
            count(done, total, title)

        if isinstance(one.of, tuple):
            yield from _waves(home, *one.of, judged, progress)
            continue
        if one.dense:
            yield f"{one.name}, of the data home's own encoder", _against_dense(home, one.of, progress, count)
            continue
        rows = evaluate_encoder(
            home.workspace(), one.of, encoders=judged.encoders, progress=progress, launch=_shown(run_fine_tuning, count)
        )
        reason, drawn = ProbeFacts.of(rows[0].product).reason, rows[0].drawn
        if reason is not None:
            yield one.name, [{"not scored": reason}]
        else:
            yield f"{one.name}, intervals by {drawn}", [row.row() for row in rows]


def _by_name(name: str, encoder: str | None) -> Requested:
    """Return the evaluation of that name. Raises ValueError if there is none."""
    from pipelines.encoders.names import OURS
    from pipelines.evaluate.suite.names import DENSE, evaluation

    kind, _, rest = name.partition("/")
    if kind != DENSE:
        return Requested(name=name, of=_wave_evaluation(name) if "/" in name else evaluation(name), dense=False)
    if encoder not in (None, OURS.probe):
        raise ValueError(
            f"{name}: dense attention is compared with the encoder that was pretrained here, not {encoder!r}"
        )
    return Requested(name=name, of=evaluation(rest), dense=True)


def _shown(run: Launch, count: Count) -> Launch:
    """Return a function that runs a program whose own progress is shown in place of the count's."""

    def shown(command: list[str]) -> None:
        count.hide()
        run(command)

    return shown


def _against_dense(home: Home, variant: Evaluation, progress: OnProgress, count: Count) -> list[dict[str, Any]]:
    """Compare with dense attention. The dense encoder is pretrained first if there is none, which takes as long as ours
    took or longer."""
    from pipelines.cli.launch import run_fine_tuning, run_pretraining
    from pipelines.evaluate.suite.attention_ablation import DenseFacts, against_dense, materialize_dense

    workspace = home.workspace()
    launch, about = _shown(run_pretraining, count), {"track": home.tracking_uri, "artifact_root": home.artifact_root}
    dense = materialize_dense(workspace, launch, **about)
    ablation = against_dense(workspace, variant, dense, progress=progress, launch=_shown(run_fine_tuning, count))
    reason = DenseFacts.of(ablation.product).reason
    return [{"not scored": reason}] if reason else [row.row() for row in ablation.rows]


def _wave_evaluation(name: str) -> tuple[str, str]:
    """Return the kind and the source of a wave evaluation, such as `segmentation/ludb`."""
    from pipelines.evaluate.waves.run import KINDS
    from pipelines.sources import SOURCES

    kind, _, source = name.partition("/")
    if kind not in KINDS or source not in SOURCES:
        raise ValueError(f"evaluation {name!r}: use {' or '.join(KINDS)}, a slash, and one of {', '.join(SOURCES)}")
    return kind, source


def _waves(home: Home, kind: str, source: str, judged: JudgedEncoder, progress: OnProgress) -> Tables:
    """Yield the tables of a wave evaluation, whose kind is `segmentation` or `regression`."""
    from pipelines.evaluate.exposure import Overlaps
    from pipelines.evaluate.waves import tables
    from pipelines.evaluate.waves.run import overlap_of_waves, regress_encoder, segment_encoder

    overlaps = Overlaps(home.workspace())
    if kind == "regression":
        regressed = regress_encoder(home, source, encoders=judged.encoders, progress=progress)
        seen = f"{regressed.task.title}; seen: {overlap_of_waves(overlaps, regressed.ours).in_words()}"
        yield f"mean absolute errors, {seen}", tables.error_rows(regressed.ours, regressed.random_baseline)
        return
    segmented = segment_encoder(home, source, encoders=judged.encoders, progress=progress)
    if segmented.reason is not None:
        yield f"segmentation, {segmented.task.title}", [{"not scored": segmented.reason}]
        return
    seen = f"{segmented.task.title}; seen: {overlap_of_waves(overlaps, segmented.best).in_words()}"
    yield f"overlap, {seen}", tables.overlap_rows(segmented.products)
    yield "boundaries, fine-tuned, predicted minus annotated", tables.boundary_rows(segmented.best)
    yield "read off the predicted waves", tables.read_off_rows(segmented.best)
