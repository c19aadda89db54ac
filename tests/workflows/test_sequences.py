"""Several sequences as channels through every command: learnt, scored and predicted as cases."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cases_on_disk import SEQUENCES, write_cases
from vismae.core.config import EvaluateConfig, FinetuneConfig
from vismae.models.weights import load_model
from vismae.workflows.evaluate import evaluate
from vismae.workflows.finetune import FinetuneResult, finetune

MakeConfig = Callable[..., FinetuneConfig]

TOGETHER = {"model.sequences": SEQUENCES, "model.network": "hybrid"}
SPLITS = (*["train"] * 8, *["val"] * 2, *["test"] * 2)
LONG = {
    "trainer.max_steps": 120,
    "trainer.validate_every": 60,
    "data.batch_size": 8,
    "data.image_size": 32,
    "optimizer.lr": 3e-3,
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases"), SPLITS)


def test_two_sequences_show_what_one_cannot(
    cases: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    def run(name: str, sequences: tuple[str, ...]) -> FinetuneResult:
        settings = {**TOGETHER, **LONG, "model.sequences": sequences}
        return finetune(finetune_config("segment", tmp_path / name, cases, **settings))

    both, one = run("both", SEQUENCES), run("one", SEQUENCES[:1])
    print(both.validation, one.validation)
    assert both.validation > 0.85
    assert one.validation < 0.75
