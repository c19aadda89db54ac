"""Scores by class and subgroup."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from vismae.evaluation.delong import compare_auroc
from vismae.evaluation.study_groups import aurocs_by_class, by_class, by_group
from vismae.evaluation.study_scores import TaskScores


def segmentation_rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "start": start,
            "budget": "10 %",
            "run": run,
            "patient_id": f"p{number}",
            "class_name": name,
            "metric": metric,
            "unit": "mm" if metric == "hd95" else "",
            "value": rng.random() + (5 if metric == "hd95" else 0),
        }
        for start in ("ours", "scratch")
        for run in ("0", "1")
        for number in range(8)
        for name in ("heart", "lung", "mean")
        for metric in ("dice", "hd95", "iou")
    )


def test_classes_are_paired_by_run_and_patient() -> None:
    rows = segmentation_rows()
    rows.loc[(rows["patient_id"] == "p3") & (rows["class_name"] == "lung"), "value"] = np.nan
    table = by_class(rows, ["ours", "scratch"], "scratch", "10 %", n=200)
    assert set(table["metric"]) == {"Dice", "HD95 (mm)"}
    assert set(table["class"]) == {"heart", "lung"}
    cell = table[(table["class"] == "lung") & (table["metric"] == "Dice")].set_index("start")
    values = rows[(rows["class_name"] == "lung") & (rows["metric"] == "dice")]
    mean = values.groupby("start")["value"].mean()
    assert cell.loc["ours", "n"] == 7
    assert cell.loc["ours", "score"].estimate == pytest.approx(mean["ours"])
    assert cell.loc["ours", "difference"].estimate == pytest.approx(mean["ours"] - mean["scratch"])
    assert cell.loc["scratch", "difference"].n == 0


def test_groups_are_of_test_patients() -> None:
    values = np.random.default_rng(1).random((2, 1, 3, 6))
    scores = TaskScores(
        task="t",
        metric="Dice",
        unit="patient",
        starts=("ours", "scratch"),
        budgets=("10 %",),
        fractions=(0.1,),
        labels=np.array([2.0]),
        runs=("0", "1", "2"),
        patients=tuple(f"p{n}" for n in range(6)),
        values=values,
    )
    groups = pd.Series({"p0": "A", "p1": "B", "p2": "A", "p3": "B", "p4": "A"})
    table = by_group(scores, groups, "scratch", "10 %", n=200).set_index(["group", "start"])
    assert table.loc[("A", "ours"), "n"] == 3
    assert table.loc[("A", "ours"), "score"].estimate == pytest.approx(
        values[0, 0][:, [0, 2, 4]].mean()
    )
    gap = (values[0, 0] - values[1, 0])[:, [1, 3]].mean()
    assert table.loc[("B", "ours"), "difference"].estimate == pytest.approx(gap)
    assert table.loc[("not known", "ours"), "n"] == 1
    assert np.isnan(table.loc[("not known", "ours"), "score"].low)


def test_aurocs_are_means_over_runs_and_tested_after_delong() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(40) < 0.4
    probability = {
        (start, run): np.clip(0.3 * truth + 0.7 * rng.random(40), 0, 1)
        for start in ("ours", "scratch")
        for run in ("0", "1")
    }
    rows = pd.DataFrame(
        {
            "start": start,
            "budget": "10 %",
            "run": run,
            "patient_id": f"p{n}",
            "class_name": "ill",
            "metric": "probability",
            "value": values[n],
            "truth": truth[n],
        }
        for (start, run), values in probability.items()
        for n in range(40)
    )
    table = aurocs_by_class(rows, ["ours", "scratch"], "scratch", "10 %").set_index("start")
    for start in ("ours", "scratch"):
        mean = np.mean([roc_auc_score(truth, probability[start, run]) for run in ("0", "1")])
        assert table.loc[start, "AUROC"].estimate == pytest.approx(mean, abs=1e-12)
    both = [np.stack([probability[s, r] for r in ("0", "1")]) for s in ("ours", "scratch")]
    expected = compare_auroc(*both, truth)
    assert table.loc["ours", "p"] == pytest.approx(expected.p_value)
    assert table.loc["ours", "difference"] == expected.difference
    assert np.isnan(table.loc["scratch", "p"])
