"""What a study's runs noted of validation patients, read back."""

from pathlib import Path

import numpy as np
import pytest

from vismae.workflows.label_study.plan import Budget, Cell
from vismae.workflows.label_study.while_training import while_training

TENTH = Budget(fraction=0.1)


def note(folder: Path, start: str, seed: int, scores: dict[int, float] | None) -> Cell:
    """Write what a run notes: a row for each log line, some with a validation score."""
    cell = Cell("heart", start, TENTH, None, seed)
    run = cell.folder(folder)
    run.mkdir(parents=True)
    if scores is not None:
        steps = range(10, 81, 10)
        values = [scores.get(step, "") for step in steps]
        lines = [f"{step},0.5,{value}" for step, value in zip(steps, values, strict=True)]
        (run / "metrics.csv").write_text("step,loss,validation Dice\n" + "\n".join(lines) + "\n")
    return cell


def test_leads_are_paired_by_run_half_way_and_at_the_end(tmp_path: Path) -> None:
    cells = [
        note(tmp_path, "scratch", 0, {20: 0.1, 40: 0.4, 60: 0.5, 80: 0.6}),
        note(tmp_path, "scratch", 1, {20: 0.1, 40: 0.2, 60: 0.3, 80: 0.7}),
        note(tmp_path, "fast", 0, {20: 0.5, 40: 0.6, 60: 0.6, 80: 0.61}),
        # This seed is far better, whatever the start: its lead counts, its score does not.
        note(tmp_path, "fast", 1, {20: 0.5, 40: 0.5, 60: 0.7, 80: 0.8}),
        note(tmp_path, "fast", 2, {20: 0.9, 40: 0.9, 60: 0.9, 80: 0.9}),
        note(tmp_path, "slow", 0, {20: 0.1, 40: 0.3, 60: 0.5, 80: 0.8}),
        note(tmp_path, "guess", 0, None),
    ]
    found = while_training(cells, tmp_path, "scratch")
    assert found is not None
    table = found.table.set_index("start")
    assert table.index.tolist() == ["scratch", "fast", "slow"]
    assert table["runs"].tolist() == [2, 3, 1]
    assert table["steps"].tolist() == [80, 80, 80]
    assert table.loc["fast", "half way"] == pytest.approx((0.6 + 0.5 + 0.9) / 3)
    assert table.loc["fast", "lead half way"] == pytest.approx(((0.6 - 0.4) + (0.5 - 0.2)) / 2)
    assert table.loc["fast", "lead at the end"] == pytest.approx((0.01 + 0.1) / 2)
    assert table.loc["slow", "lead half way"] == pytest.approx(-0.1)
    assert table.loc[["scratch"], ["lead half way", "lead at the end"]].isna().to_numpy().all()
    steps, means = found.curves["scratch"]
    np.testing.assert_array_equal(steps, [20, 40, 60, 80])
    np.testing.assert_allclose(means, [0.1, 0.3, 0.4, 0.65])

    said = found.in_words("scratch", "patient", margin=0.19)
    assert said.startswith("On validation patients, at the same steps: ")
    assert "'fast' less 'scratch' is +0.250 half way and +0.055 at the end, so a part" in said
    assert "'slow' less 'scratch' is -0.100 half way and +0.200 at the end." in said
    # It shrank by .195: less than what is said to count.
    assert "speed" not in found.in_words("scratch", "patient", margin=0.2)


def test_a_run_that_was_validated_once_has_no_half_way(tmp_path: Path) -> None:
    cells = [note(tmp_path, start, 0, {20: 0.5}) for start in ("scratch", "other")]
    found = while_training(cells, tmp_path, "scratch")
    assert found is not None
    values = found.table[["half way", "end", "lead half way"]].to_numpy(float)
    np.testing.assert_array_equal(values, [[np.nan, 0.5, np.nan], [np.nan, 0.5, np.nan]])
    assert found.in_words("scratch", "patient", margin=0.02) == ""


def test_curves_of_runs_validated_at_other_steps_have_what_all_have(tmp_path: Path) -> None:
    cells = [
        note(tmp_path, "scratch", 0, {20: 0.1, 40: 0.2, 80: 0.4}),
        note(tmp_path, "scratch", 1, {20: 0.3, 60: 0.4, 80: 0.8}),
    ]
    found = while_training(cells, tmp_path, "scratch")
    assert found is not None
    steps, means = found.curves["scratch"]
    np.testing.assert_array_equal(steps, [20, 80])
    np.testing.assert_allclose(means, [0.2, 0.6])


def test_runs_without_validation_patients_say_nothing(tmp_path: Path) -> None:
    cells = [note(tmp_path, "scratch", seed, {}) for seed in (0, 1)]
    assert while_training(cells, tmp_path, "scratch") is None
