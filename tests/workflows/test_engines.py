"""Several processes train one model: the same numbers as one, and none left waiting."""

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

from launched import (
    ENVIRONMENT,
    PACED,
    TORCHRUN,
    command_line,
    members_of,
    processes_of,
    run,
    torchrun,
    unruly,
    wait_until,
)
from vismae.core.config import FinetuneConfig, PretrainConfig

pytestmark = pytest.mark.slow

MakeConfig = Callable[..., PretrainConfig]
MakeFinetune = Callable[..., FinetuneConfig]

TWO: dict[str, Any] = {"trainer.devices": 2}
STOPPED = "All processes of this training stop; --resume goes on from the last resume point."


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    found, expected = weights(one), weights(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def rows_by_step(notes: Path, world: int, accumulate: int = 1) -> list[list[int]]:
    """Rows of every optimiser step, in the order of batches and ranks."""
    ranks = [json.loads((notes / f"rank-{rank}.json").read_text()) for rank in range(world)]
    batches = [[row for batch in step for row in batch] for step in zip(*ranks, strict=True)]
    return [
        [row for batch in batches[first : first + accumulate] for row in batch]
        for first in range(0, len(batches), accumulate)
    ]


def losses_of(run: Path) -> dict[str, float]:
    """The last row's losses, overall and by modality."""
    with (run / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {name: float(value) for name, value in last.items() if "loss" in name}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_give_the_gradients_of_one(
    accumulate: int, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {
        "trainer.max_steps": 1,
        "trainer.accumulate": accumulate,
        "trainer.precision": "fp32",
        "model.drop_path": 0.0,
    }
    found: list[dict[str, torch.Tensor]] = []
    rows: list[list[list[int]]] = []
    for world in (1, 2):
        notes = tmp_path / f"{world}"
        notes.mkdir()
        cut = {"trainer.devices": world, "data.batch_size": 8 // accumulate // world}
        config = pretrain_config(notes / "run", unlabelled, **settings, **cut)
        more = {"notes": str(notes), "double": True}
        if world == 2:
            done = torchrun(notes, "pretrain", config, **more)
        else:
            done = run([sys.executable, *unruly(notes, "pretrain", config, **more)])
        assert done.returncode == 0, done.stderr
        found.append(load_file(notes / "gradients-0.safetensors"))
        rows.append(rows_by_step(notes, world, accumulate))
    assert rows[0] == rows[1]
    # The record is of all processes, whichever writes it.
    assert losses_of(tmp_path / "2" / "run") == pytest.approx(
        losses_of(tmp_path / "1" / "run"), abs=1e-5
    )
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        assert expected.dtype == torch.float64
        assert expected.abs().max() > 0, name
        assert (found[1][name] - expected).abs().max() < 1e-6, name
    # Both processes of two go on from the same gradients.
    other = load_file(tmp_path / "2" / "gradients-1.safetensors")
    assert all(torch.equal(other[name], value) for name, value in found[1].items())


def test_over_all_processes_every_image_comes_once_an_epoch(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {"data.sampling": "natural", "data.batch_size": 5, "trainer.max_steps": 6}
    config = pretrain_config(tmp_path / "run", unlabelled, **settings, **TWO)
    done = torchrun(tmp_path, "pretrain", config, notes=str(tmp_path))
    assert done.returncode == 0, done.stderr
    # Told once, by the first process.
    assert done.stdout.count("Pre-training finished after 6 steps") == 1
    assert done.stderr.count("12 images") == 1
    rows = [row for step in rows_by_step(tmp_path, 2) for row in step]
    # 12 images, 10 a step: batches reach over from each epoch into the next.
    epochs = [rows[first : first + 12] for first in range(0, 60, 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes_on_the_images_it_would_have_seen(
    first: int, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    seen: dict[str, list[list[int]]] = {}
    for name, parts in {"whole": [(3, 6)], "cut": [(first, 3), (3 - first, 6)]}.items():
        seen[name] = []
        for world, steps in parts:
            notes = tmp_path / f"{name}-{steps}"
            notes.mkdir()
            # The third way to see twelve images a step: accumulated batches.
            cut = {
                1: {"data.batch_size": 3, "trainer.accumulate": 4},
                2: {"data.batch_size": 6, "trainer.devices": 2},
                3: {"data.batch_size": 12},
            }[world]
            more = {"trainer.max_steps": steps, "resume": steps > 3, "data.workers": 1}
            config = pretrain_config(tmp_path / name, unlabelled, **{**more, **cut})
            if world == 2:
                done = torchrun(notes, "pretrain", config, notes=str(notes))
            else:
                done = run([sys.executable, *unruly(notes, "pretrain", config, notes=str(notes))])
            assert done.returncode == 0, done.stderr
            seen[name] += rows_by_step(notes, 2 if world == 2 else 1, 4 if world == 1 else 1)
    assert seen["cut"] == seen["whole"]


@pytest.mark.parametrize(
    ("what", "causes"),
    [
        ("raise", ["rank 1 on ", "failed: ValueError: the disk is on fire.", STOPPED]),
        ("kill", ["rank 1 on ", "ended without a word: it was killed", STOPPED]),
        ("hang", ["rank 1 on ", "has given no sign of life for 5 s", STOPPED]),
        ("dawdle", ["waited for each other longer than trainer.wait_minutes (0.7)"]),
        ("nan", ["The loss of step 3 in rank 1 of 2 processes is not a finite number"]),
    ],
)
def test_a_process_that_fails_stops_the_others_with_the_cause(
    what: str, causes: list[str], unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {"trainer.max_steps": 1000, "trainer.silence_seconds": 5, **TWO}
    if what == "dawdle":
        settings["trainer.wait_minutes"] = 0.7
    config = pretrain_config(tmp_path / "run", unlabelled, **settings)
    done = torchrun(tmp_path, "pretrain", config, what=what, rank=1, step=2)
    assert done.returncode != 0
    for cause in causes:
        assert cause in done.stderr
    assert done.stdout == ""
    assert processes_of(tmp_path) == []
    # Only the step that went wrong is there to be run again.
    kept = {path.name for path in (tmp_path / "run" / "nan_step").glob("*")}
    assert kept == ({"rank_1"} if what == "nan" else set())


def test_the_first_process_may_fail_too_and_its_run_goes_on(
    shades: Path, finetune_config: MakeFinetune, tmp_path: Path
) -> None:
    settings = {"trainer.max_steps": 6, "trainer.checkpoint_every": 1, "trainer.ema_decay": 0.9}
    out = tmp_path / "run"
    whole = finetune_config("classify", tmp_path / "whole", shades, **settings, **TWO)
    done = run(command_line("finetune", whole))
    assert done.returncode == 0, done.stderr
    config = finetune_config("classify", out, shades, **settings, **TWO)
    done = torchrun(tmp_path, "finetune", config, what="kill", rank=0, step=3)
    assert done.returncode != 0
    # The other process of this machine says it.
    assert "Process 1 of 2 (rank 0 on " in done.stderr
    assert "ended without a word" in done.stderr
    assert processes_of(tmp_path) == []
    done = run([*command_line("finetune", config), "--resume"])
    assert done.returncode == 0, done.stderr
    assert_same_weights(out, tmp_path / "whole")


@pytest.mark.parametrize("lost", ["other", "first", "asked"])
def test_processes_started_by_vismae_end_together_and_go_on(
    lost: str, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {
        "trainer.max_steps": 100,
        "trainer.checkpoint_every": 5,
        "trainer.ema_decay": 0.99,
        "model.drop_path": 0.2,
        **TWO,
    }
    config = pretrain_config(tmp_path / "run", unlabelled, **settings)
    command = command_line("pretrain", config)
    with subprocess.Popen(
        [sys.executable, PACED, *command[3:]],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        point = tmp_path / "run" / "checkpoints" / "last.ckpt"
        wait_until(point.exists, "the first resume point")
        (child,) = members_of(process.pid)
        target = child if lost == "other" else process.pid
        os.kill(target, signal.SIGTERM if lost == "asked" else signal.SIGKILL)
        _, screen = process.communicate(timeout=120)
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the other process's end", 60)
    if lost == "other":
        assert process.returncode == 1
        assert "vismae: Process 2 of 2 (rank 1 on " in screen
        assert "ended without a word: it was killed" in screen
    elif lost == "asked":
        assert process.returncode == 130
        assert "Traceback" not in screen
    else:
        assert process.returncode == -signal.SIGKILL
        assert "Process 1 of 2 (rank 0 on " in screen
    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    whole = pretrain_config(tmp_path / "whole", unlabelled, **settings)
    # torchrun starts the very command: python -m vismae.
    done = run([*TORCHRUN, *command_line("pretrain", whole)[1:]])
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 101))


def test_processes_that_see_different_run_folders_are_told_so(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    outs = [tmp_path / name for name in ("a", "b")]
    run_before = pretrain_config(outs[0], unlabelled, **{"data.batch_size": 8})
    assert run(command_line("pretrain", run_before)).returncode == 0
    for out in outs:
        settings = {"trainer.max_steps": 6, **TWO, "resume": out == outs[0]}
        config = pretrain_config(out, unlabelled, **settings)
        unruly(tmp_path, "pretrain", config)
        (tmp_path / "script.json").rename(tmp_path / f"{out.name}.json")
    chooser = tmp_path / "chooser.py"
    chooser.write_text(
        "import os, runpy, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        f"sys.argv[1:] = [{str(tmp_path)!r} + '/' + 'ab'[int(os.environ['RANK'])] + '.json']\n"
        "runpy.run_module('unruly', run_name='__main__')\n"
    )
    done = run([*TORCHRUN, str(chooser)])
    assert done.returncode != 0
    assert "the step of the resume point is 4 for the first one and 0 for rank 1" in done.stderr
    assert processes_of(tmp_path) == []


def test_torchrun_beside_other_numbers_in_the_settings_is_refused(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    done = torchrun(tmp_path, "pretrain", pretrain_config(tmp_path / "run", unlabelled))
    assert done.returncode != 0
    assert "vismae: torchrun started 2 processes" in done.stderr
    assert "Give --set trainer.nodes=1 --set trainer.devices=2" in done.stderr
    assert not (tmp_path / "run").exists()
