"""Write the lists of exact versions in this folder, with the sha256 of every file: `make lock`.

    torch-cpu.txt   pytorch.org's build of torch for Linux without a GPU
    torch-pypi.txt  PyPI's build, with the CUDA libraries that it needs on Linux
    run.txt         what the pipeline needs beside torch
    production.txt  what production on PostgreSQL needs beside those
    vendor.txt      what reads vendors' files, and WFDB beyond plain 16 bit
    dev.txt         what tests, types and style need beside those

uv resolves them together, for every Python and platform that pyproject.toml allows. Versions that are in the lists stay
if they still fit; arguments are passed on to uv: `make lock UV="--upgrade"`, `make lock UV="--upgrade-package mlflow"`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
EXTRAS = {"run": "pipeline", "production": "postgres", "vendor": "vendor", "dev": "dev"}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_TORCH = re.compile(r"torch$|nvidia-|cuda-|triton$")
_HASH = re.compile(r" \\\n    --hash=sha256:[0-9a-f]{64}")


def compiled(source: str, *arguments: str, versions: str = "", requirements: str | None = None) -> dict[str, str]:
    """Return the entries of the list that `uv pip compile` writes, by the name of the package.

    source: a file of requirements, or `-` for the text `requirements`.
    versions: entries whose versions stay if they fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "list.txt"
        out.write_text(_HASH.sub("", versions))  # uv would keep hashes, and not ask for those of new files
        command = [sys.executable, "-m", "uv", "pip", "compile", source, "--quiet", "--no-config"]
        command += ["--output-file", str(out), "--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
        command += ["--generate-hashes", "--only-binary", ":all:", "--no-header", *arguments]
        subprocess.run(command, input=requirements, cwd=FOLDER.parent, check=True, text=True, stdout=subprocess.DEVNULL)
        return {one.partition("==")[0]: one for one in re.split(r"\n(?=[a-z0-9])", out.read_text().strip())}


def write_torch_cpu(version: str) -> None:
    """Write torch's CPU build of a version, unless the list has it."""
    path, pin = FOLDER / "torch-cpu.txt", f"torch=={version}+cpu"
    if f"{pin} " in path.read_text():
        return
    marker = " ; sys_platform == 'linux'"
    found = compiled("-", "--no-deps", "--default-index", CPU_INDEX, requirements=pin + marker)
    write(path, [f"--extra-index-url {CPU_INDEX}", found["torch"].replace(marker, "")])


def write(path: Path, lines: list[str]) -> None:
    """Write a list."""
    path.write_text("\n".join(["# Written by `make lock`.", *lines]) + "\n")


def main() -> None:
    """Resolve all packages together, then write each list without what is in the lists before it."""
    before = "\n".join(path.read_text() for path in FOLDER.glob("*.txt") if path.name != "torch-cpu.txt")
    everything = "\n".join(compiled("pyproject.toml", "--all-extras", *sys.argv[1:], versions=before).values())
    found = {name: compiled("pyproject.toml", "--extra", extra, versions=everything) for name, extra in EXTRAS.items()}
    torch = {package: entry for package, entry in found["run"].items() if _TORCH.match(package)}
    written = set(torch)
    write(FOLDER / "torch-pypi.txt", list(torch.values()))
    write_torch_cpu(torch["torch"].split()[0].removeprefix("torch=="))
    for name, of_list in found.items():
        write(FOLDER / f"{name}.txt", [entry for package, entry in of_list.items() if package not in written])
        written |= of_list.keys()


if __name__ == "__main__":
    main()
