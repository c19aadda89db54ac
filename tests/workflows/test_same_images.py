"""Labels that are corrected between two calls are told, and never mixed with the old ones."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factories import write_png
from stores import SMALL_RUN, classification_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError, TrainingError
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig
from vismae.workflows.finetune import finetune
from vismae.workflows.study import study


def write_data(folder: Path, kind: str) -> pd.DataFrame:
    """Twelve images of as many patients; label maps are a square at the upper left."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        pixels[:16] //= 1 + number % 2 * 2
        write_png(folder / f"{number}.png", pixels)
        square = np.zeros((32, 32), np.uint8)
        square[2:12, 2 : 10 + number] = 1
        write_png(folder / f"{number}_square.png", square)
        split = "train" if number < 6 else "val" if number < 8 else "test"
        target = f"{number}_square.png" if kind == "segment" else "ab"[number % 2]
        rows.append((f"{number}.png", target, f"p{number:02d}", split, "xr"))
    columns = ["path", "label_map" if kind == "segment" else "label", "patient_id", "split"]
    table = pd.DataFrame(rows, columns=pd.Index([*columns, "modality"]))
    table.to_csv(folder / "manifest.csv", index=False)
    return table


def config(data: Path, out: Path, kind: str, **changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": out,
            "tasks": {"shades": {"kind": kind, "sources": [data]}},
            "starts": {"scratch": {}, "guess": {"trivial": True}},
            "baseline": "guess",
            "label_fractions": [1.0],
            "seeds": [0],
            "settings": {**SMALL_RUN, "trainer.max_steps": 1},
            "bootstrap": 100,
            "executor": "here",
            **changes,
        }
    )


def test_a_label_that_was_corrected_is_told_before_another_run_is_done(tmp_path: Path) -> None:
    table = write_data(tmp_path / "data", "classify")
    settings = config(tmp_path / "data", tmp_path / "out", "classify")
    assert study(settings).runs == 2
    table.loc[11, "label"], table.loc[3, "split"] = "a", "val"
    table.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    further = settings.model_copy(update={"resume": True, "seeds": (0, 1)})
    with pytest.raises(DataError) as refused:
        study(further)
    message = str(refused.value)
    assert "label of 1 image (patient or group p11, such as 'b', now 'a')" in message
    assert "split of 1 image (patient or group p03, such as 'train', now 'val')" in message
    assert f"remove {tmp_path / 'out' / 'runs' / 'shades'}" in message
    # What the message says to do gives what a new study of the corrected data gives.
    for run in (tmp_path / "out" / "runs" / "shades").rglob("scores.parquet"):
        run.unlink()
    again = study(further)
    anew = study(config(tmp_path / "data", tmp_path / "new", "classify", seeds=[0, 1]))
    columns = [
        name for name in pd.read_parquet(anew.folder / "scores.parquet") if name != "seconds"
    ]
    scores = [pd.read_parquet(found.folder / "scores.parquet")[columns] for found in (again, anew)]
    pd.testing.assert_frame_equal(scores[0], scores[1])
    truth = scores[0][(scores[0]["patient_id"] == "p11") & (scores[0]["class_name"] == "a")]
    assert truth["truth"].astype(bool).all()


def test_a_label_map_that_was_redrawn_is_told_and_a_touched_file_is_not(tmp_path: Path) -> None:
    write_data(tmp_path / "data", "segment")
    settings = config(tmp_path / "data", tmp_path / "out", "segment")
    study(settings)
    again = settings.model_copy(update={"resume": True})
    os.utime(tmp_path / "data" / "9.png", (1, 1))
    os.utime(tmp_path / "data" / "9_square.png", (1, 1))
    assert study(again).runs == 2
    write_png(tmp_path / "data" / "9_square.png", np.eye(32, dtype=np.uint8))
    with pytest.raises(DataError, match=r"label map of 1 image \(patient or group p09\)"):
        study(again)


def test_new_and_missing_images_are_told_but_an_absent_source_is_not(tmp_path: Path) -> None:
    table = write_data(tmp_path / "data", "classify")
    settings = config(tmp_path / "data", tmp_path / "out", "classify", resume=True)
    study(settings)
    write_png(tmp_path / "data" / "new.png", np.arange(1024, dtype=np.uint8).reshape(32, 32))
    added = pd.DataFrame([("new.png", "a", "p99", "test", "xr")], columns=table.columns)
    pd.concat([table[1:], added]).to_csv(tmp_path / "data" / "manifest.csv", index=False)
    with pytest.raises(DataError, match=r"1 image gone \(.* p00\); 1 image new \(.* p99\)"):
        study(settings)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert study(settings.model_copy(update={"only_report": True})).runs == 2


def test_corrected_labels_are_taken_while_no_run_is_finished(tmp_path: Path) -> None:
    table = write_data(tmp_path / "data", "classify")
    wrong = table.assign(label=table["label"].where(table.index != 11, "c"))
    wrong.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    settings = config(tmp_path / "data", tmp_path / "out", "classify", resume=True)
    named = {**settings.settings, "task.classes": ["a", "b"]}
    settings = settings.model_copy(update={"settings": named})
    with pytest.raises(TrainingError, match="label c"):
        study(settings)
    table.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    assert study(settings).runs == 2


def test_a_fine_tuning_does_not_go_on_with_other_labels(tmp_path: Path) -> None:
    table = write_data(tmp_path / "data", "classify")
    options = {
        **SMALL_RUN,
        "task.kind": "classify",
        "data.sources": [tmp_path / "data"],
        "out": tmp_path / "run",
        "trainer.max_steps": 2,
    }
    finetune(build_config(FinetuneConfig, "finetune", options=options))
    table.loc[0, "label"] = "b"
    table.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    longer = {**options, "trainer.max_steps": 4, "resume": True}
    with pytest.raises(DataError, match=r"label of 1 image \(patient or group p00"):
        finetune(build_config(FinetuneConfig, "finetune", options=longer))


def test_a_fine_tuning_does_not_go_on_where_its_store_has_grown(tmp_path: Path) -> None:
    store = classification_store(tmp_path / "store", 12)
    options = {
        **SMALL_RUN,
        "task.kind": "classify",
        "data.sources": [store.folder],
        "out": tmp_path / "run",
        "trainer.max_steps": 2,
    }
    finetune(build_config(FinetuneConfig, "finetune", options=options))
    longer = {**options, "trainer.max_steps": 4, "resume": True}
    shutil.rmtree(store.folder)
    # Patients without a split are divided anew: one that was learnt from would be tested.
    classification_store(store.folder, 17)
    with pytest.raises(DataError, match="images may have been added to it or labels corrected"):
        finetune(build_config(FinetuneConfig, "finetune", options=longer))
    shutil.rmtree(store.folder)
    classification_store(store.folder, 12)
    assert finetune(build_config(FinetuneConfig, "finetune", options=longer)).steps == 4
