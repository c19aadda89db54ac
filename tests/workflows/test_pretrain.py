"""Pre-training end to end: resume, several processes, broken images, what a run leaves behind."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vismae.core.config import PretrainConfig
from vismae.core.errors import RunFolderError
from vismae.workflows.pretrain import pretrain

MakeConfig = Callable[..., PretrainConfig]

# All that a resumed run has to bring back: average, drop path, gradients of two batches, and a
# stream that crosses from one epoch into the next.
DEMANDING: dict[str, Any] = {
    "trainer.max_steps": 8,
    "trainer.accumulate": 2,
    "trainer.ema_decay": 0.9,
    "trainer.checkpoint_every": 2,
    "trainer.picture_every": 3,
    "model.drop_path": 0.3,
    "data.sampling": "sqrt",
    "data.batch_size": 3,
}

# Trains as asked on the command line, and sends itself a signal in the middle of a step.
INTERRUPTED = """
import os, sys, json, torch
import vismae.training.callbacks as callbacks
from vismae.core.config import PretrainConfig
from vismae.core.settings import build_config
from vismae.workflows.pretrain import pretrain

if __name__ == "__main__":
    torch.set_num_threads(1)
    number, step, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    start = callbacks.StepSeed.on_train_batch_start

    def start_and_signal(self, trainer, module, batch, batch_idx):
        start(self, trainer, module, batch, batch_idx)
        if trainer.global_step == step and batch_idx % 2 == 1:
            os.kill(os.getpid(), number)

    callbacks.StepSeed.on_train_batch_start = start_and_signal
    try:
        pretrain(build_config(PretrainConfig, "pretrain", options=options))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def run_interrupted(folder: Path, number: int, config: PretrainConfig) -> int:
    script = folder / "interrupted.py"
    script.write_text(INTERRUPTED)
    options = json.loads(config.model_dump_json(exclude_none=True))
    return subprocess.run(
        [sys.executable, str(script), str(int(number)), "5", json.dumps(options)],
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).returncode


def steps_logged(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, unlabelled: Path) -> Path:
    from conftest import SMALL  # the neighbouring file

    from vismae.core.settings import build_config

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    options = {**SMALL, **DEMANDING, "out": out, "store": unlabelled}
    pretrain(build_config(PretrainConfig, "pretrain", options=options))
    return out


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [
        (signal.SIGTERM, 130, 0),
        pytest.param(signal.SIGINT, 130, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, 1, marks=pytest.mark.slow),
        (signal.SIGKILL, -9, 0),
    ],
)
def test_a_resumed_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    number: int,
    status: int,
    workers: int,
    uninterrupted: Path,
    unlabelled: Path,
    pretrain_config: MakeConfig,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    settings = {**DEMANDING, "data.workers": workers}
    found = run_interrupted(tmp_path, number, pretrain_config(out, unlabelled, **settings))
    assert found == status
    point = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    # Asked to stop within step 6, it ends after it; killed, it goes back to step 4.
    assert point["global_step"] == (4 if number == signal.SIGKILL else 6)
    assert not (out / "model").exists()
    result = pretrain(pretrain_config(out, unlabelled, **settings, resume=True))
    assert not result.already_finished
    resumed = load_file(out / "model" / "model.safetensors")
    expected = load_file(uninterrupted / "model" / "model.safetensors")
    assert resumed.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name
    assert steps_logged(out) == list(range(1, 9))
