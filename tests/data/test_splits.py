from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vismae.core.errors import DataError
from vismae.data.splits import (
    fold_split,
    label_fraction_patients,
    read_splits_csv,
    split_patients,
    write_splits_csv,
)


def index(
    patients: int = 50,
    slices: int = 3,
    labels: tuple[str | None, ...] = (None,),
    splits: dict[str, str | None] | None = None,
) -> pd.DataFrame:
    """Return index rows; labels go round the patients."""
    rows = [
        {
            "patient_id": f"P{patient}",
            "modality": "ct",
            "label": labels[patient % len(labels)],
            "split": (splits or {}).get(f"P{patient}"),
        }
        for patient in range(patients)
        for _ in range(slices)
    ]
    return pd.DataFrame(rows)


def test_patients_are_divided_exactly_by_the_fractions() -> None:
    splits = split_patients(index(50), (0.7, 0.1, 0.2))

    assert Counter(splits.values()) == {"train": 35, "val": 5, "test": 10}
    assert list(splits) == sorted(splits)


def test_every_label_has_its_share_of_every_split() -> None:
    rows = index(90, labels=("a", "a", "b"))
    splits = split_patients(rows)
    label = dict(zip(rows["patient_id"], rows["label"], strict=True))

    for name, count in (("a", 60), ("b", 30)):
        found = Counter(split for patient, split in splits.items() if label[patient] == name)
        assert abs(found["train"] - 0.7 * count) <= 1
        assert abs(found["val"] - 0.1 * count) <= 1
        assert abs(found["test"] - 0.2 * count) <= 1


def test_many_labels_on_few_patients_still_fill_every_split() -> None:
    splits = split_patients(index(10, labels=tuple("abcdefghij")))
    assert Counter(splits.values()) == {"train": 7, "val": 1, "test": 2}


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    rows = index(40, labels=("a", "b"))

    assert split_patients(rows, seed=1) == split_patients(
        rows.sample(frac=1, random_state=0), seed=1
    )
    assert split_patients(rows, seed=1) != split_patients(rows, seed=2)


def test_three_patients_are_one_each_and_fewer_are_refused() -> None:
    assert sorted(split_patients(index(3)).values()) == ["test", "train", "val"]
    with pytest.raises(DataError, match="2 patients cannot be divided"):
        split_patients(index(2))


def test_given_splits_are_honoured() -> None:
    given = {f"P{n}": ("train", "val", "test", "pretrain")[n % 4] for n in range(20)}
    assert split_patients(index(20, splits=dict(given))) == dict(sorted(given.items()))


def test_a_missing_val_comes_out_of_train_and_never_out_of_test() -> None:
    given = {f"P{n}": "test" if n < 10 else "train" for n in range(50)}

    splits = split_patients(index(50, splits=dict(given)))

    assert Counter(splits.values()) == {"train": 35, "val": 5, "test": 10}
    assert all(splits[f"P{n}"] == "test" for n in range(10))


def test_a_missing_test_stays_missing() -> None:
    given = {f"P{n}": "val" if n < 2 else "train" for n in range(10)}
    assert split_patients(index(12, splits=dict(given)))["P0"] == "val"
    assert "test" not in split_patients(index(12, splits=dict(given))).values()


def test_patients_without_a_split_are_divided_beside_those_with_one() -> None:
    given = {"P0": "train", "P1": "val", "P2": "test"}

    splits = split_patients(index(43, splits=dict(given)))

    assert {patient: splits[patient] for patient in given} == given
    assert Counter(splits.values()) == {"train": 29, "val": 5, "test": 9}


def test_a_patient_in_two_splits_is_an_error_that_names_both() -> None:
    rows = index(4, splits={f"P{n}": "train" for n in range(4)})
    rows.loc[0, "split"] = "test"

    with pytest.raises(
        DataError, match=r"patient 'P0' is in test \(1 images\) and train \(2 images\)"
    ):
        split_patients(rows)


def test_images_for_learning_only_never_clash() -> None:
    rows = index(4, splits={"P0": "train", "P1": "val", "P2": "test", "P3": "train"})
    rows.loc[0, "split"] = "pretrain"

    assert split_patients(rows)["P0"] == "train"


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="No image is in split train, found test 3"):
        split_patients(index(3, splits={f"P{n}": "test" for n in range(3)}))


def test_each_patient_is_val_in_exactly_one_of_five_folds_and_test_never_changes() -> None:
    given = {f"P{n}": "test" if n < 6 else "train" for n in range(31)}
    rows = index(31, labels=("a", "b"), splits=dict(given))

    folds = [fold_split(rows, fold) for fold in range(1, 6)]

    for splits in folds:
        assert {p for p, split in splits.items() if split == "test"} == {f"P{n}" for n in range(6)}
    val = Counter(p for splits in folds for p, split in splits.items() if split == "val")
    assert val == {f"P{n}": 1 for n in range(6, 31)}
    assert [Counter(splits.values())["val"] for splits in folds] == [5] * 5


def test_folds_that_do_not_exist_or_cannot_be_filled_are_errors() -> None:
    with pytest.raises(DataError, match="--fold 6 does not exist; choose 1 to 5"):
        fold_split(index(20), 6)
    with pytest.raises(DataError, match="4 patients cannot be divided into 5 folds"):
        fold_split(index(5), 1)


def test_smaller_fractions_are_subsets_of_larger_ones() -> None:
    rows = index(47, labels=("a", "b", "c"))
    patients = [f"P{n}" for n in range(3, 40)]
    chosen = [
        label_fraction_patients(rows, patients, fraction, seed=5)
        for fraction in (0.01, 0.1, 0.25, 0.5, 0.99, 1.0)
    ]

    assert [len(found) for found in chosen] == [1, 4, 9, 19, 37, 37]
    assert chosen[-1] == sorted(patients)
    for small, large in pairwise(chosen):
        assert set(small) <= set(large)
    assert label_fraction_patients(rows, patients, 0.25, seed=6) != chosen[2]


def test_every_class_is_present_as_soon_as_there_is_a_patient_for_each() -> None:
    # One patient in twenty is of the rare class.
    rows = index(100, labels=("rare", *["common"] * 19))
    patients = [f"P{n}" for n in range(100)]
    label = dict(zip(rows["patient_id"], rows["label"], strict=True))

    for seed in range(20):
        chosen = label_fraction_patients(rows, patients, 0.02, seed)
        assert {label[patient] for patient in chosen} == {"rare", "common"}
        half = label_fraction_patients(rows, patients, 0.5, seed)
        assert 2 <= sum(label[patient] == "rare" for patient in half) <= 3


def test_labels_joined_by_a_bar_are_each_represented() -> None:
    rows = index(30, labels=("a|b", "c", "a"))
    chosen = label_fraction_patients(rows, set(rows["patient_id"]), 2 / 30)
    labels = "|".join(rows[rows["patient_id"].isin(chosen)]["label"].unique())

    assert set(labels.split("|")) >= {"a", "c"}


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01])
def test_fractions_outside_zero_to_one_are_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="--label-fraction"):
        label_fraction_patients(index(5), ["P0"], fraction)


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    splits = {"P2": "test", 'with "quotes", commas': "train"}
    write_splits_csv(tmp_path / "splits.csv", splits)

    assert read_splits_csv(tmp_path / "splits.csv") == splits
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns patient_id and split"):
        read_splits_csv(tmp_path / "other.csv")


def test_a_seed_keeps_its_split_from_version_to_version() -> None:
    rows = index(14, labels=("a", "b"), splits={"P0": "test", "P3": "train", "P9": "pretrain"})
    wanted = {
        "pretrain": {"P9"},
        "test": {"P0", "P13", "P8"},
        "train": {"P1", "P10", "P12", "P2", "P3", "P4", "P5", "P6", "P7"},
        "val": {"P11"},
    }

    # A store gives its columns as categories.
    for table in (rows, rows.astype("category"), rows.sample(frac=1, random_state=0)):
        splits = split_patients(table, seed=4)
        found = {name: {p for p in splits if splits[p] == name} for name in wanted}
        assert found == wanted
        chosen = label_fraction_patients(table, [f"P{n}" for n in range(14)], 0.3, 4)
        assert chosen == ["P0", "P12", "P7", "P9"]


_PREVALENCE = (0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03)


def findings(number: int) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return 200 patients of a simulated data set with up to ten findings each, and how many."""
    found = np.random.default_rng(number).random((200, len(_PREVALENCE))) < _PREVALENCE
    names = [f"{number}-{patient}" for patient in range(200)]
    rows = pd.DataFrame(
        {
            "patient_id": names,
            "modality": "xr",
            "label": ["|".join(f"f{k}" for k in np.flatnonzero(row)) or None for row in found],
            "split": None,
        }
    )
    return rows, dict(zip(names, found.sum(axis=1).tolist(), strict=True))


def test_patients_with_rare_combinations_are_as_common_in_every_split_and_subset() -> None:
    shares: dict[str, list[float]] = {"all": [], "train": [], "val": [], "test": [], "subset": []}
    for number in range(60):
        rows, counts = findings(number)
        splits = split_patients(rows)
        parts = {
            name: [patient for patient in counts if splits[patient] == name]
            for name in ("train", "val", "test")
        }
        # A quarter is far more than the patients that every class takes to be there at all.
        parts["subset"] = label_fraction_patients(rows, list(counts), 0.25)
        parts["all"] = list(counts)
        for name, patients in parts.items():
            shares[name].append(float(np.mean([counts[patient] >= 3 for patient in patients])))

    whole = np.mean(shares.pop("all"))
    assert 0.07 < whole < 0.11
    for found in shares.values():
        spread = np.std(found) / len(found) ** 0.5
        assert np.mean(found) == pytest.approx(whole, abs=4 * spread)
        assert np.mean(found) == pytest.approx(whole, abs=0.035)


def test_rare_classes_are_as_common_in_every_split() -> None:
    rng = np.random.default_rng(0)
    counts = Counter[str]()
    rare = Counter[str]()
    for number in range(60):
        patients = np.repeat([f"{number}-{patient}" for patient in range(100)], 3)
        labels = rng.choice(list("abcdef"), len(patients), p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
        rows = pd.DataFrame({"patient_id": patients, "modality": "us", "label": labels})
        splits = rows["patient_id"].map(split_patients(rows.assign(split=None)))
        counts.update(splits)
        rare.update(splits[rows["label"].isin(["e", "f"])])

    for name in ("train", "val", "test"):
        assert rare[name] / counts[name] == pytest.approx(0.1, abs=0.025)


def test_each_finding_has_about_its_share_of_every_split_though_few_combinations_recur() -> None:
    wrong: list[float] = []
    for number in range(40):
        rows, _ = findings(number)
        splits = rows["patient_id"].map(split_patients(rows))
        has = rows["label"].fillna("").str.contains("f9")  # the rarest, six patients
        wrong.append(has[splits == "test"].sum() - 0.2 * has.sum())

    # Without strata the standard deviation were 0.98.
    assert np.std(wrong) < 0.75
