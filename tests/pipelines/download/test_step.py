"""Partitions from a folder and from a server: verified, complete or refused with one message, then cached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from email.utils import formatdate
from pathlib import Path

import pytest

from pipelines.cache import Workspace
from pipelines.download.http import Retries
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.progress import DownloadProgress
from pipelines.download.step import download_partition, materialize_raw, raw_files
from pipelines.home import Home
from pipelines.records import Record
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer, cut, status, wrong
from tests.support.paths import SHARED

MIRROR = SHARED / "real" / "mirror"

real = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"no real records at {MIRROR}")

QUICK = Retries(attempts=3, first=0.001, longest=0.002)
CHAPMAN = SOURCES["chapman"]
ROOT = CHAPMAN.root


def small_mirror(folder: Path) -> Path:
    """A mirror of chapman with two partitions of a few files; their content does not matter here."""
    sums = []
    for leaf in ("01/010", "01/011", "02/020"):
        for n in range(3):
            for suffix in ("hea", "mat"):
                path = f"WFDBRecords/{leaf}/JS{leaf[:2]}{leaf[-3:]}{n}.{suffix}"
                data = f"{path}\n".encode() * 300
                (folder / ROOT / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / ROOT / path).write_bytes(data)
                sums.append(f"{hashlib.sha256(data).hexdigest()} {path}")
    (folder / ROOT / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    return folder


@pytest.fixture
def mirror(tmp_path) -> Path:
    return small_mirror(tmp_path / "mirror")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")  # locks, and the checksums of kept lists
    }


def check_whole_or_part(raw: Path, mirror: Path) -> None:
    """Every file in raw is the mirror's, or the beginning of one under the name of a partial file."""
    for name, data in tree(raw).items():
        if name.endswith(".part"):
            assert (mirror / name.removesuffix(".part")).read_bytes().startswith(data)
        else:
            assert (mirror / name).read_bytes() == data


@real
@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_mirror_is_read_in_place(name, tmp_path):
    source, mirror = SOURCES[name], Mirror.parse(str(MIRROR))
    listing = list_source(source, mirror)
    assert (source.available(listing) == []) == (name == "ptbxl100")
    for partition in source.available(listing)[:2]:
        manifest = download_partition(source, partition, mirror=mirror, raw_root=tmp_path / "raw")
        assert manifest.root == MIRROR.resolve()
        assert manifest.bytes == sum((MIRROR / file.path).stat().st_size for file in manifest.files)
        assert any(isinstance(item, Record) for item in source.read(manifest.root, partition, manifest.files))
    assert not (tmp_path / "raw").exists()


@real
@pytest.mark.parametrize(("name", "partition"), [("cpsc2018", "g2"), ("code15", "1")])
def test_a_url_mirror_gives_the_same_files(name, partition, tmp_path):
    source = SOURCES[name]
    with FaultServer(MIRROR) as server:
        mirror = Mirror.parse(server.url)
        assert partition in source.available(list_source(source, mirror))
        manifest = download_partition(source, partition, mirror=mirror, raw_root=tmp_path, retries=QUICK)
    for file in manifest.files:
        assert (tmp_path / file.path).read_bytes() == (MIRROR / file.path).read_bytes()
    # What was downloaded is itself a mirror folder with that one partition.
    again = Mirror.parse(str(tmp_path))
    assert source.available(list_source(source, again)) == [partition]
    assert download_partition(source, partition, mirror=again, raw_root=tmp_path / "unused").files == manifest.files


def test_mirrors_as_people_write_them(tmp_path):
    assert Mirror.parse(None) == Mirror.parse("") == Mirror(None)
    assert Mirror.parse("http://localhost:8000/").urls("zenodo.org/a b") == ("http://localhost:8000/zenodo.org/a%20b",)
    assert Mirror(None).urls("zenodo.org/a b") == ("https://zenodo.org/a%20b",)
    assert Mirror.parse(str(tmp_path)).folder == tmp_path.resolve()
    with pytest.raises(ValueError, match="no such folder"):
        Mirror.parse(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="names no host"):
        Mirror.parse("https:///x")
    with pytest.raises(ValueError, match="set NETRC to a file"):
        Mirror.parse("https://bob:s3cret@example.org")


def test_a_mirror_with_a_part_of_a_source(mirror):
    shutil.rmtree(mirror / ROOT / "WFDBRecords" / "01")
    here = Mirror.parse(str(mirror))
    listing = list_source(CHAPMAN, here)
    assert CHAPMAN.available(listing) == ["02"]
    assert len(listing) == 6
    assert list_source(SOURCES["ludb"], here) == []
    assert list_source(SOURCES["code15"], here) == []


def test_a_file_that_a_folder_mirror_lacks_is_named(mirror, tmp_path):
    (mirror / ROOT / "WFDBRecords/01/010/JS010101.mat").unlink()
    here = Mirror.parse(str(mirror))
    assert CHAPMAN.available(list_source(CHAPMAN, here)) == ["01", "02"]  # not left out in silence
    with pytest.raises(ValueError, match=r"WFDBRecords/01/010/JS010101\.mat is listed but not in .*\(1 missing\)"):
        download_partition(CHAPMAN, "01", mirror=here, raw_root=tmp_path / "raw")
    assert len(download_partition(CHAPMAN, "02", mirror=here, raw_root=tmp_path / "raw").files) == 6


def test_changed_files_of_a_folder_mirror_are_counted_and_the_first_is_named(mirror, tmp_path):
    for name in ("JS010101.mat", "JS010102.mat"):
        (mirror / ROOT / "WFDBRecords/01/010" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^2 of 12 files in .*JS010101\.mat .*fetch them into that folder again"):
        download_partition(CHAPMAN, "01", mirror=Mirror.parse(str(mirror)), raw_root=tmp_path / "raw")


def test_a_mirror_without_its_list(mirror, tmp_path):
    (mirror / ROOT / "SHA256SUMS.txt").unlink()
    here = Mirror.parse(str(mirror))
    with pytest.raises(ValueError, match=r"chapman: .* has no list of its files"):
        list_source(CHAPMAN, here)
    with pytest.raises(ValueError, match=r"SHA256SUMS\.txt.*fetch the list as well"):
        download_partition(CHAPMAN, "01", mirror=here, raw_root=tmp_path / "raw")
    with FaultServer(mirror) as server:
        assert list_source(CHAPMAN, Mirror.parse(server.url)) == []
        with pytest.raises(ValueError, match="has no list of its files"):
            download_partition(CHAPMAN, "01", mirror=Mirror.parse(server.url), raw_root=tmp_path / "raw")


def test_an_empty_partition_says_which_there_are(mirror, tmp_path):
    with pytest.raises(ValueError, match=r"partition 07 of chapman: .* it has 01, 02"):
        download_partition(CHAPMAN, "07", mirror=Mirror.parse(str(mirror)), raw_root=tmp_path)
    with pytest.raises(ValueError, match="partition '99' of chapman: use one of 01"):
        download_partition(CHAPMAN, "99", mirror=Mirror.parse(str(mirror)), raw_root=tmp_path)


@pytest.mark.parametrize("line", ["../../../../etc/cron.d/x", "/etc/cron.d/x", "WFDBRecords/01/010/../../x"])
def test_a_list_that_leads_elsewhere_is_refused(mirror, tmp_path, line):
    with (mirror / ROOT / "SHA256SUMS.txt").open("a") as stream:
        stream.write(f"{'0' * 64} {line}\n")
    before = tree(tmp_path)
    with FaultServer(mirror) as server, pytest.raises(ValueError, match="listed path"):
        download_partition(CHAPMAN, "01", mirror=Mirror.parse(server.url), raw_root=tmp_path / "raw")
    assert not (tmp_path / "raw" / ROOT / "SHA256SUMS.txt").exists()
    assert tree(tmp_path) == before


def test_a_partition_over_a_bad_line_is_the_undisturbed_one(mirror, tmp_path):
    paths = [f"{ROOT}/WFDBRecords/01/{leaf}/JS01{leaf}{n}.mat" for leaf in ("010", "011") for n in range(3)]
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        calm = download_partition(CHAPMAN, "01", mirror=here, raw_root=tmp_path / "calm", retries=QUICK)
        server.faults = {
            paths[0]: [cut(seed=1), cut(seed=2)],
            paths[1]: [wrong],
            paths[2]: [status(503), status(429)],
            paths[3]: [cut(after=0), status(500)],
            f"{ROOT}/SHA256SUMS.txt": [cut(seed=3), status(503)],
        }
        rough = download_partition(
            CHAPMAN, "01", mirror=here, raw_root=tmp_path / "rough", connections=4, retries=QUICK
        )
    assert rough.files == calm.files
    assert tree(tmp_path / "rough") == tree(tmp_path / "calm")


def test_a_failed_partition_leaves_whole_files_only_and_goes_on(mirror, tmp_path):
    path = f"{ROOT}/WFDBRecords/01/010/JS010101.mat"
    raw = tmp_path / "raw"
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        server.faults[path] = [cut(after=100)] + [cut(after=0)] * 5
        with pytest.raises(ConnectionError, match="resumes where it stopped"):
            download_partition(CHAPMAN, "01", mirror=here, raw_root=raw, connections=1, retries=QUICK)
        check_whole_or_part(raw, mirror)
        server.faults.clear()
        whole = [name for name in tree(raw) if name.endswith((".hea", ".mat"))]
        server.seen.clear()
        manifest = download_partition(CHAPMAN, "01", mirror=here, raw_root=raw, connections=1, retries=QUICK)
        # Nothing that was there comes again, and the partial file goes on.
        assert not {seen.path for seen in server.seen} & set(whole)
        assert server.requests(path)[0].range == "bytes=100-"
    assert len(manifest.files) == 12
    assert not [name for name in tree(raw) if name.endswith(".part")]


def test_a_damaged_file_that_is_there_is_fetched_again(mirror, tmp_path):
    raw = tmp_path / "raw"
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        manifest = download_partition(CHAPMAN, "02", mirror=here, raw_root=raw)
        (raw / manifest.files[0].path).write_bytes(b"x")
        assert download_partition(CHAPMAN, "02", mirror=here, raw_root=raw) == manifest
        assert len(server.requests(manifest.files[0].path)) == 2
        assert len(server.requests(manifest.files[1].path)) == 1


def test_a_file_that_a_url_mirror_lacks_is_named_and_nothing_is_half_written(mirror, tmp_path):
    (mirror / ROOT / "WFDBRecords/02/020/JS020201.mat").unlink()
    workspace = Workspace(tmp_path / "home")
    with FaultServer(mirror) as server, pytest.raises(ValueError, match=r"JS020201\.mat is listed but not in"):
        materialize_raw(workspace, CHAPMAN, "02", mirror=Mirror.parse(server.url), raw_root=tmp_path / "raw")
    assert workspace.current("raw/chapman/02") is None
    assert not list((tmp_path / "home").rglob("*.partial"))
    check_whole_or_part(tmp_path / "raw", mirror)


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_progress_ends_at_all_of_it(kind, mirror, tmp_path):
    told: list[DownloadProgress] = []
    with FaultServer(mirror) as server:
        place = str(mirror) if kind == "folder" else server.url
        manifest = download_partition(
            CHAPMAN, "01", mirror=Mirror.parse(place), raw_root=tmp_path / "raw", progress=told.append
        )
    fetched = manifest.bytes if kind == "url" else 0
    assert told[-1] == DownloadProgress(files=12, of_files=12, bytes=manifest.bytes, of_bytes=None, fetched=fetched)
    assert [p.files for p in told] == sorted(p.files for p in told)


def test_two_at_once_on_one_partition(mirror, tmp_path):
    results = []
    with FaultServer(mirror) as server:

        def work() -> None:
            here = Mirror.parse(server.url)
            results.append(download_partition(CHAPMAN, "01", mirror=here, raw_root=tmp_path / "raw", retries=QUICK))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 3
        assert results[0] == results[1] == results[2]
        paths = [seen.path for seen in server.seen if "WFDBRecords" in seen.path]
        assert len(paths) == len(set(paths)) == 12


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_the_raw_product(kind, mirror, tmp_path):
    workspace, raw = Workspace(tmp_path / "home"), tmp_path / "raw"
    with FaultServer(mirror) as server:
        here = Mirror.parse(str(mirror) if kind == "folder" else server.url)
        built = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
        assert not built.cached
        assert built.facts == {"files": 6, "bytes": sum(len(v) for k, v in tree(mirror).items() if "/02/" in k)}
        root, files = raw_files(built)
        assert root == (mirror if kind == "folder" else raw).resolve()
        assert [set(entry) for entry in json.loads((built.path / "files.json").read_text())] == [
            {"path", "checksum", "bytes"}
        ] * 6
        again = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
        assert again.cached
        assert again.digest == built.digest
        # A file that is gone: the product says so, and is built again.
        data = (root / files[0].path).read_bytes()
        (root / files[0].path).unlink()
        with pytest.raises(ValueError, match=r"raw/chapman/02: 1 of 6 files .* materialize it again"):
            raw_files(built)
        if kind == "folder":
            (root / files[0].path).write_bytes(data)
        once_more = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
        assert once_more.cached == (kind == "folder")
        assert once_more.digest == built.digest
        assert raw_files(once_more) == (root, files)


def test_the_digest_does_not_depend_on_where_the_files_are(mirror, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(mirror, other)
    with FaultServer(mirror) as server:
        digests = {
            materialize_raw(
                Workspace(tmp_path / str(n)), CHAPMAN, "01", mirror=Mirror.parse(place), raw_root=tmp_path / "raw"
            ).digest
            for n, place in enumerate((str(mirror), str(other), server.url))
        }
    assert len(digests) == 1


@pytest.mark.parametrize("text", ["http://", "https:///path", "http://localhost:abc", "http://[bad", "http://host:0"])
def test_a_url_that_is_none_is_refused_with_the_form_it_should_have(text, tmp_path):
    for refuse in (Mirror.parse, Home(tmp_path).set_mirror):
        with pytest.raises(ValueError, match=r"mirror .*write it as https://host/path"):
            refuse(text)


def test_one_materialization_reads_the_list_once_and_a_finished_one_needs_no_network(mirror, tmp_path):
    workspace, raw = Workspace(tmp_path / "home"), tmp_path / "raw"
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        built = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
        assert len(server.requests(f"{ROOT}/SHA256SUMS.txt")) == 1
        server.seen.clear()
        assert materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw).cached
        assert server.seen == []
    again = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
    assert again.cached
    assert again.digest == built.digest
    # A kept list that was changed here is not believed: the host is asked, and what is here stays what it is.
    with (raw / ROOT / "SHA256SUMS.txt").open("a") as stream:
        stream.write(f"{'0' * 64} WFDBRecords/02/020/JS1.hea\n")
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        assert materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw).cached
        assert [seen.path for seen in server.seen] == [f"{ROOT}/SHA256SUMS.txt"]


def test_a_list_that_grew_is_noticed_when_it_is_fetched(mirror, tmp_path):
    workspace, raw = Workspace(tmp_path / "home"), tmp_path / "raw"
    with FaultServer(mirror) as server:
        here = Mirror.parse(server.url)
        first = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
        path = mirror / ROOT / "WFDBRecords/02/020/JS999.hea"
        path.write_bytes(b"new")
        sums = mirror / ROOT / "SHA256SUMS.txt"
        sums.write_text(sums.read_text() + f"{hashlib.sha256(b'new').hexdigest()} WFDBRecords/02/020/JS999.hea\n")
        os.utime(sums, (4e9, 4e9))
        assert len(list_source(CHAPMAN, here, raw_root=raw)) == 19
        second = materialize_raw(workspace, CHAPMAN, "02", mirror=here, raw_root=raw)
    assert not second.cached
    assert second.facts["files"] == first.facts["files"] + 1


@pytest.mark.parametrize("bucket_has", ["all", "nothing", "an empty list", "the list alone"])
def test_the_bucket_is_tried_first_and_the_web_server_if_it_has_nothing(bucket_has, mirror, tmp_path, monkeypatch):
    """The original hosts, in their order, here on loopback."""
    web, bucket = tmp_path / "web", tmp_path / "bucket"
    shutil.copytree(mirror / "physionet.org", web)
    if bucket_has == "all":
        shutil.copytree(mirror / "physionet.org" / "files", bucket)
    elif bucket_has != "nothing":
        sums = bucket / ROOT.removeprefix("physionet.org/files/") / "SHA256SUMS.txt"
        sums.parent.mkdir(parents=True)
        sums.write_bytes(b"" if bucket_has == "an empty list" else (mirror / ROOT / "SHA256SUMS.txt").read_bytes())
    with FaultServer(web) as second, FaultServer(bucket) as first:
        addresses = (("physionet.org/files/", (f"{first.url}/", f"{second.url}/files/")),)
        monkeypatch.setattr("pipelines.sources.base.ADDRESSES", addresses)
        manifest = download_partition(
            CHAPMAN, "01", mirror=Mirror(None), raw_root=tmp_path / "raw", connections=2, retries=QUICK
        )
        assert first.seen[0].path.endswith("SHA256SUMS.txt")
        asked = [seen.path for seen in first.seen if "WFDBRecords" in seen.path]
    for file in manifest.files:
        assert (tmp_path / "raw" / file.path).read_bytes() == (mirror / file.path).read_bytes()
    assert bool(second.seen) == (bucket_has != "all")
    # A bucket without the project is found out once for each connection, not for each file.
    assert len(asked) == 12 if bucket_has == "all" else len(asked) <= 2


def test_a_page_that_came_for_a_list_is_not_kept(mirror, tmp_path):
    """A proxy's page, dated today, in place of a list of years ago: the host would answer that nothing is newer."""

    def page(handler, data):
        today = {"Last-Modified": formatdate(usegmt=True)}
        handler.answer(200, b"<html>please log in</html>\n", today)
        return True

    sums, raw = f"{ROOT}/SHA256SUMS.txt", tmp_path / "raw"
    os.utime(mirror / sums, (1e9, 1e9))
    with FaultServer(mirror, faults={sums: [page]}) as server:
        here = Mirror.parse(server.url)
        with pytest.raises(ValueError, match="html"):
            list_source(CHAPMAN, here, raw_root=raw)
        assert not (raw / sums).exists()
        assert len(list_source(CHAPMAN, here, raw_root=raw)) == 18
