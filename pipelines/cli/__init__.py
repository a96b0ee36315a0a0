"""`ecg`: for people who are not in the UI. Results go to stdout, progress and complaints to stderr.

Exit codes: 0 done; 1 something was refused, and said so in one line; 2 the command was not understood.
"""

# What a command needs is imported inside it: `ecg --help` answers at once, without torch or pyarrow.
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from pipelines.cli.embedding import Embedded, Unreadable
    from pipelines.home import Home

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SIZES = {
    "small": {
        "chapman": (20,),
        "code15": (20,),
        "ptbxl": (40,),
        "cpsc2018": (9, 9),
        "georgia": (10,),
        "ludb": 5,
    },
    "demo": {},
}


class _Commands(click.Group):
    """A user's mistake (ValueError) and a fault of a file (OSError) are one line and exit code 1, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # `ecg sources | head`: click ends in silence
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecg-foundry", prog_name="ecg")
def main() -> None:
    """ECG Foundry: from raw 12-lead ECGs to a pretrained encoder.

    The data home is ECG_HOME, or ./var. `make demo` fills it and `make ui` shows it.
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with citations and partitions.")
def sources(as_json: bool) -> None:
    """List the data sets: what there is, and what of it is in the data home.

    \b
    ecg sources
    ecg sources --json | jq '.[] | {name, kept}'
    """
    from pipelines.cli.listing import sources_here
    from pipelines.home import Home

    home = Home.default()
    states = sources_here(home)
    if as_json:
        click.echo(json.dumps([state.to_dict() for state in states], indent=1))
        return
    from rich.table import Table

    table = Table("source", "data set", "role", "licence", "downloaded", "harmonized", "ECGs kept", box=None)
    for column in table.columns[4:]:
        column.justify = "right"
    for state in states:
        source, all_ = state.source, len(state.partitions)
        table.add_row(
            source.name,
            f"{source.title} {source.version}",
            source.role.value,
            state.licence,
            f"{len(state.downloaded)} of {all_}",
            f"{len(state.harmonized)} of {all_}",
            f"{state.kept:,} of {state.entered:,}" if state.harmonized else "-",
        )
    console = _console()
    console.print(table)
    console.print(f"\nPartitions and ECGs in {home.workspace().root}, from {_place(home)}.")
    if parts := [state.part for state in states if state.part is not None]:
        console.print("The mirror has a part of these; choose the partitions that it has:")
        for part in parts:
            console.print(f"  {part}", markup=False)


@main.command()
@click.argument("file", type=_FILE)
@click.option(
    "--record", "record_id", metavar="ID", help="Which record of a file that holds several (a CODE-15% part)."
)
@click.option(
    "--png", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw it on ECG paper into this file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def inspect(file: Path, record_id: str | None, png: Path | None, as_json: bool) -> None:
    """Say what is read from an ECG FILE, and whether harmonization keeps it.

    FILE is a WFDB record (its .hea, .mat or .dat) or a part of CODE-15% (.zip, with exams.csv beside it). Exit code 1
    where the record is refused; its reason is the last line.

    \b
    ecg inspect JS00001.hea
    ecg inspect 00001_hr.dat --png 00001.png
    ecg inspect exams_part0.zip --record 102780
    """
    from pipelines.cli.inspection import inspect_file

    found = inspect_file(file, record_id)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        for name, text in found.lines():
            click.echo(f"{name:<18}{text}")
    if png is not None and found.record is not None:
        from pipelines.cache import write_atomically
        from pipelines.plots.ecg_paper import ecg_paper

        record = found.record
        about = [f"{record.age:g} years" if record.age is not None else "", record.sex or "", ", ".join(record.labels)]
        caption = "   ".join(part for part in about if part)
        picture = ecg_paper(record.signal_LT, record.leads, record.rate, record.record_id, caption=caption)
        write_atomically(png, picture)
        click.echo(f"drawn in {png}", err=True)
    if found.refused is not None:
        sys.exit(1)


@main.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--model",
    default="models:/ecg-encoder@champion",
    show_default=True,
    help="An MLflow model URI; in the store of MLFLOW_TRACKING_URI, or the data home's own.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Table to write: OUT.parquet (embedding as a list) or OUT.csv (columns e0, e1, ...).",
)
def embed(files: tuple[Path, ...], model: str, output: Path) -> None:
    """Embed ECG FILEs with a released encoder: one row a record.

    A record that cannot be embedded is named on stderr and counted; the others are written, and the exit code is 1.

    \b
    ecg embed records/*.hea -o embeddings.parquet
    ecg embed exams_part0.zip --model models:/ecg-encoder/3 -o embeddings.csv
    """
    if output.suffix not in (".parquet", ".csv"):
        raise click.BadParameter("give a name that ends in .parquet or .csv", param_hint="--output")
    from pipelines.cli.embedding import Embedded, embed_files, write_embeddings

    encoder = _pull(model)
    embedded: list[Embedded] = []
    failed: list[Unreadable] = []
    with _progress() as progress:
        task = progress.add_task("embedding", total=len(files))
        done: set[str] = set()
        for item in embed_files(files, lambda r: encoder.embed(r.signal_LT, leads=r.leads, rate=r.rate)):
            if isinstance(item, Embedded):
                embedded.append(item)
            else:
                failed.append(item)
                progress.console.print(f"{item.file} {item.record_id}: {item.why}", markup=False, soft_wrap=True)
            done.add(item.file)
            progress.update(task, completed=len(done), description=f"{len(embedded)} embedded, {len(failed)} refused")
    if embedded:
        write_embeddings(output, embedded)
        click.echo(f"{len(embedded)} embeddings of {len(embedded[0].embedding_D)} numbers in {output}")
    if failed:
        kept = "" if embedded else "; nothing was written"
        raise click.ClickException(f"{len(failed)} records or files could not be embedded{kept}")


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The same seed and size give the same bytes.")
@click.option(
    "--size", type=click.Choice(tuple(_SIZES)), default="demo", show_default=True, help="How many ECGs are written."
)
def simulate(folder: Path, seed: int, size: str) -> None:
    """Write a mirror of all sources into DIR, in their native layouts, filled with simulated ECGs.

    \b
    ecg simulate /tmp/mirror --size small
    make demo MIRROR=/tmp/mirror
    """
    from pipelines.simulate import MirrorSizes, write_mirror

    with _progress() as progress:
        tasks: dict[str, Any] = {}

        def report(source: str, written: int, total: int) -> None:
            if source not in tasks:
                tasks[source] = progress.add_task(source, total=total)
            progress.update(tasks[source], completed=written)

        summary = write_mirror(folder, seed=seed, sizes=MirrorSizes(**_SIZES[size]), progress=report)
    told = ", ".join(f"{name} {count:,}" for name, count in summary.records.items())
    click.echo(
        f"{sum(summary.records.values()):,} simulated ECGs in {summary.path} ({summary.bytes / 1e6:.0f} MB): {told}"
    )


@main.command()
@click.argument("place", required=False)
def mirror(place: str | None) -> None:
    """Show where ECGs come from, or set it: PLACE is a folder, a base URL, or `hosts` for the true addresses.

    What is set here holds for the UI and for later commands. A folder holds physionet.org/ or zenodo.org/ as
    `wget -r` leaves them.

    \b
    ecg mirror
    ecg mirror /data/ecg-mirror
    ecg mirror hosts
    ecg mirror var/mirrors/simulated
    """
    from pipelines.home import Home

    home = Home.default()
    if place is not None:
        home.set_mirror(place)
    click.echo(f"ECGs come from {_place(home)}; products are in {home.workspace().root}")


@main.command()
@click.argument("source")
@click.argument("partitions", metavar="[PARTITION]...", nargs=-1)
@click.option(
    "--connections", default=16, show_default=True, type=click.IntRange(1, 64), help="Parallel connections to one host."
)
def download(source: str, partitions: tuple[str, ...], connections: int) -> None:
    """Download a SOURCE, or some of its PARTITIONs, verified; what is here already is not fetched again.

    It is what `raw/SOURCE` does in the UI, which finds it done. Raw files that were let go are brought back.

    \b
    ecg download ludb
    ecg download chapman 01 02 --connections 8
    """
    from pipelines.cli.downloading import shown, wanted
    from pipelines.download.step import download_to_home
    from pipelines.formatting import format_bytes
    from pipelines.home import Home

    home = Home.default()
    found, chosen = wanted(home, source, partitions)
    for partition in chosen:
        with shown(f"{source} {partition}") as progress:
            product = download_to_home(home, found, partition, connections=connections, progress=progress)
        facts, state = product.facts, "here already" if product.cached else "downloaded"
        click.echo(f"{source} {partition}: {facts['files']:,} files, {format_bytes(facts['bytes'])}, {state}")


@main.command()
@click.argument("source", required=False)
@click.option("--repair", is_flag=True, help="Fetch what is missing or damaged, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def verify(source: str | None, repair: bool, as_json: bool) -> None:
    """Hash all downloaded files again, or those of one SOURCE, and name what is missing or damaged.

    Own ECGs are the SOURCE `incoming`: our copies of the drops are hashed, and --repair copies from the drop again.

    Exit code 1 where something is. The UI then fetches those files when raw/SOURCE is materialized, as --repair does
    at once. Files of a folder mirror are yours: they are named, and left as they are.

    \b
    ecg verify
    ecg verify chapman --repair
    ecg verify --json | jq '.[] | select(.sound | not)'
    """
    from pipelines.formatting import format_bytes
    from pipelines.home import Home
    from pipelines.maintenance.verify import faults_in_words, remedies
    from pipelines.maintenance.verify import verify as verify_files

    home = Home.default()
    with _progress() as progress:
        task = progress.add_task("hashing", total=None)
        found = verify_files(home, source, lambda done, total: progress.update(task, completed=done, total=total))
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found], indent=1))
    else:
        for one in found:
            state = "sound" if one.sound else f"{len(one.missing)} missing, {len(one.damaged)} damaged"
            told = f"{one.files:,} files, {format_bytes(one.bytes)}, {state}"
            click.echo(f"{one.source.name} {one.partition}: {'let go after harmonization' if one.let_go else told}")
            for kind in ("missing", "damaged"):
                for path in getattr(one, kind):
                    click.echo(f"  {kind} {path}")
    faulty = [one for one in found if not one.sound]
    if not faulty:
        return
    if not repair:
        raise click.ClickException(f"{faults_in_words(found)}: {remedies(faulty)}")
    from pipelines.cli.downloading import shown
    from pipelines.maintenance.verify import repair as repair_files

    for one in faulty:
        with shown(f"{one.source.name} {one.partition}") as on_progress:
            repair_files(home, one, on_progress)
    click.echo(f"{faults_in_words(found)}; they were fetched again", err=True)


@main.command()
@click.argument("selection")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(("numpy", "wfdb")),
    default="numpy",
    show_default=True,
    help="signals.npy with records.csv, or WFDB records with RECORDS.",
)
def export(selection: str, out: Path, form: Literal["numpy", "wfdb"]) -> None:
    """Write harmonized ECGs into the new folder OUT, to the microvolt.

    SELECTION is ecgs/SOURCE, ecgs/SOURCE/PARTITION, corpus/train or corpus/validation.

    \b
    ecg export ecgs/ludb ludb --format wfdb
    ecg export corpus/train train
    """
    from pipelines.corpus.export import export as export_rows
    from pipelines.corpus.export import select
    from pipelines.home import Home

    selected = select(Home.default().workspace(), selection)
    with _progress() as progress:
        task = progress.add_task("exporting", total=None)
        count = export_rows(
            selected, out, form, on_records=lambda done, total: progress.update(task, completed=done, total=total)
        )
    click.echo(f"{count:,} ECGs in {out}")


@main.command("check-drop")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with every record dropped.")
def check_drop(folder: Path, as_json: bool) -> None:
    """Say what would be read from DIR, a drop of own ECGs, and what would be dropped, and why.

    Nothing is written. Exit code 1 where no record would be kept, or where something in DIR or its name is refused. How
    a drop is written is said in docs/own-data.md.

    \b
    ecg check-drop incoming/ward-7
    ecg check-drop incoming/ward-7 --json | jq '.dropped[] | .reason'
    """
    from pipelines.incoming.check import check_drop as check

    with _progress() as progress:
        task = progress.add_task("reading", total=None)
        report = check(folder, lambda done: progress.update(task, completed=done))
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        from rich.table import Table

        table = Table(
            "kind", "where", "records", "kept", "Hz", "leads", "seconds", "units", "mV peak to peak", box=None
        )
        for row in report.rows():
            table.add_row(*row)
        _console().print(table)
        click.echo("\n" + "\n".join(report.lines()))
        click.echo(f"{report.kept:,} of {report.records:,} records would be kept")
    if not report.sound:
        sys.exit(1)


@main.command("withdraw-drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def withdraw_drop(name: str, yes: bool) -> None:
    """Remove the drop NAME from the data home: its copy, and what was harmonized from it.

    The next corpus is built without it. The folder that was dropped is not touched, and models that were trained on it
    stay as they are.

    \b
    ecg withdraw-drop ward-7_2026-05
    """
    from pipelines.home import Home
    from pipelines.incoming.bucket import place_of
    from pipelines.incoming.withdraw import withdraw_drop as withdraw

    home = Home.default()
    if not yes:
        click.confirm(f"Remove our copy of drop {name} and what was harmonized from it?", abort=True)
    withdraw(home, name)
    click.echo(f"drop {name} is withdrawn: materialize the corpus again to train without it")
    place = place_of(home.incoming)
    if name in place.names():
        click.echo(f"{place}/{name} is still there: remove it, or it may be taken again", err=True)


@main.command("import-reference")
@click.argument("file", type=_FILE)
@click.option(
    "--release", is_flag=True, help="Then probe it as ours is probed, and release it as `ecg-encoder-reference`."
)
def import_reference(file: Path, release: bool) -> None:
    """Import the author's released encoder: FILE is the .pth as it came from the author's drive.

    It is read as weights alone: nothing that a FILE names is run, and any other FILE is refused. Once imported it is
    an encoder like ours: `--release`, or the job import_and_release_reference in `make ui`, probes and releases it.

    \b
    ecg import-reference multiblock_epoch100.pth
    ecg import-reference multiblock_epoch100.pth --release
    """
    from pipelines.encoders.import_reference import materialize_reference
    from pipelines.home import Home

    home = Home.default()
    imported = materialize_reference(home.workspace(), file)
    facts = imported.facts
    click.echo(
        f"reference encoder: {facts['published'] or 'a file that we do not know'}, sha256 {facts['sha256']}, "
        f"epoch {facts['epoch']}, {facts['weights']:,} weights\nin {imported.path}"
    )
    if not release:
        return
    from pipelines.cli.importing import release_with_scores

    with _progress() as progress:
        task = progress.add_task("probing", total=None)
        released, rows = release_with_scores(
            home, lambda title, done, total: progress.update(task, description=title, completed=done, total=total)
        )
    from rich.table import Table

    table = Table("task", "reference", "pretrained", "random", "reference minus pretrained", box=None)
    for row in rows:
        table.add_row(*row)
    console = _console()
    console.print("\nMacro AUC on the test split of linear probes (95 % interval)")
    console.print(table)
    console.print(f"\n{'Released' if released.created else 'Released before'}: {released.model_uri}")


@main.command()
@click.argument("first")
@click.argument("second")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    help="Compare on this task alone, such as ptbxl_all or georgia__multi_class; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with every label.")
@click.option(
    "--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write a page of it into this file."
)
def compare(first: str, second: str, tasks: tuple[str, ...], as_json: bool, html: Path | None) -> None:
    """Compare two encoders on the same ECGs and splits: paired bootstrap by patient, p adjusted by Holm's method.

    FIRST and SECOND are an encoder.safetensors, a registered models:/NAME/VERSION or models:/NAME@ALIAS, `pretrained`
    (the data home's own), `reference` (the imported one), or `random` (the other with its initial weights).

    \b
    ecg compare pretrained random
    ecg compare models:/ecg-encoder/3 models:/ecg-encoder@champion --html compared.html
    ecg compare encoder.safetensors reference --task ptbxl_superclass --json
    """
    from pipelines.cli.comparing import compare as compare_named
    from pipelines.cli.comparing import notes, rows
    from pipelines.evaluate.exposure import SEEN
    from pipelines.home import Home

    with _progress() as progress:
        task = progress.add_task("embedding", total=None)
        found = compare_named(
            Home.default(),
            first,
            second,
            tasks,
            lambda title, done, total: progress.update(task, description=title, completed=done, total=total),
        )
    if html is not None:
        from pipelines.cache import write_atomically
        from pipelines.evaluate.report.page import comparison_page

        write_atomically(html, comparison_page(found).encode())
        click.echo(f"written to {html}", err=True)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
        return
    from rich.markup import escape
    from rich.table import Table

    scores = ("seen", escape(first), "seen", escape(second))
    table = Table("task", "tested on", *scores, "first minus second", "p", box=None)
    for row in rows(found):
        table.add_row(*row)
    console = _console()
    console.print("Macro AUC on the test split of linear probes (95 % interval); p by Holm's method over the tasks")
    console.print(table)
    console.print(f"seen: {SEEN}", markup=False)
    for note in notes(found):
        console.print(note, markup=False)
    console.print(f"\n{found.in_words()}", markup=False)


@main.command("evaluate-labels")
@click.argument("file", metavar="CSV", type=_FILE)
@click.option(
    "--encoder",
    default="pretrained",
    show_default=True,
    help="`pretrained`, `reference`, models:/NAME/VERSION, models:/NAME@ALIAS or an encoder.safetensors.",
)
@click.option("--source", default="incoming", show_default=True, help="The source whose ECGs are labelled.")
@click.option(
    "--min-positives",
    default=10,
    show_default=True,
    type=click.IntRange(min=1),
    help="Labels with fewer in a split are left out of its scores, by name.",
)
def evaluate_labels(file: Path, encoder: str, source: str, min_positives: int) -> None:
    """Probe an encoder on labels of your own: a CSV with the columns record_id and label, a line a label.

    The ECGs are harmonized drops (docs/own-data.md), or those of another source. Patients, or ECGs where no patient is
    named, are split into 70 % to train on, 10 to choose on and 20 to test; beside it stand the untrained network and
    handcrafted features. The scores, label by label, their curves and calibration are written as a page, too.

    \b
    ecg evaluate-labels labels.csv
    ecg evaluate-labels af.csv --source georgia --encoder models:/ecg-encoder@champion
    """
    from rich.markup import escape
    from rich.table import Table

    from pipelines.cli.labelling import by_class, kind_in_words
    from pipelines.cli.labelling import evaluate_labels as evaluate
    from pipelines.evaluate.exposure import SEEN
    from pipelines.evaluate.probes.config import ProbeConfig
    from pipelines.home import Home

    with _progress() as progress:
        bar = progress.add_task("embedding", total=None)
        found = evaluate(
            Home.default(),
            file,
            encoder,
            source,
            ProbeConfig(min_positives=min_positives),
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    task, report = found.task, found.report
    if report.reason is not None:
        raise click.ClickException(f"{task.title} cannot be scored: {report.reason}")
    rows = [standing.row() for standing in found.standings]
    console = _console()
    for listed in (rows, by_class(report)):
        table = Table(*listed[0], box=None)
        for row in listed:
            table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
        console.print(table)
    console.print(f"seen: {SEEN}", markup=False)
    console.print(f"tested on {report.tested}; splits and intervals by {report.drawn}", markup=False)
    for name, why in report.probes[0].assessment.without_f1.items():
        console.print(f"{name} without F1: {why}", markup=False)
    place = found.standings[0].product.path
    console.print(f"\n{task.title}: {kind_in_words(task)}; by a linear probe, in {place}", markup=False)
    console.print(f"as a page, with curves and calibration: {found.page}", markup=False)


@main.command()
@click.argument("source", required=False)
@click.option(
    "--take", is_flag=True, help="Keep the new lists: materialized again, partitions that changed are fetched again."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def upstream(source: str | None, take: bool, as_json: bool) -> None:
    """Ask the hosts, or the one of a SOURCE, whether they still have what was downloaded. Only lists are fetched.

    Exit code 1 where something changed and is not taken, is gone, or could not be asked.

    \b
    ecg upstream
    ecg upstream chapman --take
    """
    from pipelines.home import Home
    from pipelines.maintenance.upstream import ask

    found = ask(Home.default(), source, take=take)
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found], indent=1))
    else:
        for one in found:
            click.echo(f"{one.source}: {one.in_words()}")
        if not found:
            click.echo("nothing is downloaded yet")
    if not all(one.settled for one in found):
        sys.exit(1)


@main.command()
@click.option("--delete", is_flag=True, help="Remove what is listed.")
@click.option("--unfinished", is_flag=True, help="Trainings that were stopped, and could go on, are listed too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def gc(delete: bool, unfinished: bool, as_json: bool) -> None:
    """List the outputs that nobody needs any more, with their bytes; with --delete, remove them.

    Kept are what is current, what a registered model was made of, what a build that runs or waits to go on reads, and
    what these were made of. What is removed is built again when it is asked for again.

    \b
    ecg gc
    ecg gc --delete
    """
    from pipelines.cli.collecting import collect
    from pipelines.formatting import format_bytes
    from pipelines.home import Home

    found = collect(Home.default(), delete=delete, unfinished=unfinished)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
        return
    from rich.table import Table

    table = Table("size", "product", "output", "why", box=None)
    for one in found.listed:
        table.add_row(format_bytes(one.bytes), one.product, one.path.name, one.why)
    if found.listed:
        _console().print(table)
    for line in found.lines():
        click.echo(line)


@main.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option(
    "--encoder",
    type=click.Choice(["pretrained", "reference"]),
    default="pretrained",
    show_default=True,
    help="The data home's own encoder, or the imported one.",
)
def evaluate(names: tuple[str, ...], encoder: str) -> None:
    """Evaluate the encoder by NAME, beside the random encoder and handcrafted features; without a NAME, list them.

    A name is a task, with variants after it, or a kind of waves and a source. `dense/` before a task sets the encoder
    beside one with dense attention, and pretrains that where it is not there. What is computed is kept: asked again, it
    is found.

    \b
    ecg evaluate
    ecg evaluate segmentation/ludb regression/ptbxl
    ecg evaluate ptbxl_superclass ptbxl_superclass__attention_pool
    ecg evaluate cpsc2018__multi_class__nearest_mean ptbxl_all__labels_25
    """
    from rich.table import Table

    from pipelines.cli.evaluating import evaluated, listed
    from pipelines.evaluate.exposure import SEEN
    from pipelines.home import Home

    home, console = Home.default(), _console()
    if not names:
        table = Table("evaluation", "what it is", "its ECGs", box=None)
        for row in listed(home):
            table.add_row(*row)
        console.print(table)
        return
    with _progress() as progress:
        task = progress.add_task("evaluating", total=None)

        def report(title: str, done: int, total: int) -> None:
            progress.update(task, description=title, completed=done, total=total)

        for name, rows in evaluated(home, names, encoder, report):
            table = Table(*rows[0], title=name, title_justify="left", box=None)
            for row in rows:
                table.add_row(*("" if value is None else str(value) for value in row.values()))
            console.print(table)
    console.print(f"seen: {SEEN}", markup=False)


_MODEL_NAME = click.option("--name", default="ecg-encoder", show_default=True, help="The registered model.")


@main.command("models")
@_MODEL_NAME
def models_(name: str) -> None:
    """List the released versions: aliases, scores, what the gate said, and when each came and went as champion.

    \b
    ecg models
    ecg models --name ecg-encoder-reference
    """
    from rich.table import Table

    from pipelines.cli.promoting import versions
    from pipelines.home import Home

    table = Table("version", "alias", "validation", "verdict", "moves", box=None)
    for row in versions(Home.default(), name):
        table.add_row(*row)
    console = _console()
    console.print(table)
    console.print("\nvalidation: AUC by a version's own probe; a verdict is on the labels that both versions have")


@main.command()
@click.argument("version", required=False, type=int)
@click.option("--why", required=True, help="The reason, written on both versions.")
@_MODEL_NAME
def rollback(version: int | None, why: str, name: str) -> None:
    """Make the previous champion, or VERSION, champion again. What is champion now becomes the previous one.

    VERSION has to have been champion (it has moves in `ecg models`); of any other the gate decides. The gate does not
    undo it: a version that was champion comes back by this command alone.
    The classifier and its encoder are two models; whether the other one goes with what is champion now is said.

    \b
    ecg rollback --why "V5 amplitudes wrong since Monday"
    ecg rollback 3 --why "the last one before the new corpus"
    """
    from pipelines.cli.promoting import go_back
    from pipelines.home import Home

    for line in go_back(Home.default(), name, version, why):
        click.echo(line)


def _place(home: Home) -> str:
    return "the true hosts" if home.mirror is None else f"the mirror {home.mirror}"


def _pull(uri: str) -> Any:
    """The model, from the home's store."""
    from pipelines.cli.store import store_of
    from pipelines.home import Home

    tracking = store_of(Home.default())
    # After pipelines.tracking, which silences MLflow before it is imported.
    from pipelines.release.pulled_encoder import PulledEncoder

    return PulledEncoder(uri, tracking_uri=tracking.uri)


def _console() -> Console:
    """On stdout; where nobody looks, as wide as the table, so that no line is cut."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
