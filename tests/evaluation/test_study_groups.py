"""Scores by class and subgroup."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from vismae.evaluation.delong import compare_auroc
from vismae.evaluation.statistics import holm
from vismae.evaluation.study_groups import aurocs_by_class, by_class, by_group


def segmentation_rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "start": start,
            "task": "t",
            "budget": "10 %",
            "fraction": 0.1,
            "labelled_patients": 3,
            "unit_of_cases": "patient",
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
    rows = segmentation_rows()
    groups = pd.Series({"p0": "A", "p1": "B", "p2": "A", "p3": "B", "p4": "A", "p5": "A"})
    groups["p6"] = "B"
    starts = ["ours", "scratch"]
    table = by_group(rows, starts, "segment", groups, "scratch", "10 %", n=200)
    table = table.set_index(["group", "start"])
    means = rows[(rows["class_name"] == "mean") & (rows["metric"] == "dice")]
    means = means.assign(group=means["patient_id"].map(groups).fillna("not known"))
    expected = means.groupby(["group", "start"])["value"].mean()
    assert table.loc[("A", "ours"), "n"] == 4
    assert table.loc[("A", "ours"), "score"].estimate == pytest.approx(expected["A", "ours"])
    gap = expected["B", "ours"] - expected["B", "scratch"]
    assert table.loc[("B", "ours"), "difference"].estimate == pytest.approx(gap)
    assert table.loc[("not known", "ours"), "n"] == 1
    assert np.isnan(table.loc[("not known", "ours"), "score"].low)


def test_the_balanced_accuracy_of_a_group_is_its_own() -> None:
    rng = np.random.default_rng(4)
    site = np.repeat(["A", "B"], 30)
    truth = rng.random(60) < np.where(site == "A", 0.8, 0.3)
    ill = {s: np.clip(0.3 * truth + 0.6 * rng.random(60), 0, 1) for s in ("ours", "scratch")}
    rows = pd.DataFrame(
        {
            "task": "t",
            "start": start,
            "budget": "10 %",
            "fraction": 0.1,
            "labelled_patients": 4,
            "unit_of_cases": "patient",
            "run": "0",
            "patient_id": f"p{n:02d}",
            "class_name": name,
            "metric": "probability",
            "value": value,
            "truth": own,
        }
        for start, probability in ill.items()
        for n in range(60)
        for name, value, own in (
            ("ill", probability[n], truth[n]),
            ("well", 1 - probability[n], not truth[n]),
        )
    )
    groups = pd.Series(site, index=[f"p{n:02d}" for n in range(60)])
    table = by_group(rows, ["ours", "scratch"], "classify", groups, "scratch", "10 %", n=200)
    table = table.set_index(["group", "start"])
    for name in ("A", "B"):
        for start, probability in ill.items():
            within = site == name
            own = balanced_accuracy_score(truth[within], probability[within] > 0.5)
            assert table.loc[(name, start), "score"].estimate == pytest.approx(own, abs=1e-12)


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
            "patient_id": f"p{n:02d}",
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
    assert table["n"].tolist() == [40, 40]
    assert table["positive"].tolist() == [truth.sum()] * 2
    # Runs may list their cases in any order.
    shuffled = rows.sample(frac=1, random_state=0)
    again = aurocs_by_class(shuffled, ["ours", "scratch"], "scratch", "10 %").set_index("start")
    assert again.loc["ours", "p"] == pytest.approx(table.loc["ours", "p"])


def test_two_classes_have_the_same_auroc_and_are_adjusted_for_once() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(30) < 0.5
    rows = pd.concat(
        pd.DataFrame(
            {
                "start": start,
                "budget": "10 %",
                "run": "0",
                "patient_id": [f"p{n:02d}" for n in range(30)],
                "class_name": name,
                "metric": "probability",
                "value": probability if name == "ill" else 1 - probability,
                "truth": truth if name == "ill" else ~truth,
            }
        )
        for start, pull in (("ours", 0.4), ("other", 0.2), ("scratch", 0.1))
        for probability in [np.clip(pull * truth + 0.6 * rng.random(30), 0, 1)]
        for name in ("ill", "well")
    )
    table = aurocs_by_class(rows, ["ours", "other", "scratch"], "scratch", "10 %")
    ill, well = (table[table["class"] == name].reset_index() for name in ("ill", "well"))
    assert [found.estimate for found in ill["AUROC"]] == pytest.approx(
        [found.estimate for found in well["AUROC"]]
    )
    expected = holm(ill["p"].to_numpy())
    np.testing.assert_allclose(ill["p (Holm)"], expected)
    np.testing.assert_allclose(well["p (Holm)"], expected)


def test_no_distance_is_below_zero() -> None:
    rows = segmentation_rows()
    far = (rows["metric"] == "hd95") & (rows["run"] == "1")
    rows.loc[far, "value"] += 40
    table = by_class(rows, ["ours", "scratch"], "scratch", "10 %", n=200)
    scores = table[table["metric"] == "HD95 (mm)"]["score"]
    assert [score.low for score in scores] == [0.0] * 4
    assert all(score.high > score.estimate > 20 for score in scores)
