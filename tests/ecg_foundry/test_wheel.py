"""The wheel, built and installed: it takes two import names, both our own, and leaves those of other packages alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

OURS = ("assets", "orchestration", "pipelines", "ecg_foundry", "ecg_model")
OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")

OPENS = """
import json, sys
import assets, pipelines
from ecg_foundry import ecgs
ds = ecgs.open("ptbxl")
told = {"theirs": [assets.WHOSE, pipelines.WHOSE], "at": ecgs.__file__, "records": ds.sizes["record"]}
told["loaded"] = [name for name in ("torch", "mlflow", "dagster", "click") if name in sys.modules]
import ecg_model.encoder
print(json.dumps({**told, "model": ecg_model.__file__}))
"""
RUNS = """
import json, sys
import assets.sources, orchestration.jobs, pipelines.pretrain.recipes, ecg_foundry.command
print(json.dumps([sys.modules[name].__path__[0] for name in sys.argv[1:]]))
"""
# No site: the libraries alone, not what else is installed where the tests run.
LIBRARIES = f"import site, sys; site.addsitedir(sys.argv.pop(1)); sys.path.append({sysconfig.get_path('purelib')!r})"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], *OFFLINE, "--no-build-isolation", *arguments[1:]]
    subprocess.run([*map(str, command)], check=True, env={**os.environ, "PYTHONPATH": ""}, timeout=200)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's code: building writes into it."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in OURS:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def python(site: Path, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", f"{LIBRARIES}\n{code}", str(site), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "ECG_MIRROR"} | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/", timeout=200)


def test_a_wheel_is_installed_beside_packages_with_the_names_of_the_checkout_s_folders(
    checkout: Path, tmp_path: Path, ptbxl_home: Path
) -> None:
    pip("wheel", "--wheel-dir", tmp_path, checkout)
    site = tmp_path / "site"
    for name in ("assets", "pipelines"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text('WHOSE = "theirs"\n')
    pip("install", "--target", site, next(tmp_path.glob("*.whl")))
    packages = {path.name for path in site.iterdir() if path.is_dir() and path.suffix != ".dist-info"} - {"bin"}
    assert packages == {"assets", "pipelines", "ecg_foundry", "ecg_model"}
    ran = python(site, OPENS, ECG_HOME=str(ptbxl_home / "home"))
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["theirs"] == ["theirs", "theirs"]
    assert told["records"] > 300
    assert told["loaded"] == []
    assert all(Path(told[name]).is_relative_to(site) for name in ("at", "model"))
    command = python(site, "from ecg_foundry.command import main; main()")
    assert command.returncode == 1
    assert command.stderr.startswith("ecg: the pipeline runs from its checkout")


def test_an_editable_install_has_the_whole_checkout(checkout: Path, tmp_path: Path) -> None:
    pip("install", "--ignore-installed", "--prefix", tmp_path, "--editable", checkout)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    ran = python(site, RUNS, *OURS)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [str(checkout / name) for name in OURS]
    assert "ecg_foundry.command" in (tmp_path / "bin" / "ecg").read_text()
    command = python(site, "sys.argv[1:] = ['--version']; from ecg_foundry.command import main; main()")
    assert command.stdout.startswith("ecg, version"), command.stderr
