"""What failed and killed commands leave behind."""

import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vismae.core.remains import LOCK_NAME, is_unbegun, remove_unfinished

KILLED = """
import os, signal, sys
from pathlib import Path
from vismae.core import rundir
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
rundir.write_bytes(Path(sys.argv[1]), b"half")
"""


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"model/model.json", "runs/a/.lock", ".hidden", "unfinished", ".git/x.unfinished"}
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    long = "n" * 255  # as long as a name may be
    for place in ("", "model", "runs/a"):
        command = [sys.executable, "-c", KILLED, str(tmp_path / place / long)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (tmp_path / "model" / "last.partial").write_text("half")
    assert len(files(tmp_path)) == len(kept) + 4
    remove_unfinished(tmp_path)
    # What lies beside another lock is its holder's.
    own = {name for name in files(tmp_path) if name.startswith("runs/a/.")} - {"runs/a/.lock"}
    assert len(own) == 1
    assert files(tmp_path) == kept | own


@pytest.mark.parametrize("missing", ["config.yaml", "provenance.json"])
def test_a_foreign_folder_is_never_one_to_begin_anew(tmp_path: Path, missing: str) -> None:
    for name in {"config.yaml", "provenance.json"} - {missing}:
        (tmp_path / name).write_text("{}")
    assert not is_unbegun(tmp_path)
    (tmp_path / missing).write_text("{}")
    assert is_unbegun(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "damaged.csv").write_text("row,shard,position\n")
    (tmp_path / "damaged_rank_1.csv").write_text("row,shard,position\n")
    assert is_unbegun(tmp_path)
    (tmp_path / "figures" / "mine.png").write_text("drawn")
    assert not is_unbegun(tmp_path)


def test_what_another_machine_may_have_begun_just_now_is_not_begun_anew(tmp_path: Path) -> None:
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_text("{}")
    lock = tmp_path / LOCK_NAME
    for content, expected in (
        ({"pid": 1, "host": "another"}, False),
        ({"pid": 1, "host": platform.node()}, True),
    ):
        lock.write_text(json.dumps(content))
        assert is_unbegun(tmp_path) == expected
    lock.write_text("")
    assert is_unbegun(tmp_path)


def test_cases_that_were_left_out_before_the_first_step_are_nothing_done(tmp_path: Path) -> None:
    for name in ("config.yaml", "provenance.json", "log.txt", "cases_left_out.csv"):
        (tmp_path / name).write_text("{}")
    assert is_unbegun(tmp_path)
