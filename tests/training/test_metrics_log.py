"""The table of a run: each step once, also after a kill in the middle of a line."""

import csv
import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch._utils import ExceptionWrapper

from vismae.core.errors import DataError
from vismae.training import metrics_log
from vismae.training.metrics_log import MetricsTable, TimedLoader


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_may_come_later_and_values_of_a_step_share_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, 0)
    table.write(1, {"loss": 0.5})
    table.write(2, {"loss": 0.25})
    table.write(2, {"validation": 0.75})
    table.write(3, {"loss": 0.125})
    assert read(path) == [
        {"step": "1", "loss": "0.5", "validation": ""},
        {"step": "2", "loss": "0.25", "validation": "0.75"},
        {"step": "3", "loss": "0.125", "validation": ""},
    ]


def test_rows_beyond_the_resume_point_and_half_a_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, 0)
    for step in range(1, 6):
        table.write(step, {"loss": step, "lr": 1.0})
    path.write_text(path.read_text()[:-4])
    resumed = MetricsTable(path, 3)
    resumed.write(4, {"loss": 9.0, "lr": 1.0})
    assert [(row["step"], row["loss"]) for row in read(path)] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
        ("4", "9"),
    ]


def test_half_a_step_number_is_no_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n10,0.25\n1")
    MetricsTable(path, 100)
    assert [row["step"] for row in read(path)] == ["1", "10"]


def test_a_new_run_does_not_keep_an_old_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n")
    MetricsTable(path, 0)
    assert read(path) == []


def test_a_timed_loader_gives_every_batch_and_adds_up_the_waiting() -> None:
    loader = TimedLoader([1, 2, 3])  # pyright: ignore[reportArgumentType]
    assert list(loader) == [1, 2, 3]
    assert 0 < loader.wait_seconds < 1


def test_an_error_of_a_loader_process_is_the_sentence_it_was_there() -> None:
    class Workers:
        """Gives on an error as a DataLoader does that of its process."""

        def __iter__(self) -> Iterator[Any]:
            yield 1
            try:
                raise DataError("shard 3 is damaged.\nIngest again.")
            except DataError:
                ExceptionWrapper(sys.exc_info(), "in DataLoader worker process 0").reraise()

    loader: Any = Workers()
    batches = iter(TimedLoader(loader))
    assert next(batches) == 1
    with pytest.raises(DataError) as found:
        next(batches)
    assert str(found.value) == "shard 3 is damaged.\nIngest again."


def test_rows_that_cannot_be_written_come_later_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, 0)
    table.write(1, {"loss": 0.5})

    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        patch.setattr(metrics_log, "write_text", full)
        table.write(2, {"loss": 0.25})
        table.write(3, {"loss": 0.125})
    table.write(4, {"loss": 0.0625})
    assert [row["step"] for row in read(path)] == ["1", "2", "3", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        table.write(5, {"loss": 0.0})
    table.close()
    assert [row["loss"] for row in read(path)] == ["0.5", "0.25", "0.125", "0.0625", "0"]
    assert [message.partition("(")[2] for message in caplog.messages] == [
        "No space left on device); tried again later"
    ] * 2
