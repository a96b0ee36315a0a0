"""Raw files over the network, deleted after harmonization, through Dagster."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import defs
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror


class Handler(SimpleHTTPRequestHandler):
    def __init__(self, seen: list[str], *args, **kwargs) -> None:
        self._seen = seen
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self._seen.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """The test looks at what was seen."""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a folder, and the paths that are asked for."""
    seen: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, seen, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def materialize(*keys: str, config: dict | None = None) -> dict[str, bool]:
    """Whether each asset of chapman 01 was cached."""
    assets = [defs.get_assets_def(dg.AssetKey([kind, "chapman"])) for kind in keys]
    result = dg.materialize(
        assets, partition_key="01", resources=defs.resources, run_config={"ops": config or {}}, selection=assets
    )
    assert result.success
    events = result.get_asset_materialization_events()
    return {
        event.materialization.asset_key.path[0]: bool(event.materialization.metadata["cached"].value)
        for event in events
    }


def test_deleted_files_stay_away_until_they_are_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = write_mirror(
        tmp_path / "mirror", sizes=MirrorSizes(chapman=(8,), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
    ).path
    with served(mirror) as (url, seen):
        monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("ECG_MIRROR", url)
        raw = Home.default().raw_root
        deleting = {"ecgs__chapman": {"config": {"keep_raw": False}}}
        assert materialize("raw", "ecgs", config=deleting) == {"raw": False, "ecgs": False}
        assert not list(raw.rglob("*.mat"))
        seen.clear()
        assert materialize("raw", "ecgs", config=deleting) == {"raw": True, "ecgs": True}
        assert seen == []
        assert materialize("raw", config={"raw__chapman": {"config": {"bring_back": True}}}) == {"raw": False}
        assert len(list(raw.rglob("*.mat"))) == 8
