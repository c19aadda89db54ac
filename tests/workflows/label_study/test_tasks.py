"""A study's tasks before the first run: stores, budgets, test patients, pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factories import write_png
from stores import classification_store, disc, record, segmentation_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig
from vismae.data.store import Store, StoreWriter
from vismae.workflows.label_study.tasks import PreparedTask, prepare_task


def prepared(kind: str, source: Path, out: Path, **more: Any) -> PreparedTask:
    config = StudyConfig.model_validate(
        {
            "out": out,
            "tasks": {"t": {"kind": kind, "sources": [source]}},
            "starts": {"scratch": {}},
            "baseline": "scratch",
            "label_fractions": [0.05, 0.25, 0.5, 1.0],
            **more,
        }
    )
    finetunings = {
        fold: build_config(
            FinetuneConfig,
            "finetune",
            options={
                "task.kind": kind,
                "data.sources": [source],
                "out": out,
                "fold": fold,
                **config.settings,
            },
        )
        for fold in config.folds or (None,)
    }
    return prepare_task(config, "t", out, finetunings)


def reasons(task: PreparedTask) -> dict[str, str]:
    return {entry.budget.name: entry.reason for entry in task.left_out}


def test_budgets_below_a_patient_or_without_a_class_are_left_out_with_a_reason(
    tmp_path: Path,
) -> None:
    store = classification_store(tmp_path / "store", 17, labels=("a", "b", "c")).folder
    task = prepared("classify", store, tmp_path / "out", label_patients=[1, 3, 40])
    # 12 of the 17 patients train: a twentieth is less than one, a quarter is three again.
    assert task.training_patients == {None: 12}
    assert [budget.name for budget in task.budgets] == ["3 patients", "50 %", "100 %"]
    found = reasons(task)
    assert found["5 %"] == "less than one of 12 training patients"
    assert found["25 %"] == "the same 3 patients as 3 patients"
    assert found["40 patients"] == "there are only 12 training patients"
    assert "no image of class" in found["1 patient"]


def test_a_class_is_looked_for_in_the_label_maps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    lines = ["path,label_map,patient_id,split"]
    for number in range(8):
        label_map = np.zeros((24, 24), np.uint8)
        label_map[4:9, 4:9] = 1
        if number in (0, 6):
            label_map[15:20, 15:20] = 2  # of the six who train, the first alone has it
        write_png(folder / f"i{number}.png", rng.integers(0, 255, (24, 24)).astype(np.uint8))
        write_png(folder / f"l{number}.png", label_map)
        split = "train" if number < 6 else "val" if number == 6 else "test"
        lines.append(f"i{number}.png,l{number}.png,p{number},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    task = prepared("segment", folder, tmp_path / "out", label_fractions=[0.5, 1.0], seeds=range(8))
    assert [budget.name for budget in task.budgets] == ["100 %"]
    assert "no image of class" in reasons(task)["50 %"]


def test_a_class_that_no_training_patient_has_is_known_before_the_first_run(tmp_path: Path) -> None:
    labels, splits = ("a", "b", "a", "b", "c"), ("train", "train", "val", "train", "test")
    store = classification_store(tmp_path / "store", 10, labels=labels, splits=splits).folder
    task = prepared("classify", store, tmp_path / "out", label_fractions=[1.0])
    assert task.unlearnt == ("c",)
    every = classification_store(tmp_path / "every", 17, labels=("a", "b", "c")).folder
    assert prepared("classify", every, tmp_path / "out", label_fractions=[1.0]).unlearnt == ()


def test_what_no_run_uses_is_counted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with StoreWriter(store) as writer:
        for number in range(12):
            pixels = np.full((8, 8), number, np.uint8)
            label = None if number == 3 else "ab"[number % 2]
            writer.add(record(f"p{number}", pixels, label=label), pixels)
    assert prepared("classify", store, tmp_path / "out", label_fractions=[1.0]).unused == (
        "1 image without a label",
    )
    (store / "rejected.csv").write_text("file,reason,meaning\n1,not-found,no\n2,empty,no\n")
    assert prepared("classify", store, tmp_path / "out", label_fractions=[1.0]).unused == (
        "2 files that could not be used (rejected.csv of the store says why)",
        "1 image without a label",
    )


def test_a_task_without_any_budget_or_test_patient_is_refused(tmp_path: Path) -> None:
    store = classification_store(tmp_path / "a", 12).folder
    with pytest.raises(DataError, match="none of the label budgets: 5 %"):
        prepared("classify", store, tmp_path / "out", label_fractions=[0.05])
    splits = classification_store(tmp_path / "b", 12, splits=("train", "train", "val")).folder
    with pytest.raises(DataError, match="no test patients"):
        prepared("classify", splits, tmp_path / "out")


def test_folds_share_their_test_patients_and_their_store(tmp_path: Path) -> None:
    store = classification_store(tmp_path / "store", 20).folder
    task = prepared("classify", store, tmp_path / "out", folds=[1, 2])
    assert task.stores == {1: store, 2: store}
    assert set(task.training_patients) == {1, 2}


def test_folds_of_the_reference_layout_are_stores_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number in range(10):
        write_png(folder / f"i{number}.png", rng.integers(0, 255, (24, 24)).astype(np.uint8))
    for fold in (1, 2):
        for split, numbers in (
            ("train", [n for n in range(8) if n // 4 != fold - 1]),
            ("val", [n for n in range(8) if n // 4 == fold - 1]),
            ("test", [8, 9]),
        ):
            rows = [f"i{n}.png,{'ab'[n % 2]},p{n},{'xy'[n % 2]}" for n in numbers]
            table = folder / f"{split}_fold{fold}.csv"
            table.write_text("\n".join(["path,label,patient_id,site", *rows]) + "\n")
    task = prepared("classify", folder, tmp_path / "out", folds=[1, 2], label_fractions=[1.0])
    first, second = (Store(task.stores[fold]).index for fold in (1, 2))
    trained = [set(index.loc[index["split"] == "train", "patient_id"]) for index in (first, second)]
    assert trained == [{"p4", "p5", "p6", "p7"}, {"p0", "p1", "p2", "p3"}]
    patients = pd.read_parquet(tmp_path / "out" / "tasks" / "t" / "patients.parquet")
    assert patients.to_dict("list") == {
        "patient_id": ["p8", "p9"],
        "modality": ["other", "other"],
        "site": ["x", "y"],
    }


def test_pictures_show_the_slice_with_most_to_see(tmp_path: Path) -> None:
    store = segmentation_store(tmp_path / "store", patients=10, slices=3)
    task = prepared("segment", store.folder, tmp_path / "out", label_fractions=[1.0])
    assert len(task.pictured) == 2
    for row in task.pictured:
        index = store.index
        of_patient = index.index[index["patient_id"] == index.at[row, "patient_id"]]
        areas = {other: int((store.read(other).label_map > 0).sum()) for other in of_patient}
        assert areas[row] == max(areas.values())


def with_sites(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient_id,site"]
    for number in range(16):
        write_png(folder / f"i{number}.png", rng.integers(0, 255, (24, 24)).astype(np.uint8))
        lines.append(f"i{number}.png,{'ab'[number % 2]},p{number},{'xyz'[number % 3]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_subgroup_that_is_no_column_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder, out = with_sites(tmp_path / "data"), tmp_path / "out"
    task = {"kind": "classify", "sources": [folder]}
    with pytest.raises(SettingError, match=r"'t': subgroups has 'sitee'.*site.*Did you mean site"):
        prepared("classify", folder, out, tasks={"t": {**task, "subgroups": ["sitee"]}})
    assert not (out / "stores").exists()
    asked = {"t": {**task, "subgroups": ["Site", "modality"]}}
    prepared("classify", folder, out, tasks=asked)
    assert "site" in pd.read_parquet(out / "tasks" / "t" / "patients.parquet").columns


def test_a_subgroup_that_a_store_does_not_have_is_refused_too(tmp_path: Path) -> None:
    store = classification_store(tmp_path / "store", 16).folder
    task = {"kind": "classify", "sources": [store], "subgroups": ["colour"]}
    with pytest.raises(SettingError, match=r"'colour', but its data have no such column.*age_band"):
        prepared("classify", store, tmp_path / "out", tasks={"t": task})


def test_a_task_whose_test_label_maps_are_all_empty_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(12):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            split = ("train", "val", "test")[number % 3]
            label_map = disc((32, 32), (16, 16), 6) * np.uint8(split != "test")
            writer.add(record(f"p{number}", pixels, split=split), pixels, label_map)
    with pytest.raises(DataError, match="'t': the label maps of all 4 test patients are empty"):
        prepared("segment", tmp_path / "store", tmp_path / "out")
