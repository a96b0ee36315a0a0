"""What people click: `make ui` in a real Chromium, on a tiny simulated mirror. Set ECG_SCREENSHOTS to a folder to keep
pictures of the pages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ecg_model.config import EncoderConfig
from ecg_model.encoder import random_encoder, save_encoder
from pipelines.encoders.names import ENCODER_FILE
from pipelines.finding import Finding
from pipelines.release.aliases import promote
from pipelines.release.gate import GateConfig, judge
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import packaged_encoder, serves
from pipelines.release.registry import record, release_packaged
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.support.paths import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# A sandbox needs a user that is not root; the rest keeps it from looking for the network.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ONE_STEP = {
    "steps": "1",
    "batch": "16",
    "jepa.encoder.dim": "32",
    "jepa.encoder.depth": "2",
    "jepa.encoder.heads": "2",
    "jepa.predictor.dim": "16",
    "jepa.predictor.heads": "2",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium"),
]


@dataclass(frozen=True)
class Servers:
    dagster: str
    mlflow: str
    home: Path

    def graphql(self, query: str) -> Any:
        return httpx.post(f"{self.dagster}/graphql", json={"query": query}, timeout=60).json()["data"]

    def runs(self, status: str = "SUCCESS") -> list[dict[str, Any]]:
        query = "{ runsOrError { ... on Runs { results { runId jobName status tags { key value } } } } }"
        return [run for run in self.graphql(query)["runsOrError"]["results"] if run["status"] == status]

    def unseen(self) -> set[str]:
        """The assets that were materialized, and show no picture."""
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            latest = [instance.get_latest_materialization_event(key) for key in instance.all_asset_keys()]
        made = [one.asset_materialization for one in latest if one is not None]
        assert made
        pictured = [one for one in made if any("data:image/png" in str(v.value) for v in one.metadata.values())]
        return {one.asset_key.to_user_string() for one in made} - {one.asset_key.to_user_string() for one in pictured}

    def partitions(self, asset: str) -> set[str]:
        path = ", ".join(f'"{part}"' for part in asset.split("/"))
        query = f"{{ assetNodeOrError(assetKey: {{path: [{path}]}}) {{ ... on AssetNode {{ "
        found = self.graphql(query + "assetMaterializations { partition } } } }")
        return {one["partition"] for one in found["assetNodeOrError"]["assetMaterializations"]}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root = tmp_path_factory.mktemp("ui")
    sizes = MirrorSizes(chapman=(60,), code15=(), ptbxl=(20, 20, 20), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(root / "mirror", seed=4, sizes=sizes)
    home = root / "home"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ECG_", "MLFLOW_", "DAGSTER_"))}
    own |= {"ECG_HOME": str(home), "ECG_MIRROR": str(root / "mirror")}
    dagster, mlflow = free_port(), free_port()
    command = [sys.executable, "-m", "orchestration.ui", "--dagster-port", str(dagster), "--mlflow-port", str(mlflow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own, cwd=ROOT) as ui:
        assert ui.stdout is not None
        try:
            assert "Dagster" in ui.stdout.readline()
            assert "MLflow" in ui.stdout.readline()
            found = Servers(f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}", home)
            until(lambda: bool(found.graphql("{ repositoriesOrError { __typename } }")), "the code location")
            yield found
        finally:
            ui.send_signal(signal.SIGINT)
            assert ui.wait(60) == 0


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        opened = browser.new_page(viewport={"width": 1400, "height": 860})
        opened.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield opened
        browser.close()


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 150
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def kept(page: Page, name: str) -> None:
    folder = os.environ.get("ECG_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)  # until what moves stands still
        page.screenshot(path=Path(folder) / f"{name}.png")


def select_partitions(page: Page, servers: Servers, asset: str, *names: str) -> None:
    """Open an asset, choose partitions in its dialog, launch."""
    page.goto(f"{servers.dagster}/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Select a partition or create one").or_(
        page.get_by_placeholder("Select a partition")
    ).first.click()
    for name in names:
        page.get_by_text(name, exact=True).filter(visible=True).last.click()
    page.keyboard.press("Escape")
    kept(page, "partitions")
    page.get_by_role("button", name=re.compile("Launch")).last.click()


def a_partition_then_a_backfill_of_three(page: Page, servers: Servers) -> None:
    select_partitions(page, servers, "raw/ptbxl", "00000")
    until(lambda: servers.partitions("raw/ptbxl") == {"00000"}, "the partition that was chosen, and no other")
    select_partitions(page, servers, "raw/ptbxl", "00000", "01000", "02000")
    until(lambda: len(servers.partitions("raw/ptbxl")) == 3, "three partitions")
    query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status numPartitions } } } }"

    def backfills() -> list[int]:
        found = servers.graphql(query)["partitionBackfillsOrError"]["results"]
        return [one["numPartitions"] for one in found if one["status"] in ("COMPLETED", "COMPLETED_SUCCESS")]

    until(lambda: 3 in backfills(), "a backfill of three")


def launch(page: Page, servers: Servers, job: str, config: str) -> None:
    """Type a config into the launchpad of a job, and launch."""
    page.goto(f"{servers.dagster}/locations/ecg-foundry/jobs/{job}/playground")
    editor = page.locator(".CodeMirror").first
    expect(editor).to_contain_text("ops:")  # the defaults are filled in by themselves
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(config)
    expect(page.get_by_text("No errors")).to_be_visible()
    kept(page, "launchpad")
    page.get_by_role("button", name="Launch Run").click()


def an_asset_then_a_job_with_a_changed_setting_whose_check_fails(page: Page, servers: Servers) -> None:
    for partition in ("chapman/01", "ptbxl/00000"):
        source, name = partition.split("/")
        for kind in ("raw", "ecgs"):
            if servers.partitions(f"{kind}/{source}") >= {name}:
                continue
            select_partitions(page, servers, f"{kind}/{source}", name)
            until(lambda kind=kind, source=source: servers.partitions(f"{kind}/{source}"), partition)
    page.goto(f"{servers.dagster}/assets/corpus")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Confirm").click()  # not all sources are here, which Dagster asks about
    until(lambda: servers.partitions("corpus") == {None}, "the corpus, by its button")
    changes = "".join(f"\n        {name}: {value}" for name, value in ONE_STEP.items())
    launch(
        page, servers, "train_and_release", f"ops:\n  encoder:\n    config:\n      device: cpu\n      changes:{changes}"
    )
    until(lambda: servers.runs("FAILURE"), "the run ends where a check fails")
    page.goto(f"{servers.dagster}/assets/encoder?view=checks")
    expect(page.get_by_text("Failed").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"loss 0\.\d+ -> 0\.\d+.*the loss did not fall, train")).first).to_be_visible()
    kept(page, "failed-check")
    assert not servers.partitions("released_encoder"), "nothing was released"
    page.goto(f"{servers.dagster}/assets/ecgs/ptbxl")
    expect(page.get_by_text("missing samples").or_(page.get_by_text("Nothing was dropped")).first).to_be_visible()
    kept(page, "asset")


def the_schedule_is_switched_on(page: Page, servers: Servers) -> None:
    page.goto(f"{servers.dagster}/automation")
    row = page.get_by_text("weekly_retraining", exact=True).locator("xpath=ancestor::*[.//input][1]")
    expect(row).to_be_visible()
    kept(page, "automation")
    row.locator("label[class*=formatSwitch]").click()
    query = '{ schedulesOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: '
    query += '"ecg-foundry"}) { ... on Schedules { results { name scheduleState { status } } } } }'

    def on() -> bool:
        found = servers.graphql(query)["schedulesOrError"]["results"]
        return {one["name"]: one["scheduleState"]["status"] for one in found}["weekly_retraining"] == "RUNNING"

    until(on, "the schedule is on")


def the_graph_reads_from_left_to_right(page: Page, servers: Servers) -> None:
    page.goto(f"{servers.dagster}/asset-groups")
    road = ("download", "harmonize", "corpus", "pretrain", "evaluate", "release", "compare")
    left = []
    for group in road:
        node = page.get_by_text(group, exact=True).filter(visible=True).last  # the first is in the list beside it
        expect(node).to_be_visible()
        box = node.bounding_box()
        assert box is not None
        left.append(box["x"])
    assert left == sorted(left), dict(zip(road, left, strict=True))
    kept(page, "graph")


def champion(servers: Servers) -> Release:
    """A version of an encoder with a report beside it, through the gate."""
    tracking = Tracking(uri=servers.mlflow, artifact_root=servers.home / "mlflow" / "artifacts")
    save_encoder(servers.home / ENCODER_FILE, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
    (servers.home / "report.html").write_text("<h1>Verdict of the page</h1>")
    packaged = packaged_encoder(servers.home / ENCODER_FILE)
    release = release_packaged(
        packaged,
        Scores(),
        provenance={},
        recipe={"steps": 1},
        git_commit="0" * 40,
        tracking=tracking,
        artifacts=[servers.home / "report.html"],
    )
    serving = serves(release, packaged, tracking=tracking)
    first = Finding.passed("there was no champion")
    verdict = judge(first, against=None, training=Finding.passed("fell"), serving=serving, config=GateConfig())
    return promote(record(release, verdict, tracking=tracking), tracking=tracking)


def mlflow_shows_the_run_its_curves_and_the_model(page: Page, servers: Servers) -> None:
    client = Tracking(uri=servers.mlflow).client()
    (experiment,) = [one for one in client.search_experiments() if one.name == "pretrain"]
    (run,) = client.search_runs([experiment.experiment_id])
    page.goto(servers.mlflow)
    page.get_by_text("Model training", exact=True).click()
    page.goto(f"{servers.mlflow}/#/experiments")
    page.get_by_text("pretrain", exact=True).first.click()
    page.get_by_text(run.info.run_name or "", exact=True).first.click()
    page.get_by_text("Model metrics").first.click()
    expect(page.get_by_text("effective_rank").filter(visible=True).first).to_be_visible()
    kept(page, "curves")

    held = champion(servers)
    page.goto(f"{servers.mlflow}/#/models/{held.name}")
    expect(page.get_by_text("Raw 12-lead ECGs in millivolt").first).to_be_visible()
    expect(page.get_by_text("champion").filter(visible=True).first).to_be_visible()
    page.get_by_text("Version 1", exact=True).first.click()
    expect(page.get_by_text("Promoted. There was no champion.").first).to_be_visible()
    expect(page.get_by_text("no_label_lost").filter(visible=True).first).to_be_visible()
    kept(page, "model")
    release = client.get_run(held.run_id)
    page.goto(f"{servers.mlflow}/#/experiments/{release.info.experiment_id}/runs/{held.run_id}/artifacts")
    page.get_by_text("report.html", exact=True).first.click()
    expect(page.frame_locator("iframe").get_by_text("Verdict of the page")).to_be_visible()
    kept(page, "artifacts")


def test_what_people_click(page: Page, servers: Servers):
    """One after another, on the same servers: each goes on from what the one before it made."""
    a_partition_then_a_backfill_of_three(page, servers)
    an_asset_then_a_job_with_a_changed_setting_whose_check_fails(page, servers)
    the_schedule_is_switched_on(page, servers)
    the_graph_reads_from_left_to_right(page, servers)
    mlflow_shows_the_run_its_curves_and_the_model(page, servers)
    assert not servers.unseen(), "each asset shows a picture"
