"""What MLflow's pages say of a registered model and of its versions, in Markdown. Pure.

A page is made from a version's tags alone, so that every model has one: the encoder, classifiers under any name, the
reference. Versions of earlier commits lack some tags; their pages leave those lines out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pipelines.encoders.words import method_in_words
from pipelines.formatting import markdown_table, plain_markdown
from pipelines.release.model import Release
from pipelines.release.tags import ANSWER, CHAMPION, LICENCE, METHOD, RECIPE, REPORT, TRAINED_ON, TRAINING_RUN

LONGEST = 5000  # characters of a description, of MLflow's databases


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where MLflow has a version's run, and the run of its training."""

    experiment: str
    training_experiment: str | None = None


def version_page(release: Release, place: Place) -> str:
    """Return the description of a version. Its first line is plain text: lists of versions show its beginning."""
    parts = [_state(release), _links(release, place)]
    if scores := _scores(release):
        parts += ["### Scores", scores]
    parts += ["### Trained on", _trained_on(release), *_use(release.name, str(release.version), release)]
    if release.verdict is not None:
        parts += ["### The gate", release.verdict.page()]
    return _fitting("\n\n".join(parts))


def model_page(summary: str, shown: Release, place: Place, *, champion: bool) -> str:
    """Return the description of a registered model.

    summary: what it does, in one line
    shown: the version that the page is about, the champion if there is one
    champion: whether it is
    """
    which = f"[Version {shown.version}]({version_link(shown)}), {'the champion' if champion else 'the newest'}"
    parts = [summary, f"{which}: {_lowered(_state(shown))}", _links(shown, place)]
    if scores := _scores(shown):
        parts += ["### Scores", scores]
    parts += ["### Trained on", _trained_on(shown)]
    parts += _use(shown.name, f"@{CHAMPION}" if champion else str(shown.version), shown)
    return _fitting("\n\n".join(parts))


def run_note(release: Release, place: Place) -> str:
    """Return the description of a version's run."""
    note = f"Registered as [{release.name} version {release.version}]({version_link(release)})."
    report = _report_link(release, place)
    return note if report is None else f"{note} [Evaluation report]({report})."


def training_note(versions: Mapping[str, str]) -> str:
    """Return the description of a training's run. versions: those with its encoder, by the model's name."""
    links = [f"[{name} version {version}]({_version_link(name, version)})" for name, version in versions.items()]
    return f"Its encoder is registered in {', '.join(links)}."


def version_link(release: Release) -> str:
    """Return the address of a version's page within MLflow's UI."""
    return _version_link(release.name, str(release.version))


def _version_link(name: str, version: str) -> str:
    return f"#/models/{quote(name, safe='')}/versions/{version}"


def _state(release: Release) -> str:
    """Return what the gate and the scores say, in one line of plain text."""
    verdict = release.verdict
    if verdict is None:
        judged = "Not judged by a gate"
    elif release.by_hand:
        judged = "Made champion by hand, though it did not pass the gate"
    else:
        judged = "Passed the gate" if verdict.promote else "Did not pass the gate, and stays a challenger"
    if release.scores.validation is None:
        return f"{judged}. Not scored: nothing tells yet how good it is."
    task, labels = release.scores.task, validation_labels(release)
    over = f"{task and f' on {task}'}{labels and f', {labels} labels'}"
    return f"{judged}. Validation macro AUC {release.scores.validation:.3f}{over}."


def validation_labels(release: Release) -> str:
    """Return over how many labels a version's validation score is, as `3 of 9`; empty if it is not known."""
    if "scores" not in release.tags:
        return ""
    return _of_labels(release.scores.metrics, release.scores.task, "validation")


def _lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _links(release: Release, place: Place) -> str:
    links = {"Evaluation report": _report_link(release, place)}
    run = f"#/experiments/{place.experiment}/runs/{release.run_id}"
    links["Release run, with all figures, data and files"] = run if release.run_id else None
    if place.training_experiment is not None:
        training = release.tags.get(TRAINING_RUN)
        links["Training run, with its curves"] = f"#/experiments/{place.training_experiment}/runs/{training}"
    return " · ".join(f"[{words}]({link})" for words, link in links.items() if link is not None)


def _report_link(release: Release, place: Place) -> str | None:
    report = release.tags.get(REPORT)
    if report is None:
        return None
    return f"#/experiments/{place.experiment}/runs/{release.run_id}/artifacts/{quote(report)}"


def _scores(release: Release) -> str:
    """Return the scores as a table; empty if no task was scored."""
    metrics = release.scores.metrics
    tasks = [name.removesuffix("/test_macro_auc") for name in metrics if name.endswith("/test_macro_auc")]
    if not tasks:
        return ""
    rows = [
        (
            task,
            *(_number(metrics.get(f"{task}/{name}")) for name in ("test_macro_auc", "test_macro_auc_random")),
            _of_labels(metrics, task, "test") or "–",
            _number(metrics.get(f"{task}/validation_macro_auc")),
            _of_labels(metrics, task, "validation") or "–",
        )
        for task in tasks
    ]
    header = ("task", "macro AUC on test", "random encoder", "labels scored", "on validation", "labels scored there")
    by = "By linear probes on the frozen encoder" if METHOD not in release.tags else "Of the classifier as it is served"
    how = f"{by}; 0.5 is chance, 1 is perfect. Each is the mean over the labels scored."
    return f"{markdown_table(header, rows)}\n\n{how}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _of_labels(metrics: Mapping[str, float], task: str, split: str) -> str:
    """Return over how many of a task's labels a split was scored, as `3 of 9`; empty if it is not known."""
    scored, labels = metrics.get(f"{task}/{split}_labels_scored"), metrics.get(f"{task}/labels")
    return "" if scored is None or labels is None else f"{scored:.0f} of {labels:.0f}"


def _trained_on(release: Release) -> str:
    tags = release.tags
    settings = json.loads(tags.get(RECIPE, "{}"))
    recipe = settings.get("name")
    facts = {
        "Method": method_in_words(settings),
        "ECGs": tags.get(TRAINED_ON),
        "Licence": tags.get(LICENCE),
        "Recipe": recipe and f"{recipe}; all its settings are parameters of the release run",
        "Code, by its commit": tags.get("git_commit", "")[:12] or None,
    }
    return "\n".join(f"- {name}: {plain_markdown(value)}" for name, value in facts.items() if value is not None)


def _use(name: str, version: str, release: Release) -> list[str]:
    """Return how a version is loaded, what it takes and gives, and its limits."""
    uri = f"models:/{name}{version if version.startswith('@') else f'/{version}'}"
    load = [
        "```python",
        "import mlflow, numpy as np",
        f'model = mlflow.pyfunc.load_model("{uri}")',
        "ecgs = np.zeros((4, 12, 5000))  # yours: records, leads, samples; millivolt",
        'model.predict(ecgs, params={"sampling_rate": 500.0})',
        "```",
    ]
    takes = markdown_table(
        ("input", "shape and unit"),
        [
            (
                "ecgs",
                "(records, 12 or 8, samples), numbers in millivolt; an array, nested lists, or a table of 1 column",
            ),
            ("params: sampling_rate", "Hz, 50 to 2,000; no default"),
            ("params: leads", "standard (I, II, III, aVR, aVL, aVF, V1 to V6; or I, II, V1 to V6), or names in order"),
            ("params: on_bad", "nan, or refuse: what becomes of a record that is not fit"),
        ],
    )
    answer = release.tags.get(ANSWER)
    limits = ["Not a medical device: not validated for diagnosis or any clinical use."]
    if release.simulated:
        limits.append("Trained on simulated ECGs: it shows that the pipeline works, and says nothing about patients.")
    elif release.on_simulated_encoder:
        limits.append("Its encoder was pretrained on simulated ECGs: expect more of one that was on recorded ECGs.")
    limits.append("Not for ECGs below 2 s, or without the leads I, II and V1 to V6.")
    limits.append("The scores are of the data sets named above; expect others on ECGs of other devices and people.")
    gives = [] if answer is None else [f"It gives {plain_markdown(answer)}."]
    return ["### Load it", "\n".join(load), takes, *gives, "### Limits", "\n".join(f"- {limit}" for limit in limits)]


def _fitting(page: str) -> str:
    """Return a page that MLflow's databases take, cut at a line's end if it is too long."""
    if len(page) <= LONGEST:
        return page
    end = "\n\n(cut: the tags have the rest)"
    return page[: page.rindex("\n", 0, LONGEST - len(end))] + end
