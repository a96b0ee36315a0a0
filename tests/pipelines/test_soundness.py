"""Products that lost what was in their files: found where they are used, said in a sentence, and built again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ecg_foundry.soundness import Damaged, digest_of_tree
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.shards import shards_of
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.pretrain.data import load_corpus
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.commands import ecg

CHAPMAN = SOURCES["chapman"]
SIZES = MirrorSizes(chapman=(12,), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mirror, and a home that was made of it."""
    root = tmp_path_factory.mktemp("sound")
    write_mirror(root / "mirror", sizes=SIZES)
    materialize(root)
    return root


@pytest.fixture
def root(harvested: Path, tmp_path: Path) -> Path:
    shutil.copytree(harvested / "home", tmp_path / "home")
    (tmp_path / "mirror").symlink_to(harvested / "mirror")
    return tmp_path


def materialize(root: Path) -> dict[str, Product]:
    workspace, mirror = Workspace(root / "home" / "hosts"), Mirror.parse(str(root / "mirror"))
    return {
        product.name: product
        for product in (
            materialize_raw(workspace, CHAPMAN, "01", mirror=mirror, raw_root=root / "files"),
            materialize_ecgs(workspace, CHAPMAN, "01", limits=QualityLimits()),
            materialize_corpus(workspace, CorpusConfig()),
        )
    }


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def files_of_products(root: Path) -> list[Path]:
    """All files that a loss of power may take, the records beside the products too."""
    return sorted(path for path in (root / "home").rglob("*") if path.is_file() and not path.name.startswith("."))


def lose_each(root: Path, lose: Callable[[Path], None], files: list[Path]) -> None:
    before = {name: product.digest for name, product in materialize(root).items()}
    for file in files:
        lose(file)
        after = materialize(root)
        assert {name: product.digest for name, product in after.items()} == before, file
        assert all(digest_of_tree(product.path) == product.digest for product in after.values()), file
    assert all(product.cached for product in materialize(root).values())


@pytest.mark.parametrize("name", ["files.json", "root", "index.parquet"])
def test_a_lost_file_makes_its_product_be_built_again(root: Path, name: str) -> None:
    lose_each(root, emptied, [file for file in files_of_products(root) if file.name == name])


@pytest.mark.slow
@pytest.mark.parametrize("lose", [emptied, zeroed])
def test_whatever_file_is_lost_the_same_products_are_made_again(root: Path, lose: Callable[[Path], None]) -> None:
    lose_each(root, lose, files_of_products(root))


def test_a_reader_names_the_product_the_file_and_what_to_do(root: Path) -> None:
    workspace, products = Workspace(root / "home" / "hosts"), materialize(root)
    shard, corpus = products["ecgs/chapman/01"], products["corpus"]
    emptied(shard.path / "records.parquet")
    said = r"ecgs/chapman/01 is damaged: records\.parquet has 0 bytes, of [\d,]+ bytes written, in .*: materialize it"
    for read in (
        lambda: workspace.require("ecgs/chapman/01"),
        lambda: shards_of(workspace, "chapman"),  # left out, its ECGs would be missing without a word
        lambda: materialize_corpus(workspace, CorpusConfig()),
        lambda: load_corpus(workspace.root, corpus.path, torch.device("cpu")),
    ):
        with pytest.raises(Damaged, match=said):
            read()
    zeroed(corpus.path / "index.parquet")
    with pytest.raises(Damaged, match=r"corpus is damaged: index\.parquet holds zeros in place of what was written"):
        load_corpus(workspace.root, corpus.path, torch.device("cpu"))


# ecg verify --products


@pytest.fixture
def home(root: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(root / "home"))
    monkeypatch.delenv("ECG_MIRROR", raising=False)
    return Home.default()


def test_verify_finds_a_changed_byte_and_the_product_is_built_again(root: Path, home: Home) -> None:
    sound = ecg("verify", "--products")
    assert sound.exit_code == 0
    assert sound.stdout.count("sound") == 3
    corpus = home.workspace().require("corpus")
    file = corpus.path / "index.parquet"
    rotten = bytearray(file.read_bytes())
    rotten[len(rotten) // 2] ^= 1
    file.write_bytes(rotten)
    assert home.workspace().current("corpus") is not None, "a cheap look cannot see it"
    found = ecg("verify", "--products")
    assert found.exit_code == 1
    assert "corpus" in found.stdout
    assert "damaged: its files have another digest than when written" in found.stdout
    assert "1 of 3 products are damaged: materialize them again" in found.stderr
    with pytest.raises(Damaged, match="corpus is damaged: its files have another digest"):
        home.workspace().require("corpus")
    made = materialize(root)["corpus"]
    assert not made.cached
    assert made.digest == corpus.digest
    assert ecg("verify", "--products").exit_code == 0


def test_verify_takes_a_name_and_gives_json(home: Home) -> None:
    checked = json.loads(ecg("verify", "ecgs", "--products", "--json").stdout)
    assert [(one["product"], one["current"], one["sound"]) for one in checked] == [("ecgs/chapman/01", True, True)]
    assert "no finished product 'ecgs/chap'" in ecg("verify", "ecgs/chap", "--products").stderr
    assert ecg("verify", "--products", "--repair").exit_code == 2


def test_a_product_that_was_restored_is_sound_again(home: Home) -> None:
    file = home.workspace().require("corpus").path / "corpus.json"
    good = file.read_bytes()
    zeroed(file)
    assert ecg("verify", "corpus", "--products").exit_code == 1
    file.write_bytes(good)
    assert ecg("verify", "corpus", "--products").exit_code == 0
    assert home.workspace().require("corpus")
