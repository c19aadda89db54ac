"""Places on the GPUs of a machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vismae.workflows.label_study import devices
from vismae.workflows.label_study.devices import take_gpu, take_place, visible_gpus

HOLD = """
import sys, pathlib
from vismae.workflows.label_study.devices import take_place
print(take_place(pathlib.Path(sys.argv[1]))[0], flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> tuple["subprocess.Popen[str]", int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_killed_process_gives_its_place_to_the_next(tmp_path: Path) -> None:
    first, place = holder(tmp_path)
    second, other = holder(tmp_path)
    try:
        assert (place, other) == (0, 1)
        first.kill()
        first.wait(20)
        third, taken = holder(tmp_path)
        third.kill()
        third.wait(20)
        assert taken == 0
    finally:
        second.kill()
        second.wait(20)


def test_processes_go_round_the_gpus_and_see_one_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = []
    for _ in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5a")
        # Each time as a new process would: nothing is held yet.
        monkeypatch.setattr(devices, "_held", [])
        found.append(take_gpu("/study"))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == found[-1]
        # Later runs of the same process keep it.
        assert take_gpu("/study") == found[-1]
    assert found == ["3", "GPU-5a", "3"]


def test_one_gpu_is_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible_gpus() == ["0"]
    assert take_gpu("/study") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_places_can_run_out(tmp_path: Path) -> None:
    held = [take_place(tmp_path, most=2)[1] for _ in range(2)]
    with pytest.raises(ValueError, match="start fewer"):
        take_place(tmp_path, most=2)
    for descriptor in held:
        os.close(descriptor)
