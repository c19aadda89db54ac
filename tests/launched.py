"""Starting trainings as users do: from the command line, and by torchrun."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

SCRIPT = Path(__file__).parent / "unruly.py"
PACED = str(Path(__file__).parent / "paced.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

Done = subprocess.CompletedProcess[str]


def options_of(config: BaseModel) -> dict[str, Any]:
    """The settings of a run as JSON has them."""
    return json.loads(config.model_dump_json(exclude_none=True))


def command_line(command: str, config: BaseModel) -> list[str]:
    """``vismae COMMAND`` with all settings of a run."""
    words = [sys.executable, "-m", "vismae", command]
    if command == "finetune":
        words.append(config.task.kind)  # pyright: ignore[reportAttributeAccessIssue]
    file = Path(f"{config.out}.yaml")  # pyright: ignore[reportAttributeAccessIssue]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(options_of(config)))
    return [*words, "--config", str(file)]


def run(command: list[str], seconds: float = 240, **more: Any) -> Done:
    """Run a command to its end, or fail."""
    return subprocess.run(
        command,
        check=False,
        timeout=seconds,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **more,
    )


def torchrun(folder: Path, command: str, config: BaseModel, **script: Any) -> Done:
    """Run a training in two processes started by torchrun; see ``unruly.py`` for the script."""
    return run([*TORCHRUN, *unruly(folder, command, config, **script)])


TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2"),
]


def unruly(folder: Path, command: str, config: BaseModel, **script: Any) -> list[str]:
    """The script of tests that runs a training, and its argument."""
    file = folder / "script.json"
    file.write_text(json.dumps({"command": command, "options": options_of(config), **script}))
    return [str(SCRIPT), str(file)]


def processes_of(folder: Path) -> list[int]:
    """Processes whose command or environment names a folder."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text:
            found.append(int(entry.name))
    return found


def members_of(process: int) -> list[int]:
    """Processes that vismae started to train beside another one."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(word) for file in files for word in file.read_text().split()]
    return [
        each for each in children if b"run_member" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def wait_until(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait for something to come about, or fail."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)
