"""Images that are in training and in test: no run is scored on them, whomever it drew."""

from pathlib import Path

import numpy as np
import pandas as pd

from factories import write_png
from stores import SMALL_RUN
from vismae.core.study_config import StudyConfig
from vismae.workflows.study import study


def test_a_test_patient_with_an_image_of_training_is_left_out_of_every_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    pixels = np.zeros((32, 32), np.uint8)
    for number in range(24):
        split = "train" if number < 14 else "val" if number < 18 else "test"
        if number != 23:  # the last test image is that of the first training patient
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            pixels[:16] //= 1 + number % 2 * 2
        if number == 0:
            first = pixels
        write_png(tmp_path / "data" / f"{number}.png", first if number == 23 else pixels)
        rows.append((f"{number}.png", "ab"[number % 2], f"p{number:02d}", split, "xr"))
    columns = ["path", "label", "patient_id", "split", "modality"]
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    table.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    config = StudyConfig.model_validate(
        {
            "out": tmp_path / "out",
            "tasks": {"shades": {"kind": "classify", "sources": [tmp_path / "data"]}},
            "starts": {"scratch": {}, "other": {"settings": {"optimizer.lr": 1e-3}}},
            "baseline": "scratch",
            "label_fractions": [0.3, 1.0],
            "seeds": [0],
            "settings": {**SMALL_RUN, "trainer.max_steps": 1},
            "bootstrap": 100,
            "executor": "here",
        }
    )
    result = study(config)
    assert (result.runs, result.to_do) == (4, 0)
    scores = pd.read_parquet(result.folder / "scores.parquet")
    tested = scores.groupby(["start", "budget"])["patient_id"].agg(lambda found: set(found))
    assert set(map(frozenset, tested)) == {frozenset({"p18", "p19", "p20", "p21", "p22"})}
    assert (result.comparison["cases"] == 5).all()
    page = (result.folder / "report" / "index.html").read_text()
    assert "shades: 1 test patients or groups, of whom an image is also one of" in page
