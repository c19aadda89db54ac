"""The record of a run in MLflow, for those who have it installed: a sqlite file in the run folder.

``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows it. Nothing leaves the machine.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_EXPERIMENT = "vismae"
_MOST_METRICS = 1000  # of one call


def has_mlflow() -> bool:
    """Tell whether MLflow is installed, without importing it."""
    found = importlib.util.find_spec("mlflow")
    # Any folder of that name, as of its data, is a package without a file.
    return found is not None and found.origin is not None


class MlflowRecord:
    """One MLflow run, taken up again when its folder is resumed.

    The record is kept beside ``metrics.csv`` and is no reason to stop a training: where MLflow
    fails, one warning says so and the run goes on without it.

    Args:
        folder: Run folder; gets ``mlflow.db``.
        resume_step: Step the run goes on from; what an earlier try has recorded beyond it goes.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        self._run: _Run | None = None
        try:
            self._run = _Run(folder, resume_step)
        except Exception as error:
            self._give_up(error)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers to the record of a step."""
        if self._run is None:
            return
        try:
            self._run.write(step, values)
        except Exception as error:
            # Such as a database that somebody who looks at it holds locked.
            self._give_up(error)

    def close(self, finished: bool) -> None:
        """Mark the run as ended.

        Args:
            finished: It did all its steps.
        """
        if self._run is None:
            return
        try:
            self._run.end("FINISHED" if finished else "KILLED")
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        logger.warning(
            "MLflow keeps no record from here on (%s: %s); metrics.csv does. monitor.mlflow=off "
            "leaves it out",
            type(error).__name__,
            str(error).partition("\n")[0],
        )


class _Run:
    """A run in the database of one folder."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        # MLflow reports its use over the network unless told not to before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        # Their news are of tables being made.
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._metric = Metric
        address = f"sqlite:///{(folder / 'mlflow.db').resolve().as_posix()}"
        self._client = MlflowClient(address, registry_uri=address)
        known = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(
                _EXPERIMENT, artifact_location=(folder / "mlflow").resolve().as_uri()
            )
        )
        runs = self._client.search_runs([experiment], max_results=1)
        if not runs:
            self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
            return
        self._id = runs[0].info.run_id
        self._client.update_run(self._id, status="RUNNING")
        self._take_back(experiment, runs[0], resume_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, status: str) -> None:
        self._client.set_terminated(self._id, status)

    def _take_back(self, experiment: str, run: Any, resume_step: int) -> None:
        """Go on in a copy that ends at a step, where more was recorded: MLflow forgets nothing."""
        history = [
            metric
            for name in run.data.metrics
            for metric in self._client.get_metric_history(self._id, name)
        ]
        kept = [metric for metric in history if metric.step <= resume_step]
        if len(kept) == len(history):
            return
        copy = self._client.create_run(
            experiment, start_time=run.info.start_time, run_name=run.info.run_name
        )
        for start in range(0, len(kept), _MOST_METRICS):
            self._client.log_batch(copy.info.run_id, metrics=kept[start : start + _MOST_METRICS])
        self._client.delete_run(self._id)
        self._id = copy.info.run_id
