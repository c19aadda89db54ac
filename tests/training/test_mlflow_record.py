"""The record in MLflow, where it is installed: one run, also after a resume."""

from pathlib import Path

import pytest

from vismae.training.mlflow_record import MlflowRecord, has_mlflow


@pytest.mark.skipif(not has_mlflow(), reason="MLflow is not installed")
def test_a_resumed_run_goes_on_in_the_same_mlflow_run(tmp_path: Path):
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    for step, loss in ((1, 0.5), (2, 0.25)):
        record = MlflowRecord(tmp_path)
        record.write(step, {"loss": loss, "lr": 1.0})
        record.close()
    client = MlflowClient(f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    experiment = client.get_experiment_by_name("vismae")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
