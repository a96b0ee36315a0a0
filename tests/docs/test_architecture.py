"""docs/architecture.md names files and folders that exist, and its tree shows every folder of the code."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

PAGES = [ROOT / "docs" / name for name in ("architecture.md", "development.md", "decisions.md", "evaluation.md")]
CODE = ("orchestration", "assets", "pipelines", "ecg_foundry", "ecg_model", "benchmarks", "tests")


def named(text: str) -> list[str]:
    """Paths of files and folders in backticks."""
    return re.findall(rf"`((?:{'|'.join(CODE)})/[\w/.]*)`", text)


def test_paths_are_named() -> None:
    assert len(named(PAGES[0].read_text())) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_is_named_exists(page) -> None:
    missing = sorted({path for path in named(page.read_text()) if not (ROOT / path).exists()})
    assert missing == []


def test_the_tree_shows_each_folder() -> None:
    tree = re.findall(r"```\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[0]
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.split()[0].endswith("/")}
    folders = {file.parent.name for top in ("pipelines",) for file in (ROOT / top).rglob("*.py")}
    assert folders <= shown | {"pipelines"}
    assert {"orchestration", "assets", "pipelines", "ecg_foundry", "ecg_model"} <= shown


def test_words_of_the_glossary_are_defined_in_their_file() -> None:
    for word, path in (("Facts", "pipelines/facts.py"), ("Recipe", "pipelines/pretrain/recipes.py")):
        assert f"class {word}" in (ROOT / path).read_text()
