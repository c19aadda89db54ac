"""The demo on a smaller archive and with a few steps: the same road, seconds instead of minutes."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import vismae.workflows.demo as workflow
from factories import SMALL_ARCHIVE
from vismae.core.config import DemoConfig
from vismae.files.phantom_archive import write_phantom_archive


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(write_phantom_archive, **SMALL_ARCHIVE)
    few = {"data.image_size": 32, "trainer.max_steps": 2, "trainer.validate_every": 2}
    monkeypatch.setattr(workflow, "write_phantom_archive", small)
    monkeypatch.setattr(workflow, "_IMAGE_SIZE", 32)
    monkeypatch.setattr(workflow, "_PRETRAIN_STEPS", 2)
    monkeypatch.setattr(workflow, "_SEEDS", 1)
    # An eighth of so few patients would lack a class.
    monkeypatch.setattr(workflow, "_FRACTIONS", (0.25, 0.5))
    monkeypatch.setattr(workflow, "_WORKERS", 1)
    monkeypatch.setattr(workflow, "_FINETUNE", {**workflow._FINETUNE, **few})


@pytest.mark.usefixtures("small_demo")
def test_the_demo_ends_with_one_report_and_an_honest_table(tmp_path: Path) -> None:
    result = workflow.demo(DemoConfig(out=tmp_path / "demo", device="cpu"))

    assert set(result.comparison["start"]) == {"pre-trained", "from scratch"}
    assert set(result.comparison["metric"]) == {"Dice", "balanced accuracy"}
    scores = pd.read_parquet(tmp_path / "demo" / "study" / "scores.parquet")
    assert set(scores["fraction"]) == {0.25, 0.5}
    page = result.report.read_text(encoding="utf-8")
    assert "from scratch" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(result.report) in result.summary()
    assert Image.open(tmp_path / "demo" / "figures" / "overview.png").width > 200
    for part in ("archive", "store", "pretrain/model", "evaluations"):
        assert (tmp_path / "demo" / part).is_dir(), part
