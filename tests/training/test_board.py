"""TensorBoard's record: numbers and pictures, and a disk that takes no more."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vismae.training.board import Board


def test_numbers_and_pictures_can_be_read_back_without_those_of_an_earlier_try(
    tmp_path: Path,
) -> None:
    for purge_step, loss in ((1, 0.5), (3, 0.25)):
        board = Board(tmp_path, purge_step)
        for step in range(purge_step, 5):
            board.scalars(step, {"loss": loss})
        board.picture(purge_step, "fill_in", np.zeros((4, 6, 3), np.uint8))
        board.close()
    shown = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in shown.Scalars("loss")]
    assert found == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]
    assert [(event.step, event.width) for event in shown.Images("fill_in")] == [(1, 6), (3, 6)]


def test_what_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = threading.excepthook
    board = Board(tmp_path / "board", 1)
    shutil.rmtree(tmp_path / "board")
    for step in range(1, 100):
        board.scalars(step, {"loss": 0.5})
    board.picture(100, "fill_in", np.zeros((4, 4, 3), np.uint8))
    board.close()
    (warning,) = caplog.messages
    assert warning.startswith(str(tmp_path / "board"))
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is hook
