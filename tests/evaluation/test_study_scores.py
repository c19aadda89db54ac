"""Scores of a study as an array, against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from vismae.core.errors import DataError
from vismae.evaluation.statistics import paired_permutation
from vismae.evaluation.study_scores import cases_of, task_scores


def probabilities(
    start: str, run: str, cases: list[tuple[str, str, str]], budget: str = "100 %"
) -> pd.DataFrame:
    """Rows of a classifier that calls each (patient, class) the third word."""
    classes = sorted({truth for _, truth, _ in cases} | {called for _, _, called in cases})
    return pd.DataFrame(
        {
            "task": "t",
            "start": start,
            "budget": budget,
            "fraction": 1.0,
            "labelled_patients": 5,
            "run": run,
            "unit_of_cases": "patient",
            "patient_id": patient,
            "class_name": name,
            "metric": "probability",
            "value": 0.9 if called == name else 0.1,
            "truth": truth == name,
        }
        for name in classes
        for patient, truth, called in cases
    )


def random_cases(
    rng: np.random.Generator, patients: int, images: int = 1
) -> list[tuple[str, str, str]]:
    truth = rng.choice(["a", "b", "c"], size=patients * images, p=[0.6, 0.3, 0.1])
    truth[:3] = ["a", "b", "c"]
    return [
        (f"p{n // images}", str(own), str(own if rng.random() < 0.7 else rng.choice(["a", "b"])))
        for n, own in enumerate(truth)
    ]


@pytest.mark.parametrize("images", [1, 3])
def test_the_mean_over_patients_is_scikit_learns_balanced_accuracy(images: int) -> None:
    rng = np.random.default_rng(images)
    first = random_cases(rng, 20, images)
    # Another run on the same patients, with other answers.
    second = [(patient, own, str(rng.choice(["a", "b", "c"]))) for patient, own, _ in first]
    rows = pd.concat([probabilities("s", "0", first), probabilities("s", "1", second)])
    found = task_scores(rows, ["s"], "classify").at("s", "100 %")
    assert found.shape == (2, 20)
    for run, cases in zip(found, (first, second), strict=True):
        expected = balanced_accuracy_score([own for _, own, _ in cases], [c for *_, c in cases])
        assert run.mean() == pytest.approx(expected, abs=1e-9)


def test_the_spread_is_that_of_the_balanced_accuracy() -> None:
    # A rare class that is always missed, a common one always found: each draw of patients, with
    # its own number of rare ones, gives one half exactly.
    cases = [(f"p{n}", "a", "a") for n in range(27)] + [(f"q{n}", "b", "a") for n in range(3)]
    found = task_scores(probabilities("s", "0", cases), ["s"], "classify").at("s", "100 %")
    np.testing.assert_allclose(found, 0.5)


def test_three_rare_cases_that_one_start_finds_are_three_patients_and_no_more() -> None:
    common = [(f"p{n}", "a", "a") for n in range(27)]
    found = [*common, *((f"q{n}", "b", "b") for n in range(3))]
    missed = [*common, *((f"q{n}", "b", "a") for n in range(3))]
    rows = pd.concat([probabilities("s", "0", found), probabilities("t", "0", missed)])
    scores = task_scores(rows, ["s", "t"], "classify")
    swapped = [scores.swapped_at(start, "100 %")[0] for start in ("s", "t")]
    assert [one.mean() for one in swapped] == pytest.approx([1.0, 0.5])
    # Of the 8 ways to swap three patients the two extreme ones are this far apart.
    assert paired_permutation(*swapped) == pytest.approx(2 / 8, abs=0.02)


def test_a_case_is_called_the_most_probable_class() -> None:
    cases = cases_of(probabilities("s", "0", [("p", "a", "b"), ("q", "b", "b")]))
    assert cases[["patient_id", "own", "called", "hit"]].to_numpy().tolist() == [
        ["p", "a", "b", 0.0],
        ["q", "b", "b", 1.0],
    ]


def dice_rows(values: dict[tuple[str, str, str], list[float]]) -> pd.DataFrame:
    labels = {"10 %": 2, "100 %": 20}
    return pd.DataFrame(
        {
            "task": "t",
            "start": start,
            "budget": budget,
            "fraction": labels[budget] / 20,
            "labelled_patients": labels[budget],
            "run": run,
            "unit_of_cases": "patient",
            "patient_id": f"p{number}",
            "class_name": name,
            "metric": "dice",
            "value": value if name == "mean" else 0.0,
        }
        for (start, budget, run), scores in values.items()
        for number, value in enumerate(scores)
        for name in ("mean", "heart")
    )


def test_dice_is_placed_by_start_budget_run_and_patient() -> None:
    rows = dice_rows(
        {
            ("s", "100 %", "0"): [0.8, 0.9],
            ("s", "10 %", "0"): [0.5, np.nan],
            ("t", "100 %", "1"): [0.7, 0.6],
        }
    )
    scores = task_scores(rows, ["t", "s", "never run"], "segment")
    assert scores.starts == ("t", "s")
    assert scores.budgets == ("10 %", "100 %")
    assert scores.labels.tolist() == [2, 20]
    assert scores.fractions == (0.1, 1.0)
    assert scores.metric == "Dice"
    np.testing.assert_array_equal(scores.at("s", "100 %"), [[0.8, 0.9], [np.nan, np.nan]])
    np.testing.assert_array_equal(scores.of("s")[0], [[0.5, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(scores.at("t", "100 %"), [[np.nan, np.nan], [0.7, 0.6]])


def test_a_task_without_a_run_is_refused() -> None:
    with pytest.raises(DataError, match="no run"):
        task_scores(dice_rows({}).reindex(columns=["task"]), ["s"], "segment")
