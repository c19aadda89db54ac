"""The documentation holds: its shell blocks run, its site is whole and asks nobody for anything."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import yaml

import vismae
from docs_blocks import ROOT, blocks_of, write_program, write_world
from vismae.core import errors
from vismae.core.settings_table import COMMANDS
from vismae.inference.unanswered import Unanswered
from vismae.workflows.prediction.remote import NOT_SENT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# These train, several times over.
_LONG = {
    "quickstart.md",
    "modality.md",
    "study.md",
    "adapt.md",
    "doctor.md",
    "embed.md",
    "export.md",
}
# Folders that a page makes itself, and so must not find.
_MADE_BY = {
    "quickstart.md": ("runs", "store*"),
    "modality.md": ("runs",),
    "intake.md": ("store*",),
}
_PAGE_SECONDS = 500
_EXTERNAL = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)


def runnable() -> Iterator[object]:
    for page in PAGES:
        if any(block.runs for block in blocks_of(page)):
            marks = [pytest.mark.slow] if page.name in _LONG else []
            yield pytest.param(page, id=page.relative_to(DOCS).as_posix(), marks=marks)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.mark.parametrize("page", list(runnable()))
def test_the_shell_blocks_of_a_page_run_in_their_order(
    page: Path, world: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here, ignore=shutil.ignore_patterns(*_MADE_BY.get(page.name, ())))
    program = write_program(tmp_path / "bin")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    lines = ["set -euo pipefail"]
    for block in blocks_of(page):
        if block.title is not None:
            (here / block.title).write_text(block.text, encoding="utf-8")
        if block.runs:
            lines.append(block.text.replace("8080", port))
    paths = os.pathsep.join([str(program), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": _python_path()}
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PAGE_SECONDS,
            check=False,
        )
    finally:
        _stop_servers(here / "servers.txt")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _python_path() -> str:
    return os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])


def _stop_servers(ids: Path) -> None:
    for line in ids.read_text(encoding="utf-8").split() if ids.is_file() else []:
        with suppress(ProcessLookupError):
            os.kill(int(line), signal.SIGTERM)


def test_blocks_that_do_not_run_say_why() -> None:
    """Every fence is one the site understands, and shell is marked or runs."""
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language != "console", f"{page.name}: write ```bash"


def test_the_navigation_leads_to_pages_and_each_page_is_reached() -> None:
    """By the navigation, or by a link on another page."""
    names = {page.relative_to(DOCS).as_posix() for page in PAGES}
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([a-z/-]+\.md)$", text, re.MULTILINE))
    linked = {
        name
        for page in [*PAGES, ROOT / "README.md"]
        for name in re.findall(r"\]\((?:docs/)?([a-z-]+\.md)", page.read_text(encoding="utf-8"))
    }
    assert listed <= names
    assert names <= listed | linked


def test_links_lead_to_what_the_site_holds_and_nothing_is_listed_twice() -> None:
    """A strict build (make docs-site) refuses the first, and says nothing of the second."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    left_out = [(DOCS / name).resolve() for name in config["exclude_docs"].split()]
    for page in PAGES:
        for link in re.findall(r"\]\((?!\w+:)([^)#]+)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            known = target.is_file() and DOCS in target.parents
            assert known, f"{page.name}: {link} is no file of the site"
            assert not any(folder in target.parents for folder in left_out), f"{page.name}: {link}"
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([a-z/-]+\.md)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed))


def test_every_command_is_on_the_page_of_functions() -> None:
    page = (DOCS / "api" / "commands.md").read_text(encoding="utf-8")
    homes = {getattr(vismae, name).__module__ for name in vismae.__all__ if name in COMMANDS}
    assert homes == set(re.findall(r"^::: (vismae\.api\w*)$", page, re.MULTILINE))


def test_the_site_asks_no_other_server_for_anything() -> None:
    """Seen in the pages themselves where the site was built (make docs-site)."""
    site = ROOT / "build" / "site"
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert "repo_url" not in config
    assert "analytics" not in config.get("extra", {})
    for page in site.rglob("*.html"):
        found = _EXTERNAL.findall(page.read_text(encoding="utf-8"))
        assert found == [], page.name


def test_every_error_code_and_exit_status_is_explained() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.VismaeError)
    ]
    unanswered = get_args(Unanswered.__annotations__["reason"])
    codes = {kind.code for kind in kinds} | {NOT_SENT, "memory", *unanswered}
    assert codes == set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    statuses = {kind.exit_status for kind in kinds} | {0, 70, 130}
    assert statuses == {int(n) for n in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}


def test_every_picture_is_there() -> None:
    for page in PAGES:
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"
