"""Files that appear whole or not at all."""

import signal
import subprocess
import sys

import pytest

from vismae.core.remains import remove_unfinished
from vismae.inference.output_files import whole_or_none

KILLED = """
import os, signal, sys
from pathlib import Path
from vismae.inference.output_files import whole_or_none
with whole_or_none(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_fails_leaves_what_was_there(tmp_path) -> None:
    path = tmp_path / "case.nii.gz"
    path.write_bytes(b"before")

    def write() -> None:
        with whole_or_none(path) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_bytes(b"half")
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        write()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["case.nii.gz", "case.dcm", "case"])
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, name) -> None:
    path = tmp_path / "masses" / name
    result = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert result.returncode == -signal.SIGKILL
    [left] = path.parent.iterdir()
    others = {path.with_name(other) for other in (".unfinished", "a.1.unfinished", ".7.finished")}
    for other in others:
        other.write_bytes(b"theirs")
    remove_unfinished(tmp_path)
    assert not left.exists()
    assert set(path.parent.iterdir()) == others
