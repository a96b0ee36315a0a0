"""The steps of `ecg run`, from raw files to a released model.

Each calls what the asset of the same product calls, with the same defaults, and so makes or finds the same product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from pipelines.cache import Product, Workspace
from pipelines.cli.changes import Base, Changes, Computing, Fetching, Keeping, Scoring
from pipelines.cli.console import Count
from pipelines.cli.launch import run_pretraining
from pipelines.cli.partitions import Partition, to_download, to_harmonize
from pipelines.encoders.names import OURS
from pipelines.finding import Finding
from pipelines.home import Home
from pipelines.program import usual_processes
from pipelines.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a step made or found: a product, or a registered version."""

    name: str
    cached: bool
    place: str
    """Its folder, or its address in MLflow."""
    says: str = ""
    """Its most telling figures."""
    checks: Mapping[str, Finding] = field(default_factory=dict)
    """Findings that stop what follows if one fails."""
    warnings: Mapping[str, Finding] = field(default_factory=dict)
    """Findings that stop nothing."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A partition that could not be made; the others follow."""

    name: str
    why: str


Results = Iterator[Made | Refused]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the steps work on, and how."""

    home: Home
    named: Sequence[str]
    """Partitions as the user named them; none: see `pipelines.cli.partitions`."""
    recipe: str
    changes: Changes
    downloading: Callable[[str], AbstractContextManager[Any]]
    """Shows the progress of a download."""
    counting: Callable[[str], AbstractContextManager[Count]]
    """Shows the progress of anything else."""
    note: Callable[[str], None]
    """Says something that is no result."""

    @cached_property
    def workspace(self) -> Workspace:
        return self.home.workspace()

    @cached_property
    def tracking(self) -> Tracking:
        from pipelines.cli.store import reachable_store

        return reachable_store(self.home)


def refuse_training(run: Run) -> None:
    """Raise ValueError if the step `pretrain` would refuse its settings, before the steps ahead of it take minutes."""
    from pipelines.release import retraining

    how = run.changes.of(Computing, "pretrain")
    retraining.refuse_training(
        run.workspace,
        run.tracking,
        simulated=run.home.simulated,
        recipe=run.recipe,
        changes=run.changes.recipe,
        warm_start=how.warm_start,
        device=how.device,
        processes=_processes(how),
        accumulate=how.accumulate,
    )


def _processes(how: Computing) -> int:
    return how.processes or usual_processes()


class Step(NamedTuple):
    """A step, and the command that a user types next."""

    run: Callable[[Run], Results]
    then: str


def download(run: Run) -> Results:
    """Fetch and verify raw files; copy drops of own ECGs."""
    from pipelines.download.step import RawFacts, download_to_home
    from pipelines.formatting import format_bytes
    from pipelines.incoming import NAME
    from pipelines.incoming.step import materialize_drop
    from pipelines.sources import SOURCES

    connections = run.changes.of(Fetching, "download").connections

    def fetch(one: Partition) -> Made:
        if one.source == NAME:
            with run.counting(f"raw/{one}"):
                product = materialize_drop(run.home, one.key)
        else:
            with run.downloading(f"raw/{one}") as progress:
                product = download_to_home(
                    run.home,
                    SOURCES[one.source],
                    one.key,
                    connections=connections,
                    progress=progress,
                    bring_back=False,
                )
        facts = RawFacts.of(product)
        return _of(product, f"{facts.files:,} files, {format_bytes(facts.bytes)}")

    for one in to_download(run.home, run.named, run.note):
        yield _or_refused(f"raw/{one}", lambda one=one: fetch(one))


def harmonize(run: Run) -> Results:
    """Bring the records of downloaded partitions into one form."""
    from pipelines.download.step import discard_raw
    from pipelines.harmonize.checks import EVERY_FILE_READ, every_file_read, recorded_findings
    from pipelines.harmonize.quality import QualityLimits
    from pipelines.harmonize.shards import HarmonizedFacts
    from pipelines.harmonize.step import materialize_ecgs
    from pipelines.harmonize.window import COMPLETE, MARKED, Incomplete
    from pipelines.incoming import NAME, own_data
    from pipelines.sources import SOURCES

    limits = run.changes.of(QualityLimits, "harmonize")
    own = run.changes.of(Incomplete, "harmonize", MARKED)
    keep_raw = run.changes.of(Keeping, "harmonize").keep_raw

    def made(one: Partition) -> Made:
        is_own = one.source == NAME
        with run.counting(f"ecgs/{one}") as progress:
            product = materialize_ecgs(
                run.workspace,
                own_data(run.home) if is_own else SOURCES[one.source],
                one.key,
                limits=limits,
                incomplete=own if is_own else COMPLETE,
                progress=progress,
            )
        facts, findings = HarmonizedFacts.of(product), recorded_findings(product)
        if not is_own and not keep_raw and all(finding.holds for finding in findings.values()):
            discard_raw(run.workspace, SOURCES[one.source], one.key, raw_root=run.home.raw_root)
        unread = {EVERY_FILE_READ: every_file_read(product)} if is_own else {}
        return _of(product, f"{facts.entered:,} entered, {facts.kept:,} kept", findings, unread)

    for one in to_harmonize(run.workspace, run.named):
        yield _or_refused(f"ecgs/{one}", lambda one=one: made(one))


def corpus(run: Run) -> Results:
    """Index what is harmonized, for pretraining."""
    from pipelines.corpus.checks import corpus_is_apart
    from pipelines.corpus.config import TRAINING_FOLDS, CorpusConfig
    from pipelines.corpus.step import WITHOUT_LABELS, CorpusFacts, materialize_corpus, only_ptbxl
    from pipelines.harmonize.shards import all_shards
    from pipelines.release.retraining import requested_corpus

    if not all_shards(run.workspace):
        raise ValueError("no harmonized ECGs: run `ecg run download harmonize` first")
    given = run.changes.given(CorpusConfig, "corpus")
    if not {"sources", "unlabelled_folds"} & given.keys() and only_ptbxl(run.workspace):
        run.note(WITHOUT_LABELS)
        given["unlabelled_folds"] = TRAINING_FOLDS
    with run.counting("corpus"):
        settings = requested_corpus(
            run.workspace,
            run.tracking,
            given,
            from_champion=run.changes.of(Base, "corpus").base == "champion",
            simulated=run.home.simulated,
        )
        product = materialize_corpus(run.workspace, settings)
        apart = corpus_is_apart(run.workspace, product)
    facts = CorpusFacts.of(product)
    says = f"{facts.train:,} ECGs to train on, {facts.validation:,} to validate on, {facts.patients:,} patients"
    yield _of(product, says, {"no_evaluation_patient_in_corpus": apart})


def pretrain(run: Run) -> Results:
    """Train the encoder."""
    from pipelines.pretrain.checks import training_went_well
    from pipelines.pretrain.step import EncoderFacts
    from pipelines.release.training import pretrain_requested

    _require(run.workspace, "corpus", "no corpus: run `ecg run corpus` first")
    how = run.changes.of(Computing, "pretrain")
    product = pretrain_requested(
        run.home,
        run.tracking,
        run_pretraining,
        recipe=run.recipe,
        changes=run.changes.recipe,
        warm_start=how.warm_start,
        device=how.device,
        processes=_processes(how),
        accumulate=how.accumulate,
        recompute=how.recompute,
    )
    facts = EncoderFacts.of(product)
    says = f"recipe {facts.recipe['name']}, {facts.steps:,} steps"
    yield _of(product, says, {"loss_finite_and_falling_and_not_collapsed": training_went_well(facts)})


def evaluate(run: Run) -> Results:
    """Probe the encoder on each task that a release is judged by, and write the report."""
    from pipelines.evaluate.probes.config import ProbeConfig
    from pipelines.evaluate.report.step import HTML_FILE, ReportFacts, materialize_report
    from pipelines.evaluate.suite.baselines import probe_pair
    from pipelines.tasks.catalogue import TASKS

    _require(run.workspace, OURS.product, NO_ENCODER)
    config, failed = run.changes.of(ProbeConfig, "evaluate"), False
    for task in TASKS.values():
        with run.counting(f"probe/{task.name}") as on_count:
            pair = probe_pair(run.workspace, task, config, progress=on_count)
        told = ("test macro", "not scored", "labels")
        scores = [(name, value) for name, value in pair.figures().items() if name.startswith(told)]
        above, stops = {"probe_above_random_encoder": pair.above_random()}, pair.below_random
        failed |= stops
        says = "; ".join(f"{name} {value}" for name, value in scores)
        yield _of(pair.pretrained, says, above if stops else {}, {} if stops else above)
    if failed:
        return  # as in the UI, where the report waits for the checks of the probes
    with run.counting("report"):
        report = materialize_report(run.workspace, simulated=run.home.simulated)
    page = str(report.path / HTML_FILE)
    yield Made(name=report.name, cached=report.cached, place=page, says=ReportFacts.of(report).headline)


def release(run: Run) -> Results:
    """Register the encoder, put it before the gate, and move the alias if it passes; then its classifier."""
    from pipelines.release.gate import GateConfig
    from pipelines.release.promotion import promote_classifier, promote_current
    from pipelines.release.steps import judge_current, release_current

    _require(run.workspace, OURS.product, NO_ENCODER)
    _require_probes(run.workspace)
    gate_task = run.changes.of(Scoring, "release").gate_task
    config = run.changes.of(GateConfig, "release")
    with run.counting("registering"):
        version = release_current(run.workspace, run.tracking, gate_task=gate_task, simulated=run.home.simulated)
    yield Made(
        name=f"{version.name} version {version.version}",
        cached=not (version.created or version.rescored),
        place=version.model_uri,
        says=f"{'scored' if version.scores.validation is not None else 'not scored'} on {gate_task}",
    )
    with run.counting("the gate"):
        judged = judge_current(run.workspace, run.tracking, config=config)
    yield Made(
        name="gate_verdict",
        cached=bool(judged.release.moves),
        place=judged.release.model_uri,
        says=judged.verdict.reason,
        checks=judged.verdict.rules,
    )
    if not judged.verdict.promote:
        return
    moved = promote_current(run.workspace, run.tracking)
    champion = moved.champion
    yield Made(
        name="champion", cached=not moved.moved, place=f"models:/{champion.name}@champion", says=champion.model_uri
    )
    with run.counting("classifier"):
        classifier = promote_classifier(run.workspace, run.tracking, config=config)
    if classifier.judged is None:
        yield _of(classifier.head, f"no classifier: {classifier.head.facts.get('reason')}")
        return
    of_labels = classifier.judged.release
    yield Made(
        name=f"{of_labels.name} version {of_labels.version}",
        cached=not (of_labels.created or of_labels.rescored),
        place=of_labels.model_uri,
        says=classifier.judged.verdict.reason,
        warnings=classifier.judged.verdict.rules,
    )


STEPS: Mapping[str, Step] = {
    "download": Step(download, "ecg run harmonize"),
    "harmonize": Step(harmonize, "ecg run corpus"),
    "corpus": Step(corpus, "ecg run pretrain --recipe small"),
    "pretrain": Step(pretrain, "ecg run evaluate"),
    "evaluate": Step(evaluate, "ecg run release"),
    "release": Step(release, "ecg models; ecg train-classifier LABELS.csv; ecg embed FILE -o embeddings.csv; make ui"),
}
"""In the order in which they are run."""

NO_ENCODER = "no encoder: run `ecg run pretrain` first, or `ecg add-encoder DIR` with one that was trained elsewhere"


def _of(
    product: Product,
    says: str,
    checks: Mapping[str, Finding] | None = None,
    warnings: Mapping[str, Finding] | None = None,
) -> Made:
    return Made(
        name=product.name,
        cached=product.cached,
        place=str(product.path),
        says=says,
        checks=checks or {},
        warnings=warnings or {},
    )


def _or_refused(name: str, make: Callable[[], Made]) -> Made | Refused:
    """Make a partition; one that is refused does not keep the others from being made."""
    try:
        return make()
    except ValueError as error:
        return Refused(name=name, why=str(error))


def _require(workspace: Workspace, product: str, absence: str) -> None:
    """Raise ValueError with the sentence if a product is not here, and Damaged if it is damaged."""
    if workspace.current_folder(product) is None:
        raise ValueError(absence)
    workspace.require(product)


def _require_probes(workspace: Workspace) -> None:
    """Raise ValueError if the current encoder was not probed on each task."""
    from pipelines.evaluate.features import EncoderSource
    from pipelines.evaluate.probes.stored import probed
    from pipelines.tasks.catalogue import TASKS

    digest = EncoderSource.of_product(OURS.probe, workspace.require(OURS.product)).digest
    for task in TASKS:
        probe = workspace.current(f"probe/{task}/{OURS.probe}")
        if probe is None or probed(probe.path)["encoder"]["digest"] != digest:
            raise ValueError(f"the current encoder was not probed on {task}: run `ecg run evaluate` first")
