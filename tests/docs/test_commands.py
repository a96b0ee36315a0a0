"""What README.md and docs/ tell people to type exists: commands with their options, make's targets, scripts, jobs."""

import re
import shlex
from pathlib import Path

import click
import dagster as dg
import pytest
import yaml

from orchestration.definitions import defs
from pipelines.cli import main
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def said(page: Path) -> list[str]:
    """The lines of a page's code: of its blocks and what stands in backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.strip() for line in (*"\n".join(blocks).splitlines(), *inline)]


def ecg_commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for line in said(page):
            call = re.match(r"(?:\S+=\S+ )*(?:\S*/)?ecg (?P<rest>[a-z][\w-]*.*)", line)
            if call:
                found.append((page.name, call["rest"].split("   #")[0].split(" | ")[0]))
    return found


def test_many_commands_are_found() -> None:
    assert len(ecg_commands()) > 30


@pytest.mark.parametrize(("page", "call"), ecg_commands())
def test_a_command_is_there_with_its_options(page: str, call: str) -> None:
    name, *words = shlex.split(call)
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"{page}: ecg {call}"
    while isinstance(command, click.Group) and words:
        command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, f"{page}: ecg {call}"
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{page}: ecg {call}"
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if not any(one.nargs == -1 for one in arguments):
        takers = {option for one in command.params if not getattr(one, "is_flag", False) for option in one.opts}
        plain = [w for at, w in enumerate(words) if w[0] != "-" and (at == 0 or words[at - 1] not in takers)]
        assert len(plain) <= len(arguments), f"{page}: ecg {call}"


def test_the_runbook_s_config_is_that_of_its_job() -> None:
    (config,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "runbook.md").read_text(), re.DOTALL | re.MULTILINE)
    job = defs.resolve_job_def("harvest_code15")
    found = dg.validate_run_config(job, yaml.safe_load(config))
    assert found["ops"]["ecgs__code15"]["config"]["keep_raw"] is False
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, yaml.safe_load(config.replace("keep_raw", "keep")))


def test_targets_scripts_and_modules_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for line in said(page):
            if made := re.match(r"make ([a-z][a-z-]*)", line):
                assert made[1] in targets, f"{page.name}: {line}"
            if script := re.match(r"(deploy/(?:start|shell|backup|restore))(?= |$)", line):
                assert (ROOT / script[1]).exists(), f"{page.name}: {line}"
            if module := re.match(r"(?:\S*/)?python -m ((?:benchmarks|orchestration|pipelines)[\w.]*)", line):
                path = ROOT.joinpath(*module[1].split("."))
                assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {line}"


def test_jobs_that_are_named_are_there() -> None:
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs()}
    text = (ROOT / "docs" / "runbook.md").read_text()
    named = set(re.findall(r"[Jj]obs? `(\w+)`", text)) | set(re.findall(r"`(harvest_\w+)`", text))
    assert len(named) > 5
    assert named <= jobs
