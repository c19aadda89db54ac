"""Runs killed at any moment, again and again, end as if nothing had been."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launched import ENVIRONMENT, command_line, run

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "trainer.max_steps": 60,
    "trainer.accumulate": 2,
    "trainer.ema_decay": 0.9,
    "trainer.checkpoint_every": 3,
    "model.drop_path": 0.3,
    "data.batch_size": 3,
}
KILLS = 4


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_kills_at_random_moments_change_no_bit_of_the_weights(
    command: str,
    workers: int,
    unlabelled: Path,
    discs: Path,
    pretrain_config: Callable[..., Any],
    finetune_config: Callable[..., Any],
    tmp_path: Path,
) -> None:
    def words(out: str) -> list[str]:
        settings = {**SETTINGS, "data.workers": workers}
        if command == "pretrain":
            more = {"trainer.picture_every": 7, "data.sampling": "sqrt", "monitor.every": 5}
            config = pretrain_config(tmp_path / out, unlabelled, **settings, **more)
        else:
            more = {"trainer.validate_every": 5}
            config = finetune_config("segment", tmp_path / out, discs, **settings, **more)
        return command_line(command, config)

    begin = time.monotonic()
    done = run(words("whole"))
    assert done.returncode == 0, done.stderr
    whole_seconds = time.monotonic() - begin
    seed = random.SystemRandom().randrange(2**32)
    moment = random.Random(seed)
    kills = 0
    for number in range(KILLS):
        resume = ["--resume"] if number else []
        with subprocess.Popen([*words("killed"), *resume], env=ENVIRONMENT) as process:
            point = tmp_path / "killed" / "checkpoints" / "last.ckpt"
            before = point.stat().st_mtime_ns if point.exists() else 0
            end = time.monotonic() + 120
            # Begun to learn, then a random while longer.
            while process.poll() is None and time.monotonic() < end:
                if point.exists() and point.stat().st_mtime_ns != before:
                    time.sleep(moment.uniform(0, whole_seconds / 20))
                    break
                time.sleep(0.01)
            kills += process.poll() is None
            process.kill()
    assert kills > 0, f"never killed in time (seed {seed})"
    done = run([*words("killed"), "--resume"])
    assert done.returncode == 0, done.stderr
    found, expected = (
        load_file(tmp_path / out / "model" / "model.safetensors") for out in ("killed", "whole")
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), f"{name} differs (seed {seed})"
