"""What the page says of probabilities: measured where an evaluation did, else that nobody did."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from vismae.core.errors import SettingError
from vismae.core.model_card import TaskCard
from vismae.workflows.viewing.calibration import UNCHECKED, calibration_note

TASK = TaskCard(classes=("healthy", "lesion"))


def write_evaluation(folder: Path, model: Path, classes: tuple[str, ...] = TASK.classes) -> Path:
    """Scores of 40 cases: always 0.9 for the class that is right in 30 of them."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": str(model)}))
    right = np.arange(40) < 30
    rows = [
        pd.DataFrame(
            {
                "patient_id": [f"P{k}" for k in range(40)],
                "class_name": name,
                "metric": "probability",
                "value": value,
                "truth": right if value == 0.9 else ~right,
            }
        )
        for name, value in zip(classes, (0.9, 0.1), strict=True)
    ]
    pd.concat(rows).to_parquet(folder / "scores.parquet", index=False)
    return folder


def test_an_evaluation_of_the_model_gives_its_error(tmp_path: Path) -> None:
    model = tmp_path / "model"
    found = write_evaluation(tmp_path / "evaluation", model)
    note = calibration_note(model, TASK, [found])
    # Of probabilities of 0.9, 75 of 100 came true.
    assert "40 cases" in note
    assert "off by 0.15" in note


def test_without_one_or_with_another_models_nothing_is_claimed(tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "evaluation", tmp_path / "other")
    assert calibration_note(tmp_path / "model", TASK, []) == UNCHECKED
    assert calibration_note(tmp_path / "model", TASK, [other]) == UNCHECKED


def test_a_folder_without_an_evaluation_and_one_of_other_classes_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingError, match="no evaluation was found"):
        calibration_note(tmp_path / "model", TASK, [tmp_path])
    other = write_evaluation(tmp_path / "evaluation", tmp_path / "model", ("cat", "dog"))
    with pytest.raises(SettingError, match="cat, dog"):
        calibration_note(tmp_path / "model", TASK, [other])
