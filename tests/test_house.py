"""Rules of the house that no linter knows: floors, words, weight of an import."""

import ast
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vismae.core.settings import build_config
from vismae.core.settings_table import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vismae"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

FLOORS = {
    "core": 0,
    "files": 1,
    "data": 1,
    "models": 1,
    "evaluation": 1,
    "training": 2,
    "inference": 2,
    "workflows": 3,
    "web": 4,
    "door": 5,
}
HEAVY = ("torch", "monai", "lightning", "fastapi", "uvicorn")
REFUSED = ("torchvision", "timm", "lightly", "pytorch_lightning")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def room_of(module: str) -> str:
    """Return the room of a dotted module name; what lies beside the rooms is a door."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "door"


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    """Yield the place (file and line) of every node of some kinds, and the node."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds or ast.AST):
                yield f"{file}, line {getattr(node, 'lineno', 1)}", node


def imports() -> Iterator[tuple[str, str]]:
    """Yield place and dotted name of everything imported, at the top of a file or below."""
    for place, node in nodes(ast.Import):
        yield from ((place, alias.name) for alias in node.names)
    for place, node in nodes(ast.ImportFrom):
        start = "." * node.level + (node.module or "")
        yield from ((place, f"{start}.{alias.name}") for alias in node.names)


def test_imports_go_down_and_rooms_of_one_floor_do_not_know_each_other() -> None:
    found: list[str] = []
    for place, name in imports():
        own = room_of(".".join(Path(place.split(",")[0]).parts[1:]))
        other = room_of(name)
        if name.split(".")[0] == "vismae" and other != own and FLOORS[other] >= FLOORS[own]:
            found.append(f"{place}: {own} must not import {name}")
    assert not found


def test_nothing_refused_is_imported() -> None:
    found = [
        f"{place}: {name}"
        for place, name in imports()
        if name.split(".")[0] in REFUSED or name == "__future__.annotations" or name[0] == "."
    ]
    assert not found


@pytest.mark.parametrize(
    "command", ["import vismae", "import vismae.cli", "import vismae.api, vismae.core.config"]
)
def test_an_import_of_the_doors_is_light(command: str) -> None:
    code = f"import sys; {command}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)], ids=str)
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        f"import sys, atexit; sys.argv[1:] = {[*arguments, '--help']}; "
        f"atexit.register(lambda: print('HEAVY', [n for n in {HEAVY} if n in sys.modules])); "
        "from vismae.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert "HEAVY []" in done.stdout


def test_the_word_mask_never_stands_alone() -> None:
    """It means three things here; hidden, label_map and attention_mask say which."""
    found = [
        place
        for place, node in nodes()
        for field in ("id", "arg", "attr", "name", "asname")
        if str(getattr(node, field, "")).strip("_").lower() in ("mask", "masks")
    ]
    assert not found


def test_every_public_name_has_a_docstring() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

    def missing(node: Any, where: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield where
        for inner in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            if isinstance(inner, kinds) and not inner.name.startswith("_"):
                yield from missing(inner, f"{where}: {inner.name}")

    assert not [name for file, tree in TREES.items() for name in missing(tree, file)]


def test_only_the_command_line_prints() -> None:
    found = [
        place
        for place, node in nodes(ast.Call)
        if ast.unparse(node.func) in ("print", "typer.echo")
        and not place.startswith(("src/vismae/cli.py", "src/vismae/console.py"))
    ]
    assert not found


def test_input_is_checked_by_errors_and_nothing_is_left_open() -> None:
    found = [place for place, _ in nodes(ast.Assert)]
    found += [place for place, node in nodes(ast.ExceptHandler) if node.type is None]
    found += [
        place for place, node in nodes(ast.Raise) if "NotImplementedError" in ast.unparse(node)
    ]
    found += [name_of(path) for path in SOURCES if "TODO" in path.read_text(encoding="utf-8")]
    assert not found


def test_no_pickled_code_is_ever_run() -> None:
    found = [
        place
        for place, node in nodes(ast.Call)
        if ast.unparse(node.func) == "torch.load"
        and "weights_only=True" not in [ast.unparse(keyword) for keyword in node.keywords]
    ]
    assert not found


def test_files_stay_short_enough_to_read() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: count for name, count in lines.items() if count > 400}


def test_tests_lie_where_their_subject_lies() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        room = path.relative_to(ROOT / "tests").parent
        assert (PACKAGE / room).is_dir(), f"{name_of(path)}: no such room in the package"


def test_every_module_with_code_has_tests_in_its_room() -> None:
    for room in (name for name in FLOORS if name != "door"):
        if len(list((PACKAGE / room).glob("*.py"))) > 1:
            assert list((ROOT / "tests" / room).glob("test_*.py")), f"{room} has no tests"


def command_of(path: Path) -> list[str]:
    """Return the words of the command that the comment on top of a config names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ").rstrip("\\ ") for line in lines if line.startswith("#"))
    _, found, rest = comment.partition("vismae ")
    assert found, f"{name_of(path)}: name the command on top, as in '# vismae pretrain --config'"
    return shlex.split(rest)


def options_of(words: list[str]) -> dict[str, Any]:
    """Read the options of a command as written in a comment; ``--data`` may come repeatedly."""
    options: dict[str, Any] = {}
    for position, word in enumerate(words):
        if not word.startswith("--") or word in ("--config", "--set"):
            continue
        following = words[position + 1 : position + 2]
        value = following[0] if following and not following[0].startswith("--") else True
        if word == "--data":
            options.setdefault("data.sources", []).append(value)
        else:
            options[word[2:].replace("-", "_")] = value
    return options


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_published_config_loads_with_the_command_it_names(path: Path) -> None:
    command, *words = command_of(path)
    options = options_of(words)
    if command == "finetune":
        options["task.kind"] = words[0]
    build_config(COMMANDS[command], command, file=path, options=options)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "scores").rglob("*.parquet")), ids=name_of)
def test_published_scores_name_no_patient_of_a_data_set(path: Path) -> None:
    names = pd.read_parquet(path, columns=["patient_id"])["patient_id"].astype(str)
    assert names.str.fullmatch(r"case \d{3}").all()
