"""The lists of exact versions: a sha256 for each file, what pyproject.toml allows, and nothing left out."""

import functools
import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS = {path.stem: path.read_text() for path in sorted((ROOT / "locks").glob("*.txt"))}
ASKED = {
    "run": [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["pipeline"]],
    "production": PROJECT["optional-dependencies"]["postgres"],
    "vendor": PROJECT["optional-dependencies"]["vendor"],
    "dev": PROJECT["optional-dependencies"]["dev"],
}


@functools.cache
def pins(name: str) -> dict[str, str]:
    """The versions of a list by package, without those for other platforms."""
    found = {}
    for line in LISTS[name].splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix(" \\"))
            (only,) = requirement.specifier
            assert only.operator == "==", line
            if requirement.marker is None or requirement.marker.evaluate():
                assert requirement.name not in found, line
                found[requirement.name] = only.version
    return found


def installed_with(name: str) -> dict[str, str]:
    """What is installed with a list: itself, and those that `make` installs before it."""
    parts = {"torch-pypi", "run", name} | ({"production", "vendor"} if name == "dev" else set())
    return {package: version for part in parts for package, version in pins(part).items()}


def test_both_lists_of_torch_have_one_version() -> None:
    assert pins("torch-cpu") == {"torch": pins("torch-pypi")["torch"] + "+cpu"}, "run `make lock`"


@pytest.mark.parametrize("name", LISTS)
def test_a_list_holds_exact_versions_with_a_sha256_for_each_file_and_nothing_else(name: str) -> None:
    pin = r"[a-z0-9][a-z0-9._-]*==[\w.+!]+(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    comment = r" *#[^\n]*\n"
    index = r"--extra-index-url https://download\.pytorch\.org/whl/cpu\n" if name == "torch-cpu" else ""
    assert re.fullmatch(f"(?:{comment})*{index}(?:{pin}(?:{comment})*)+", LISTS[name]), "such as a URL or a range"


def test_no_package_is_in_two_lists() -> None:
    packages = [package for name in LISTS if name != "torch-cpu" for package in pins(name)]
    assert len(packages) == len(set(packages))


@pytest.mark.parametrize("name", ASKED)
def test_pyproject_allows_what_is_pinned(name: str) -> None:
    pinned = installed_with(name)
    for line in ASKED[name]:
        asked = Requirement(line)
        version = pinned.get(canonicalize_name(asked.name))
        assert version is not None, f"{line}: run `make lock`"
        assert asked.specifier.contains(version), f"{line}, but locks/ has {version}: run `make lock`"


@pytest.mark.parametrize("name", ASKED)
def test_what_is_installed_needs_nothing_that_is_in_no_list(name: str) -> None:
    """Without this, `pip install --no-deps` could leave something out that only a developer's environment has."""
    pinned = installed_with(name)
    asked = [Requirement(line) for line in ASKED[name]]
    seen: set[tuple[str, str]] = set()
    while asked:
        requirement = asked.pop()
        package = canonicalize_name(requirement.name)
        assert package in pinned, f"{requirement} is in no list of {name}"
        assert requirement.specifier.contains(pinned[package]), f"{requirement}, but locks/ has {pinned[package]}"
        for extra in {"", *requirement.extras} - {extra for of, extra in seen if of == package}:
            seen.add((package, extra))
            asked += [one for one in requires(package) if one.marker is None or one.marker.evaluate({"extra": extra})]


@functools.cache
def requires(package: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in importlib.metadata.requires(package) or []]
    except importlib.metadata.PackageNotFoundError:
        if package in pins("torch-pypi"):
            return []  # CUDA's libraries, beside a build for the CPU
        pytest.skip(f"{package} is not installed: `make install-dev`")


def test_what_is_installed_is_what_is_pinned() -> None:
    differs = {}
    for package, version in installed_with("dev").items():
        try:
            installed = importlib.metadata.version(package).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue  # with CUDA's libraries or without, and before `make install-dev`
        if installed != version:
            differs[package] = (installed, version)
    assert not differs, "run `make install-dev`"
