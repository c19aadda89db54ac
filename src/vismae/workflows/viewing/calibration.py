"""How far a classifier's probabilities came true in an evaluation, in one sentence."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from vismae.core.errors import SettingError
from vismae.core.model_card import TaskCard
from vismae.evaluation.calibration import (
    calibration_cases,
    calibration_error,
    reliability_curve,
)

UNCHECKED = (
    "These probabilities are the network's own and were not compared with outcomes: of ten images "
    "with 0.9, nine need not show the finding."
)
_SCORES = "scores.parquet"


def calibration_note(model: Path, task: TaskCard, evaluations: Sequence[Path]) -> str:
    """Return what is known of a classifier's calibration.

    Args:
        model: Its folder.
        task: Its classes.
        evaluations: Folders of ``vismae evaluate``; the one that names the model counts.

    Raises:
        SettingError: A folder holds no evaluation.
    """
    for folder in evaluations:
        if _model_of(folder) != model.resolve():
            continue
        scores = pd.read_parquet(folder / _SCORES)
        rows = scores[scores["metric"] == "probability"]
        if rows.empty or set(rows["class_name"]) != set(task.classes):
            raise SettingError(
                f"{folder}: scores of {', '.join(sorted(set(rows['class_name'])))}, but the model "
                f"has the classes {', '.join(task.classes)}. Evaluate this model again."
            )
        cases = rows.groupby("class_name").cumcount()
        columns = list(task.classes)
        values = rows.assign(case=cases).pivot(index="case", columns="class_name", values="value")
        truth = rows.assign(case=cases).pivot(index="case", columns="class_name", values="truth")
        error = calibration_error(
            reliability_curve(
                *calibration_cases(
                    values[columns].to_numpy(float),
                    truth[columns].to_numpy(bool),
                    task.multi_label,
                )
            )
        )
        return (
            f"In an evaluation of {len(values)} cases these probabilities were off by "
            f"{error:.2f} on average (expected calibration error). It holds for images like those."
        )
    return UNCHECKED


def _model_of(folder: Path) -> Path | None:
    """Return the model folder that an evaluation scored."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        found = Path(settings["model"])
        if not (folder / _SCORES).is_file():
            raise KeyError(_SCORES)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingError(
            f"{folder}: no evaluation was found there (config.yaml and {_SCORES} are needed). Give "
            "the --out folder of vismae evaluate."
        ) from error
    return found.resolve()
