"""Weights that know a study's patients are told before hours of training, not after."""

from pathlib import Path
from typing import Any

import pytest

from stores import SMALL_RUN
from vismae.core.config import FinetuneConfig, PretrainConfig
from vismae.core.errors import DataError
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig
from vismae.workflows.finetune import finetune
from vismae.workflows.pretrain import pretrain
from vismae.workflows.study import study

SHORT = {**SMALL_RUN, "trainer.max_steps": 2}


def a_study(out: Path, task: Path, init: Path, **more: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": out,
            "tasks": {"discs": {"kind": "segment", "sources": [task]}},
            "starts": {"scratch": {"init": "none"}, "knows": {"init": init}},
            "baseline": "scratch",
            "label_fractions": [1.0],
            "seeds": [0],
            "settings": SHORT,
            "bootstrap": 100,
            "executor": "here",
            **more,
        }
    )


def test_weights_that_know_test_patients_are_refused_before_the_first_run(
    discs: Path, tmp_path: Path
) -> None:
    options = {**SHORT, "out": tmp_path / "pretrained", "store": discs, "data.use_test_rows": True}
    weights = pretrain(build_config(PretrainConfig, "pretrain", options=options)).model
    settings = a_study(tmp_path / "study", discs, weights)
    with pytest.raises(DataError, match=r"'knows'.*learnt from images of 2 of the 2 test patients"):
        study(settings)
    assert not list((tmp_path / "study" / "runs").rglob("*.csv"))


def test_a_start_that_knows_labels_of_the_task_is_told_in_the_report(
    discs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**SHORT, "out": tmp_path / "run", "data.sources": [discs], "task.kind": "segment"}
    weights = finetune(build_config(FinetuneConfig, "finetune", options=options)).model
    study(a_study(tmp_path / "study", discs, weights))
    told = "the weights of 'knows' had been fine-tuned before on images of 7 of the 7 training"
    assert sum(told in line for line in caplog.messages) == 1
    page = (tmp_path / "study" / "report" / "index.html").read_text()
    assert told.replace("'", "&#39;") in page
    assert "weights of &#39;scratch&#39; had been" not in page
