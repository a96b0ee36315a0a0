"""What a schedule and a sensor look at, without the work behind it: shards, a corpus, registered versions, drops."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.step import CorpusFacts
from pipelines.home import Home
from pipelines.incoming.listing import MARKER
from pipelines.pretrain.recipes import Recipe, recipe_named
from pipelines.release.tags import CORPUS_SETTINGS
from pipelines.release.version_recipe import recipe_tag
from pipelines.tracking import Tracking, flat

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow.entities import Param

TINY = recipe_named("demo", {"steps": 8, "peak_lr": 1e-3})
SETTINGS = {"validation_share": 0.2, "seed": 1, "sources": None, "unlabelled_folds": []}
"""Of a corpus, and none of them as usual but for the last two."""


def write_drop(home: Home, name: str, text: str = "ecg", *, complete: bool = True) -> None:
    folder = home.incoming / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ecgs.csv").write_text(text)
    if complete:
        (folder / MARKER).touch()


def harmonized(workspace: Workspace, digests: dict[str, str]) -> None:
    """Shards as if they were harmonized, one of its content's digest each."""
    for shard, content in digests.items():

        def make(folder: Path, content: str = content, role: str = "evaluation" if "ptbxl" in shard else "pretraining"):
            (folder / "signals").write_text(content)
            return {"entered": 0, "kept": 0, "dropped": {}, "role": role}

        workspace.build(f"ecgs/{shard}", version=versions.ECGS, config={"content": content}, inputs={}, make=make)


def corpus_built(workspace: Workspace, digest: str, sources: list[str] | None = None) -> Product:
    """A corpus as if it were built of all shards that are there, but of sources that it leaves out."""
    names = [path.parent.relative_to(workspace.root).as_posix() for path in workspace.root.glob("ecgs/*/*/current")]
    taken = [name for name in sorted(names) if not sources or name.split("/")[1] in [*sources, "ptbxl"]]

    def make(folder: Path) -> dict:
        (folder / "index").write_text(digest)
        return CorpusFacts(
            considered=0, train=0, validation=0, excluded={}, by_source={}, patients=0, digest=digest
        ).to_dict()

    inputs = {name: workspace.require(name).digest for name in taken}
    config = {**SETTINGS, "sources": sources}
    return workspace.build("corpus", version=versions.CORPUS, config=config, inputs=inputs, make=make)


def trained(workspace: Workspace, recipe: Recipe) -> Product:
    """An encoder as if it were trained on the current corpus."""
    corpus = workspace.require("corpus")

    def make(folder: Path) -> dict:
        (folder / "weights").write_text(recipe.digest + corpus.digest)
        return {"corpus_digest": corpus.facts["digest"], "recipe": recipe.to_dict()}

    workspace.build(
        "encoder", version=versions.ENCODER, config=recipe.to_dict(), inputs={"corpus": corpus.digest}, make=make
    )
    return workspace.require("encoder")


def released(
    tracking: Tracking,
    corpus: str,
    recipe: Recipe,
    verdict: str | None,
    *,
    champion: bool = False,
    settings: dict | None = SETTINGS,
    stored: Mapping[str, Any] | None = None,
    store_recipe: bool = True,
) -> int:
    """A registered version, as `pipelines.release.registry` writes one.

    stored: the recipe as the version has it, if that is not `recipe`
    store_recipe: False for a version of an earlier commit, which has its recipe in the run's parameters alone
    """
    client = tracking.client()
    if not client.search_registered_models(filter_string="name = 'ecg-encoder'"):
        client.create_registered_model("ecg-encoder")
    run = client.create_run(tracking.experiment_id(client))
    client.log_batch(run.info.run_id, params=[Param(*item) for item in flat(recipe.to_dict()).items()])
    tags = {"corpus_digest": corpus} | ({} if verdict is None else {"verdict": verdict})
    tags |= {} if settings is None else {CORPUS_SETTINGS: json.dumps(settings)}
    tags |= recipe_tag(stored or recipe.to_dict()) if store_recipe else {}
    version = client.create_model_version("ecg-encoder", source="here", run_id=run.info.run_id, tags=tags)
    if champion:
        client.set_registered_model_alias("ecg-encoder", "champion", str(version.version))
    return int(version.version)
