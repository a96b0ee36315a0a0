"""Own ECGs in a bucket: an S3 server on loopback is listed, fetched from, and becomes unavailable."""

import json
import logging
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import dagster as dg
import httpx
import numpy as np
import obstore
import obstore.store
import pytest
from moto.server import ThreadedMotoServer

from assets.resources import DataHome
from assets.sources import incoming_drops
from ecg_model.leads import LEADS_12
from orchestration.definitions import defs
from orchestration.sensors import incoming_sensor
from pipelines.download.step import recorded_files
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import HOSTS, Home
from pipelines.incoming import INCOMING
from pipelines.incoming import bucket as bucket_module
from pipelines.incoming.bucket import BucketOfDrops, place_of
from pipelines.incoming.listing import MARKER, complete_drops, misnamed_drops
from pipelines.incoming.step import alone, fetched_to, materialize_drop
from pipelines.incoming.withdraw import withdraw_drop
from pipelines.maintenance.garbage import remove, unreferenced

URL = "s3://ward/ecgs/incoming"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with the bucket `ward`; the environment has its keys."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "ECG_INCOMING": URL,
    }.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{address}/moto-api/reset")
    httpx.put(f"{address}/ward").raise_for_status()
    yield address
    moto.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ECG_MIRROR", raising=False)
    found = Home.default()
    found.set_mirror(HOSTS)
    return found


def bucket() -> obstore.store.ObjectStore:
    return obstore.store.from_url(URL, client_options={"allow_http": True})


def put(key: str, content: bytes = b"") -> None:
    obstore.put(bucket(), key, content)


def put_drop(tmp_path: Path, name: str, *, seed: int = 0, marked: bool = True) -> None:
    """Four ECGs with their description; the marker last."""
    np.save(tmp_path / "a.npy", np.random.default_rng(seed).normal(0, 0.3, (4, 12, 5000)).astype("f4"))
    said = {"rate": 500, "leads": LEADS_12, "units": "mV", "ids": [f"{name}-{at}" for at in range(4)]}
    put(f"{name}/ecgs/a.npy", (tmp_path / "a.npy").read_bytes())
    put(f"{name}/ecgs/a.json", json.dumps(said).encode())
    if marked:
        put(f"{name}/{MARKER}")


def test_drops_are_told_by_their_keys(server, home, tmp_path):
    place = place_of(home.incoming)
    assert (str(place), complete_drops(place)) == (URL, [])
    put_drop(tmp_path, "monday", marked=False)
    put("a drop/x.npy", b"x")
    put("loose.npy", b"x")
    assert complete_drops(place) == []
    assert misnamed_drops(place) == ["a drop"]
    for folder in ("", "monday/", "monday/ecgs/"):  # as a store's console makes them
        httpx.put(f"{server}/ward/ecgs/incoming/{folder}").raise_for_status()
    put(f"monday/{MARKER}")
    put("monday/.hidden", b"x")
    (found,) = complete_drops(place)
    assert [file.path for file in found.listing.files] == ["ecgs/a.json", "ecgs/a.npy"]
    assert not found.listing.refused
    put("monday/ecgs/a:1.npy", b"x")
    assert [one.path for one in complete_drops(place)[0].listing.refused] == ["ecgs/a:1.npy"]
    put("monday/ecgs", b"x")
    assert [one.path for one in complete_drops(place)[0].listing.refused] == ["ecgs", "ecgs/a:1.npy"]


def test_a_drop_is_taken_and_harmonized_and_fetched_again_if_its_tags_changed(server, home, tmp_path, monkeypatch):
    put_drop(tmp_path, "monday")
    fetched: list[str] = []
    get = obstore.get
    monkeypatch.setattr(obstore, "get", lambda store, path: fetched.append(path) or get(store, path))
    taken = materialize_drop(home, "monday")
    root, files = recorded_files(taken)
    assert [file.path for file in files] == ["ecgs/a.json", "ecgs/a.npy"]
    assert (root / "ecgs/a.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    assert not fetched_to(home.raw_root, "monday").exists()
    kept = materialize_ecgs(home.workspace(), INCOMING, "monday", limits=QualityLimits())
    assert kept.facts["kept"] == 4

    assert sorted(fetched) == ["monday/ecgs/a.json", "monday/ecgs/a.npy"]
    assert materialize_drop(home, "monday").cached
    assert len(fetched) == 2, "unchanged, it is not fetched"
    (root / "ecgs/a.npy").write_bytes(b"damaged")
    assert materialize_drop(home, "monday").digest == taken.digest
    assert (root / "ecgs/a.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    put_drop(tmp_path, "monday", seed=1)
    assert materialize_drop(home, "monday").digest != taken.digest

    obstore.delete(bucket(), f"monday/{MARKER}")
    with pytest.raises(ValueError, match=f"{URL}/monday: {MARKER} is not there"):
        materialize_drop(home, "monday")
    obstore.delete(bucket(), ["monday/ecgs/a.npy", "monday/ecgs/a.json"])
    assert materialize_drop(home, "monday").cached, "what was taken stays when the bucket is emptied"
    assert withdraw_drop(home, "monday")
    with pytest.raises(ValueError, match="no such drop"):
        materialize_drop(home, "monday")


def test_the_same_bytes_under_other_tags_are_fetched_once_more_and_never_again(server, home, tmp_path, monkeypatch):
    put_drop(tmp_path, "monday")
    taken = materialize_drop(home, "monday")
    fetched: list[str] = []
    get, version = obstore.get, bucket_module._version
    monkeypatch.setattr(obstore, "get", lambda store, path: fetched.append(path) or get(store, path))
    monkeypatch.setattr(bucket_module, "_version", lambda meta: f"{version(meta)}-2")  # as of an upload in other parts
    for _ in range(2):
        assert materialize_drop(home, "monday").digest == taken.digest
        assert len(fetched) == 2


def test_two_that_take_one_drop_fetch_it_once(server, home, tmp_path, monkeypatch):
    put_drop(tmp_path, "monday")
    fetched: list[str] = []
    get = obstore.get

    def slow(store, path):
        fetched.append(path)
        time.sleep(0.3)
        return get(store, path)

    monkeypatch.setattr(obstore, "get", slow)
    with ThreadPoolExecutor(3) as pool:
        taken = [one.result() for one in [pool.submit(materialize_drop, home, "monday") for _ in range(3)]]
    assert sorted(fetched) == ["monday/ecgs/a.json", "monday/ecgs/a.npy"]
    assert sorted(one.cached for one in taken) == [False, True, True]


def test_a_fetched_drop_needs_its_size_once(server, home, tmp_path, monkeypatch):
    put_drop(tmp_path, "monday")
    size = sum(file.bytes for file in place_of(home.incoming).listing("monday").files)
    usage = shutil.disk_usage

    def disk(path):
        there = sum(file.stat().st_size for file in home.root.rglob("*") if file.is_file())
        return usage(path)._replace(free=int(1.5 * size) - there)

    monkeypatch.setattr(shutil, "disk_usage", disk)
    assert not materialize_drop(home, "monday").cached


def test_what_a_fetch_that_failed_has_left_is_collected_or_withdrawn(server, home, tmp_path, monkeypatch):
    for name in ("monday", "tuesday"):
        put_drop(tmp_path, name)
        get = obstore.get
        with monkeypatch.context() as patch:
            patch.setattr(obstore, "get", lambda store, path, get=get: get(store, path.replace(".npy", ".json")))
            with pytest.raises(ValueError, match="changed while it was fetched"):
                materialize_drop(home, name)
        assert fetched_to(home.raw_root, name).is_dir()
    (left,) = [one for one in unreferenced(home, ())[0] if one.path == fetched_to(home.raw_root, "monday")]
    with alone(home.workspace(), "monday"):
        assert not remove(home, left)
    assert remove(home, left)
    assert not left.path.exists()
    home.set_mirror(str(tmp_path))  # it was in the space of before
    assert withdraw_drop(home, "tuesday")
    home.set_mirror(HOSTS)
    assert not fetched_to(home.raw_root, "tuesday").exists()


def test_an_odd_key_beside_the_drops_is_named(server, home, tmp_path):
    put_drop(tmp_path, "monday")
    httpx.put(f"{server}/ward/ecgs/incoming//x", content=b"x").raise_for_status()
    with pytest.raises(ValueError, match=f"{URL}: .*give the object another key"):
        place_of(home.incoming).names()


def test_what_was_fetched_before_a_kill_is_not_fetched_again(server, home, tmp_path, monkeypatch):
    put_drop(tmp_path, "monday")
    get, fetched = obstore.get, []

    def killed_at_the_second(store, path):
        fetched.append(path)
        if path.endswith(".npy"):
            raise KeyboardInterrupt
        return get(store, path)

    monkeypatch.setattr(obstore, "get", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        materialize_drop(home, "monday")
    monkeypatch.setattr(obstore, "get", lambda store, path: fetched.append(path) or get(store, path))
    assert not materialize_drop(home, "monday").cached
    assert sorted(fetched) == ["monday/ecgs/a.json", "monday/ecgs/a.npy", "monday/ecgs/a.npy"]


def test_a_file_that_changes_while_it_is_fetched_is_not_taken(server, home, tmp_path):
    put_drop(tmp_path, "monday")
    place = place_of(home.incoming)
    listing = place.listing("monday")
    put_drop(tmp_path, "monday", seed=1)
    with pytest.raises(ValueError, match=r"monday/ecgs/a\.npy: changed while it was fetched"):
        place.fetch("monday", listing, tmp_path / "here")
    assert not list((tmp_path / "here").rglob("*.npy"))


def test_the_sensor_requests_each_drop_of_the_bucket_once(server, home, tmp_path):
    put_drop(tmp_path, "monday")
    put_drop(tmp_path, "tuesday", marked=False)
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> dg.SensorResult | dg.SkipReason:
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, definitions=defs, resources={"data_home": DataHome()}
            )
            return incoming_sensor(context)

        first = tick(None)
        assert [request.partition_key for request in first.run_requests] == ["monday"]
        assert first.dynamic_partitions_requests[0].partitions_def_name == incoming_drops.name
        assert f"1 complete drops in {URL}" in tick(first.cursor).skip_reason.skip_message
        assert tick(None).run_requests[0].run_key == first.run_requests[0].run_key
        put_drop(tmp_path, "monday", seed=1)
        assert tick(first.cursor).run_requests[0].run_key != first.run_requests[0].run_key


def test_a_store_without_its_settings_is_a_mistake_in_one_line(monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"az://ward/x: .*check the settings in the environment") as wrong:
        place_of("az://ward/x")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("url", ["ftp://ward/x", "s3://", "https://ward/x", "file:///tmp"])
def test_a_place_that_is_no_bucket_is_refused(url):
    with pytest.raises(ValueError, match=r"ECG_INCOMING .*give a folder, or s3://BUCKET/PREFIX"):
        place_of(url)


def test_a_bucket_that_is_not_there_or_does_not_answer_says_so_in_one_line(server, monkeypatch):
    with pytest.raises(ValueError, match=r"s3://nobody/x: .*check the bucket's name") as wrong:
        BucketOfDrops("s3://nobody/x").names()
    assert "\n" not in str(wrong.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("pipelines.incoming.bucket.TRIES", 1)
    with pytest.raises(OSError, match="s3://ward/x: ") as away:
        BucketOfDrops("s3://ward/x").names()
    assert "\n" not in str(away.value)
    monkeypatch.setattr("pipelines.incoming.bucket.SILENCE", timedelta(seconds=0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OSError, match="s3://ward/x: "):
            BucketOfDrops("s3://ward/x").names()
