"""The record in MLflow, where it is installed: one run, also after a resume."""

import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from vismae.training.mlflow_record import MlflowRecord, has_mlflow

needs_mlflow = pytest.mark.skipif(not has_mlflow(), reason="MLflow is not installed")


def recorded(folder: Path, *names: str) -> tuple[str, dict[str, list[tuple[int, float]]]]:
    """Status of the only run, and steps and values of some of its metrics."""
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
    experiment = client.get_experiment_by_name("vismae")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    return run.info.status, {
        name: [(metric.step, metric.value) for metric in history]
        for name, history in histories.items()
    }


@needs_mlflow
def test_a_resumed_run_goes_on_in_the_same_mlflow_run(tmp_path: Path):
    record = MlflowRecord(tmp_path)
    record.write(1, {"loss": 0.5, "lr": 1.0})
    record.close(finished=False)
    assert recorded(tmp_path)[0] == "KILLED"
    record = MlflowRecord(tmp_path, resume_step=1)
    assert recorded(tmp_path)[0] == "RUNNING"
    record.write(2, {"loss": 0.25, "lr": 1.0})
    record.close(finished=True)
    assert recorded(tmp_path, "loss") == ("FINISHED", {"loss": [(1, 0.5), (2, 0.25)]})


@needs_mlflow
def test_steps_done_once_more_after_a_kill_are_recorded_once(tmp_path: Path):
    killed = MlflowRecord(tmp_path)
    for step in range(1, 6):
        killed.write(step, {"loss": float(step)})
        killed.write(step, {"rank": float(step)} if step > 3 else {})
    resumed = MlflowRecord(tmp_path, resume_step=3)
    for step in range(4, 7):
        resumed.write(step, {"loss": 10.0 * step})
    resumed.close(finished=True)
    _, found = recorded(tmp_path, "loss", "rank")
    assert found["loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]
    assert found["rank"] == []


@needs_mlflow
def test_a_record_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tried: list[Any] = []

    def refuse(*arguments: Any) -> None:
        tried.append(arguments)
        raise OSError("no network")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    record = MlflowRecord(tmp_path)
    record.write(1, {"loss": 0.5})
    record.close(finished=True)
    assert (tmp_path / "mlflow.db").is_file()
    assert not tried


def test_a_record_that_fails_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("raise OSError('no such thing')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    record = MlflowRecord(tmp_path / "run")
    record.write(1, {"loss": 0.5})
    record.close(finished=True)
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "OSError: no such thing" in warning.getMessage()


def test_a_folder_of_that_name_is_no_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if has_mlflow():
        pytest.skip("MLflow is installed")
    (tmp_path / "mlflow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not has_mlflow()
