"""The Dockerfile agrees with the project; building it needs an engine, which tests do not have."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
DEFAULTS = dict(line.removeprefix("ARG ").split("=") for line in LINES if line.startswith("ARG "))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_copied_path_exists_and_reaches_the_build() -> None:
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        path
        for line in LINES
        if line.startswith("COPY ") and "--from" not in line
        for path in line.split()[1:-1]
    }
    assert copied == let_in
    assert all((ROOT / path).exists() for path in copied)
    needed = {PROJECT["readme"], *PROJECT["license-files"], "src"}
    assert needed <= copied


def test_the_versions_are_those_of_the_project() -> None:
    torch = re.search(r"^TORCH \?= torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    assert DEFAULTS["TORCH"] == torch[1]
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert tuple(map(int, DEFAULTS["PYTHON"].split("."))) >= least
    assert set(DEFAULTS["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_program_runs_without_the_rights_of_root() -> None:
    last_stage = LINES[max(n for n, line in enumerate(LINES) if line.startswith("FROM ")) :]
    [user] = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert int(user) > 0
    # What comes before USER is done as root: nothing may be fetched there that could run.
    before = last_stage[: last_stage.index(f"USER {user}")]
    assert [line.split()[1] for line in before if line.startswith("RUN ")] == ["useradd"]


def test_the_page_names_every_build_argument_with_its_default() -> None:
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    for name, default in DEFAULTS.items():
        assert f"| `{name}` | `{default}` |" in page
