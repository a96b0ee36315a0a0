"""What docs/ui.md tells people to click: `make ui` in a real Chromium, on a tiny simulated mirror."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from orchestration.links import links
from pipelines.encoders.names import ENCODER_FILE
from pipelines.finding import Finding
from pipelines.home import Home
from pipelines.release.aliases import promote
from pipelines.release.gate import GateConfig, judge
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import packaged_encoder, serves
from pipelines.release.registry import record, release_packaged
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.support.paths import ROOT
from tests.ui.hand import Hand, italics

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
    pytest.mark.timeout(2400),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium"),
]


@dataclass(frozen=True)
class Servers:
    dagster: str
    mlflow: str
    home: Path
    mirror: Path

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
    sizes = MirrorSizes(chapman=(60,), code15=(), ptbxl=(20, 20), cpsc2018=(), georgia=(), ludb=0)
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
            found = Servers(f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}", home, root / "mirror")
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
    deadline = time.monotonic() + 600
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def a_run_of_the_demo_is_on_the_timeline_and_under_its_job(hand: Hand, servers: Servers) -> None:
    demo = "from orchestration.demo import *; run('harvest_chapman', open_instance(Home.default()), partition='01')"
    environment = {**os.environ, "ECG_HOME": str(servers.home), "ECG_MIRROR": str(servers.mirror)}
    subprocess.run([sys.executable, "-c", demo], check=True, env=environment, cwd=ROOT)
    hand.page.goto(servers.dagster)
    hand.go("Overview")
    hand.sees("harvest_chapman")
    hand.keep("timeline", height=420)
    hand.open_job("harvest_chapman")
    hand.press("Runs")
    (run,) = servers.runs()
    hand.sees(run["runId"][:8])


def the_graph_reads_from_left_to_right(hand: Hand, servers: Servers) -> None:
    hand.go("Lineage")
    road = ("download", "harmonize", "corpus", "pretrain", "evaluate", "release", "compare")
    left = []
    for group in road:
        node = hand.page.get_by_text(group, exact=True).filter(visible=True).last  # the first is in the list beside it
        expect(node).to_be_visible()
        box = node.bounding_box()
        assert box is not None
        left.append(box["x"])
    assert left == sorted(left), dict(zip(road, left, strict=True))
    hand.keep("graph")


def choose_partitions(hand: Hand, *names: str) -> None:
    hand.page.get_by_text("Select a partition or create one").or_(
        hand.page.get_by_placeholder("Select a partition")
    ).first.click()
    for name in names:
        hand.page.get_by_text(name, exact=True).filter(visible=True).last.click()
    hand.page.keyboard.press("Escape")


def a_partition_of_an_asset(hand: Hand, servers: Servers) -> None:
    hand.open_asset("raw/ptbxl")
    hand.button("Materialize...").click()
    choose_partitions(hand, "00000")
    hand.button("Launch 1 run").click()
    until(lambda: servers.partitions("raw/ptbxl") == {"00000"}, "the partition that was chosen, and no other")


def a_job_with_partitions_and_settings(hand: Hand, servers: Servers) -> None:
    hand.open_job("harvest_ptbxl")
    hand.button("Materialize all...").click()
    choose_partitions(hand, "00000", "01000")
    hand.keep("partitions")
    hand.press("Config")
    hand.press("Add config")
    typed(hand, "ops:\n  ecgs__ptbxl:\n    config:\n      amplitude: 20.0\n")
    hand.press("Save config")
    hand.button("Launch backfill").click()
    until(lambda: len(servers.partitions("ecgs/ptbxl")) == 2, "two partitions")
    query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status numPartitions } } } }"

    def backfills() -> list[int]:
        found = servers.graphql(query)["partitionBackfillsOrError"]["results"]
        return [one["numPartitions"] for one in found if one["status"] in ("COMPLETED", "COMPLETED_SUCCESS")]

    until(lambda: 2 in backfills(), "a backfill of two")


def the_page_of_an_asset(hand: Hand, servers: Servers) -> None:
    hand.open_asset("ecgs/ptbxl")
    expect(
        hand.page.get_by_text("missing samples").or_(hand.page.get_by_text("Nothing was dropped")).first
    ).to_be_visible()
    hand.words("Show Markdown", exact=False).first.click()
    expect(hand.page.locator("img[src^='data:image/png']").first).to_be_visible()
    hand.keep("asset")
    hand.page.keyboard.press("Escape")


def the_corpus_by_its_button(hand: Hand, servers: Servers) -> None:
    hand.open_asset("corpus")
    hand.button("Materialize").click()
    hand.sees("Are you sure?")  # not all sources are here
    hand.press("Confirm")
    until(lambda: servers.partitions("corpus") == {None}, "the corpus, by its button")


def typed(hand: Hand, config: str) -> None:
    """Put a config in place of what the editor has."""
    editor = hand.page.locator(".CodeMirror").filter(visible=True).last
    editor.click()
    hand.page.keyboard.press("Control+A")
    hand.page.keyboard.insert_text(config)


def in_the_form(changes: Mapping[str, object], recipe: str = "demo") -> str:
    lines = "".join(f"\n        {name}: {value}" for name, value in changes.items())
    return f"ops:\n  encoder:\n    config:\n      recipe: {recipe}\n      device: cpu\n      changes:{lines}"


def a_job_whose_wrong_settings_are_refused_and_whose_check_fails(hand: Hand, servers: Servers) -> None:
    hand.open_job("train_and_release")
    menu = hand.button("Materialize all").bounding_box()
    assert menu is not None
    hand.page.mouse.click(menu["x"] + menu["width"] + 14, menu["y"] + menu["height"] / 2)  # the arrow
    hand.press("Open launchpad")
    hand.press("Confirm")
    editor = hand.page.locator(".CodeMirror").filter(visible=True).last
    for default in ("ops:", "corpus:", "base: champion", "changes: {}"):
        expect(editor).to_contain_text(default)
    for wrong, refusal in (
        (in_the_form({"stepz": 1}), 'unexpected config entry "stepz"'),
        (in_the_form({"steps": "many"}), 'expected type "Int"'),
        (in_the_form({"steps": 1}, recipe="huge"), "got huge"),
    ):
        typed(hand, wrong)
        hand.sees("Errors")
        hand.sees(re.compile(refusal))
        expect(hand.button("Materialize")).to_be_disabled()
    for wrong, refusal in (({"batch": 0}, "changes.batch=0"), ({"jepa.encoder.dim": 97}, "use a multiple of heads=2")):
        typed(hand, in_the_form(wrong))
        hand.sees("No errors")
        hand.button("Materialize").click()
        hand.sees(re.compile(refusal))
        hand.press("OK")
    typed(hand, in_the_form(ONE_STEP) + "\n        ")
    hand.sees("No errors")
    hand.sees(re.compile("Length in updates, .* Unchanged: 500 .demo."))
    hand.keep("launchpad")
    hand.button("Materialize").click()
    until(lambda: servers.runs("FAILURE"), "the run ends where a check fails")
    hand.page.goto(servers.dagster)
    hand.open_asset("encoder")
    hand.press("Checks")
    hand.sees("Failed")
    hand.sees(re.compile(r"loss 0\.\d+ -> 0\.\d+.*the loss did not fall, train"))
    hand.keep("failed-check")
    assert not servers.partitions("released_encoder"), "nothing was released"


def the_schedule_is_switched_on(hand: Hand, servers: Servers) -> None:
    hand.go("Automation")
    row = hand.page.get_by_text("weekly_retraining", exact=True).locator("xpath=ancestor::*[.//input][1]")
    expect(row).to_be_visible()
    hand.keep("automation", height=660)
    row.locator("label[class*=formatSwitch]").click()
    query = '{ schedulesOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: '
    query += '"ecg-foundry"}) { ... on Schedules { results { name scheduleState { status } } } } }'

    def on() -> bool:
        found = servers.graphql(query)["schedulesOrError"]["results"]
        return {one["name"]: one["scheduleState"]["status"] for one in found}["weekly_retraining"] == "RUNNING"

    until(on, "the schedule is on")


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


def mlflow_shows_the_run_its_curves_and_the_model(hand: Hand, servers: Servers) -> None:
    client = Tracking(uri=servers.mlflow).client()
    (experiment,) = [one for one in client.search_experiments() if one.name == "pretrain"]
    (run,) = client.search_runs([experiment.experiment_id])
    hand.page.goto(servers.mlflow)
    hand.go("Model training")
    hand.go("Experiments")
    hand.page.get_by_text("pretrain", exact=True).first.click()
    hand.page.get_by_text(run.info.run_name or "", exact=True).first.click()
    hand.go("Model metrics")
    expect(hand.page.get_by_text("effective_rank").filter(visible=True).first).to_be_visible()
    hand.page.get_by_role("button", name="Close").or_(hand.page.get_by_label("Close")).last.click()  # the assistant
    hand.keep("curves")

    held = champion(servers)
    hand.go("Model registry")
    hand.press("Try it now")
    hand.page.get_by_text(held.name, exact=True).first.click()
    hand.sees("Raw 12-lead ECGs in millivolt")
    expect(hand.page.get_by_text("champion").filter(visible=True).first).to_be_visible()
    hand.page.get_by_text("Version 1", exact=True).last.click()  # in the table; the page above links it, too
    hand.sees("Promoted. There was no champion.")
    hand.sees("no_label_lost")
    hand.keep("model")
    hand.page.goto(servers.mlflow)
    hand.go("Experiments")
    hand.page.get_by_text("ecg-foundry", exact=True).first.click()
    hand.page.get_by_text(client.get_run(held.run_id).info.run_name or "", exact=True).first.click()
    hand.go("Artifacts")
    hand.page.get_by_text("report.html", exact=True).first.click()
    expect(hand.page.frame_locator("iframe").get_by_text("Verdict of the page")).to_be_visible()
    hand.keep("artifacts")


def the_printed_links_open(hand: Hand, servers: Servers) -> None:
    found = links(Home(servers.home, str(servers.mirror)), servers.dagster, servers.mlflow)
    hand.page.goto(found["asset graph"])
    hand.sees("Global asset lineage")
    with sync_browser_page(hand.page) as fresh:  # which MLflow would show its pages for language models
        fresh.goto(found["champion of ecg-encoder"])
        expect(fresh.get_by_text("Promoted. There was no champion.").first).to_be_visible()
        expect(fresh.get_by_text("Model registry", exact=True).first).to_be_visible()


@contextmanager
def sync_browser_page(page: Page) -> Iterator[Page]:
    """A page of a browser that was never here."""
    assert page.context.browser is not None
    with page.context.browser.new_context() as context:
        yield context.new_page()


def test_what_people_click(page: Page, servers: Servers):
    """One after another, on the same servers: each goes on from what the one before it made."""
    hand = Hand(page)
    a_run_of_the_demo_is_on_the_timeline_and_under_its_job(hand, servers)
    the_graph_reads_from_left_to_right(hand, servers)
    a_partition_of_an_asset(hand, servers)
    a_job_with_partitions_and_settings(hand, servers)
    the_page_of_an_asset(hand, servers)
    the_corpus_by_its_button(hand, servers)
    a_job_whose_wrong_settings_are_refused_and_whose_check_fails(hand, servers)
    the_schedule_is_switched_on(hand, servers)
    mlflow_shows_the_run_its_curves_and_the_model(hand, servers)
    the_printed_links_open(hand, servers)
    assert not servers.unseen(), "each asset shows a picture"
    assert italics(ROOT / "docs" / "ui.md") - {"italics"} <= hand.said, "what the page tells people to click"
