"""Trainings under a real SLURM of one machine; see ``tests/slurm.py``."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launched import ENVIRONMENT, PACED, command_line, run, unruly, wait_until
from slurm import Slurm, slurm
from vismae.core.config import PretrainConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., PretrainConfig]
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

TWO: dict[str, Any] = {
    "trainer.devices": 2,
    "trainer.max_steps": 150,
    "trainer.checkpoint_every": 5,
    "trainer.ema_decay": 0.99,
    "model.drop_path": 0.2,
    "data.workers": 1,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as made:
        # What users have from their environment: vismae on the path, here with a steady pace.
        programs = made.folder / "bin"
        programs.mkdir()
        program = programs / "vismae"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PACED}" "$@"\n')
        program.chmod(0o755)
        made.variables |= ENVIRONMENT | {"PATH": f"{programs}:{os.environ['PATH']}"}
        yield made


def submit(cluster: Slurm, screen: Path, *words: str, **variables: str) -> str:
    before = dict(cluster.variables)
    cluster.variables |= variables
    try:
        job = cluster.run("sbatch", "--parsable", f"--output={screen}", *words)
    finally:
        cluster.variables = before
    return job.strip()


def test_a_job_that_is_preempted_twice_ends_as_if_it_had_not_been(
    cluster: Slurm, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out, screen = tmp_path / "run", tmp_path / "screen.txt"
    point = out / "checkpoints" / "last.ckpt"
    config = pretrain_config(out, unlabelled, **TWO)
    file = command_line("pretrain", config)[-1]
    job = submit(
        cluster,
        screen,
        *("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"),
        str(ROOT / "configs" / "pretrain.sbatch"),
        CONFIG=file,
        STORE=str(unlabelled),
        RUN=str(out),
    )
    wait_until(point.exists, "the first resume point", 180)
    # As some minutes before the end of the job's time.
    cluster.run("scancel", "--signal=USR1", job)
    wait_until(
        lambda: "Restarts=1" in cluster.run("scontrol", "show", "job", job), "a requeue", 180
    )
    first = point.stat().st_mtime_ns
    wait_until(lambda: point.stat().st_mtime_ns != first, "a resume point of the second try", 180)
    # As by a job of more weight, or an operator.
    cluster.run("scontrol", "requeue", job)
    wait_until(
        lambda: "Restarts=2" in cluster.run("scontrol", "show", "job", job), "a requeue", 180
    )
    state = cluster.wait(job, ENDS, 240)
    told = screen.read_text()
    assert state == "COMPLETED", told
    assert "stopped on SIGUSR1" in told
    assert told.count("Pre-training finished after 150 steps") == 1
    assert "Traceback" not in told
    whole = pretrain_config(tmp_path / "whole", unlabelled, **TWO)
    done = run(command_line("pretrain", whole))
    assert done.returncode == 0, done.stderr
    found, expected = (
        load_file(each / "model" / "model.safetensors") for each in (out, tmp_path / "whole")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_in_an_allocation_without_srun_one_process_trains_and_two_unasked_for_are_refused(
    cluster: Slurm, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", unlabelled, **{"trainer.max_steps": 2})
    file = command_line("pretrain", config)[-1]
    script, screen = tmp_path / "job.sh", tmp_path / "screen.txt"
    script.write_text(
        "#!/bin/bash\n"
        f"srun vismae pretrain --config {file}\n"
        'echo "status $?"\n'
        f"vismae pretrain --config {file} --device cpu\n"
        'echo "status $?"\n'
        f"vismae pretrain --config {file} --device cpu --devices 2 --out {tmp_path}/two\n"
        'echo "status $?"\n'
    )
    job = submit(cluster, screen, "--nodes=1", "--ntasks-per-node=2", str(script))
    state = cluster.wait(job, ENDS, 240)
    told = screen.read_text()
    assert state == "COMPLETED", told
    assert "slurm started 2 processes, 2 on each of 1 machines" in told
    statuses = [line for line in told.splitlines() if line.startswith("status")]
    assert statuses == ["status 2", "status 0", "status 0"]
    assert told.count("Pre-training finished after 2 steps") == 2


def test_a_task_that_is_killed_ends_the_job_with_the_cause(
    cluster: Slurm, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**TWO, "trainer.max_steps": 5000}
    config = pretrain_config(tmp_path / "run", unlabelled, **settings)
    words = unruly(tmp_path, "pretrain", config, what="kill", rank=1, step=3)
    script, screen = tmp_path / "job.sh", tmp_path / "screen.txt"
    # Without --kill-on-bad-exit: vismae needs no help to end.
    script.write_text(f"#!/bin/bash\nsrun {sys.executable} {' '.join(words)}\n")
    job = submit(cluster, screen, "--nodes=1", "--ntasks-per-node=2", str(script))
    state = cluster.wait(job, ENDS, 240)
    told = screen.read_text()
    assert state == "FAILED", told
    assert "(rank 1 on " in told
    assert "ended without a word: it was killed" in told
