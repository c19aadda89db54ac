"""The benchmark of large stores, on a small one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_every_step_runs_and_planted_duplicates_are_found(tmp_path: Path) -> None:
    # Tables hold 50,000 rows; copies are planted from the second table on.
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scale.py", "--rows=60000", f"--folder={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    )

    rows = [line.split("|")[1:5] for line in done.stdout.splitlines()[3:]]
    assert len(rows) == 10
    assert all(float(seconds) >= 0 and float(peak) < 1000 for _, seconds, peak, _ in rows)
    note = next(note for name, _, _, note in rows if name.strip() == "duplicates")
    counts = re.search(r"exact (\d+) of (\d+), near (\d+) of (\d+), (\d+) not planted", note)
    assert counts is not None, note
    exact, exact_planted, near, near_planted, others = map(int, counts.groups())
    assert exact == exact_planted > 50
    assert near >= 0.99 * near_planted > 50
    assert others == 0
    assert list(tmp_path.iterdir()) == []
