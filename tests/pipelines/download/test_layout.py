"""Mirror folders as people have them: found where their names tell the version, else named with what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipelines.download.layout import Layout
from pipelines.download.mirror import Mirror, absent, list_source
from pipelines.download.step import download_partition, materialize_raw, raw_files
from pipelines.download.unread import unread_records
from pipelines.home import Home
from pipelines.sources import SOURCES
from tests.pipelines.download.test_step import ROOT, small_mirror, tree
from tests.support.commands import ecg
from tests.support.paths import SHARED

CHAPMAN = SOURCES["chapman"]
ZIP = f"{CHAPMAN.archive}-1.0.0"
CASE = SHARED / "cases" / "mirror_as_unzipped"


def mirror_at(folder: Path, project: str) -> Path:
    """A mirror of chapman whose project lies in a folder of another name."""
    small_mirror(folder.parent / "as-wget-has-it")
    (folder / project).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder.parent / "as-wget-has-it" / ROOT, folder / project)
    return folder


def refusal(folder: Path) -> str:
    mirror = Mirror.parse(str(folder))
    assert list_source(CHAPMAN, mirror) == []
    with pytest.raises(ValueError, match="chapman: the mirror") as error:
        download_partition(CHAPMAN, "01", mirror=mirror, raw_root=folder.parent / "raw")
    return str(error.value)


@pytest.mark.parametrize(
    ("project", "given"),
    [
        (ZIP, ""),
        (ZIP, ZIP),
        (f"{ZIP}/{ZIP}", ""),
        (f"data/public/{ZIP}", ""),
        ("ecg-arrhythmia/1.0.0", ""),
        ("ecg-arrhythmia/1.0.0", "ecg-arrhythmia"),
        ("ecg-arrhythmia/1.0.0", "ecg-arrhythmia/1.0.0"),
        ("ecg-arrhythmia-1.0.0", ""),
        (ROOT, "physionet.org"),
        (ROOT, "physionet.org/files"),
        (ROOT, ROOT),
        (f"a/b/{ROOT}", ""),
        (f"a/b/{ROOT}", "a"),
    ],
)
def test_a_project_is_found_wherever_its_name_tells_its_version(project: str, given: str, tmp_path: Path) -> None:
    folder = mirror_at(tmp_path / "mirror", project)
    before = tree(folder)
    expected = download_partition(
        CHAPMAN, "01", mirror=Mirror(small_mirror(tmp_path / "usual")), raw_root=tmp_path / "none"
    )
    mirror = Mirror.parse(str(folder / given))
    assert CHAPMAN.available(list_source(CHAPMAN, mirror)) == ["01", "02"]
    found = download_partition(CHAPMAN, "01", mirror=mirror, raw_root=tmp_path / "raw")
    assert found.files == expected.files
    for file in found.files:
        assert (found.root / file.path).read_bytes() == (expected.root / file.path).read_bytes()
    assert tree(folder) == before, "a mirror is never written to"


def test_the_product_is_the_same_and_follows_the_mirror_when_it_is_put_right(home: Home, tmp_path: Path) -> None:
    def product():
        mirror = Mirror.parse(home.mirror)
        return materialize_raw(home.workspace(), CHAPMAN, "02", mirror=mirror, raw_root=home.raw_root)

    folder = mirror_at(tmp_path / "mirror", ZIP)
    home.set_mirror(str(folder))
    unpacked = product()
    assert product().cached
    verified = ecg("verify", "chapman")
    assert verified.exit_code == 0, verified.output
    (folder / ROOT).parent.mkdir(parents=True)
    shutil.move(folder / ZIP, folder / ROOT)
    put_right = product()
    assert (put_right.fingerprint, put_right.digest) == (unpacked.fingerprint, unpacked.digest)
    assert raw_files(put_right)[0] == folder


def test_a_changed_file_of_an_unpacked_zip_is_refused(tmp_path: Path) -> None:
    folder = mirror_at(tmp_path / "mirror", ZIP)
    (folder / ZIP / "WFDBRecords/01/010/JS010101.mat").write_bytes(b"of another version")
    with pytest.raises(ValueError, match=r"^1 of 12 files in .*are not what their source lists, first .*JS010101\.mat"):
        download_partition(CHAPMAN, "01", mirror=Mirror.parse(str(folder)), raw_root=tmp_path / "raw")


def test_two_copies_of_a_project_are_named(tmp_path: Path) -> None:
    folder = mirror_at(tmp_path / "mirror", ZIP)
    shutil.copytree(folder / ZIP, folder / "ecg-arrhythmia" / "1.0.0")
    with pytest.raises(ValueError, match=rf"several places .*{ZIP}.*ecg-arrhythmia/1\.0\.0.*: keep one of them"):
        list_source(CHAPMAN, Mirror.parse(str(folder)))
    (folder / "again").symlink_to(folder / ZIP)
    shutil.rmtree(folder / "ecg-arrhythmia")
    assert Layout(CHAPMAN, folder).place().files == folder / ZIP, "a link to it is no second copy"


@pytest.mark.parametrize(
    ("project", "told"),
    [
        ("ecg-arrhythmia/1.1.0", r"ecg-arrhythmia/1\.1\.0 is 1\.1\.0 by its name: take version 1\.0\.0, https://"),
        (f"{CHAPMAN.archive}-1.1.0", r"study-1\.1\.0 is 1\.1\.0 by its name"),
        ("arrhythmia/2.0", r"arrhythmia/2\.0 is 2\.0 by its name"),
        ("arrhythmia", r"arrhythmia lists files of chapman, .* which version .*`mv \S+/arrhythmia \S+/ecg-arrhythmia-"),
        (".", r"mirror lists files of chapman, .*`mv \S+/mirror \S+/ecg-arrhythmia-1\.0\.0; ecg mirror \S+-1\.0\.0`"),
    ],
)
def test_what_does_not_tell_its_version_is_named_and_not_taken(project: str, told: str, tmp_path: Path) -> None:
    text = refusal(mirror_at(tmp_path / "mirror", project))
    assert re.search(told, text), text
    assert f"looked for {ROOT}/SHA256SUMS.txt in " in text
    assert f"ecg-arrhythmia/1.0.0, ecg-arrhythmia-1.0.0, {ZIP}" in text


def test_the_other_ways_out_are_told(home: Home, tmp_path: Path) -> None:
    folder = mirror_at(tmp_path / "my mirror", ZIP)
    inside = folder / ZIP / "WFDBRecords"
    assert f"it is a part of {folder / ZIP}: `ecg mirror '{folder / ZIP}'`" in refusal(inside)
    packed = tmp_path / "packed"
    packed.mkdir()
    assert "it has nothing: name another place with `ecg mirror`" in refusal(packed)
    (packed / f"{ZIP}.zip").write_bytes(b"PK")
    assert f"{ZIP}.zip is not unpacked: unpack it there" in refusal(packed)
    told = absent(CHAPMAN, Mirror.parse(str(packed)))
    assert told == f"not in this mirror: {packed / ZIP}.zip is not unpacked: unpack it there"
    assert absent(SOURCES["ludb"], Mirror.parse(str(packed))) == "not in this mirror"
    home.set_mirror(str(folder))
    shutil.move(inside, tmp_path / "records")
    assert f"{folder / ZIP} has none of the files that its list names" in ecg("download", "chapman").stderr
    shutil.move(folder / ZIP / "SHA256SUMS.txt", tmp_path / "sums")
    with pytest.raises(ValueError, match=r"has no list of its files \(.*SHA256SUMS\.txt\): fetch the list as well"):
        list_source(CHAPMAN, Mirror.parse(str(folder)))
    told = ecg("mirror", packed).output
    assert f"chapman: {packed / ZIP}.zip is not unpacked" in told
    assert f"chapman: {folder / ZIP}" in ecg("mirror", folder).output
    assert ecg("download", "ludb").stderr.startswith(f"Error: ludb: the mirror {folder} has no files of it: looked for")


def test_a_part_of_a_simulated_mirror_is_not_taken_for_real_ecgs(tmp_path: Path) -> None:
    simulated = small_mirror(tmp_path / "mirrors" / "simulated")
    (simulated / "SIMULATED.json").write_text("{}")
    for folder in (simulated / "physionet.org", simulated / "physionet.org" / "files", simulated.parent):
        text = refusal(folder)
        assert f"`ecg mirror {simulated}`" in text
        assert "mirror of simulated ECGs" in text
    assert len(list_source(CHAPMAN, Mirror.parse(str(simulated)))) == 18


def test_parts_of_code15_as_a_browser_saves_them(tmp_path: Path) -> None:
    (tmp_path / "code15").mkdir()
    (tmp_path / "code15" / "exams_part3.zip").write_bytes(b"PK")
    text = Layout(SOURCES["code15"], tmp_path).absence()
    there = f"{tmp_path}/zenodo.org/records/4916206/files"
    assert f"{tmp_path}/code15 has exams_part3.zip: put such files into {there}, and https://zenodo.org/api/" in text
    assert f"as {tmp_path}/zenodo.org/api/records/4916206" in text


def test_records_that_no_source_reads_are_counted_by_their_collection(home: Home, tmp_path: Path) -> None:
    folder = mirror_at(tmp_path / "mirror", ZIP)
    assert unread_records(folder) == {}
    for name in ("ptb-xl/g1/HR00001", "ptb-xl/g2/HR01001", "georgia/g1/E00001", "cpsc_2018_extra/g1/Q0001"):
        header = folder / "challenge-2020/1.0.2/training" / f"{name}.hea"
        header.parent.mkdir(parents=True)
        header.touch()
    (folder / ZIP / "WFDBRecords/01/010/notes.hea").touch()
    training = "challenge-2020/1.0.2/training"
    # A name that a source takes for one of its records is read, or told as dropped.
    assert unread_records(folder) == {f"{training}/ptb-xl": 2, f"{training}/cpsc_2018_extra": 1}
    assert unread_records(folder / training / "ptb-xl") == {"the mirror's own folder": 2}
    assert f"no source reads {training}/ptb-xl: 2 records" in ecg("mirror", folder).output
    (folder / training / "ptb-xl").rename(folder / training / "a\n\x1b[31mb")
    assert f"  no source reads {training}/a\\n\\x1b[31mb: 2 records\n" in ecg("mirror", folder).output


@pytest.mark.skipif(not CASE.is_dir(), reason=f"no case at {CASE}")
@pytest.mark.parametrize("way", ["zip", "s3sync"])
def test_ludb_as_people_have_it(way: str, tmp_path: Path) -> None:
    ludb, mirror = SOURCES["ludb"], Mirror.parse(str(CASE / way))
    assert ludb.available(list_source(ludb, mirror)) == ["all"]
    # The case has one record of those listed.
    with pytest.raises(ValueError, match=r"data/\S+ is listed but not in .*\(266 missing\)"):
        download_partition(ludb, "all", mirror=mirror, raw_root=tmp_path)
