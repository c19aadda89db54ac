"""The record of a run in MLflow, for those who have it installed: a sqlite file in the run folder.

``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows it. Nothing leaves the machine.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

_EXPERIMENT = "vismae"


def has_mlflow() -> bool:
    """Tell whether MLflow is installed, without importing it."""
    return importlib.util.find_spec("mlflow") is not None


class MlflowRecord:
    """One MLflow run, taken up again when its folder is resumed.

    Args:
        folder: Run folder; gets ``mlflow.db``.
    """

    def __init__(self, folder: Path) -> None:
        # MLflow reports its use over the network unless told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._metric = Metric
        self._client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').resolve().as_posix()}")
        known = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(
                _EXPERIMENT, artifact_location=(folder / "mlflow").resolve().as_uri()
            )
        )
        runs = self._client.search_runs([experiment], max_results=1)
        run = runs[0] if runs else self._client.create_run(experiment, run_name=folder.name)
        self._run_id = run.info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers to the record of a step."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._run_id)
