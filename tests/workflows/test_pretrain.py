"""Pre-training end to end: resume, several processes, broken images, what a run leaves behind."""

import contextlib
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stores import SMALL_RUN, pretrain_store, record
from vismae.core.config import PretrainConfig
from vismae.core.errors import (
    DataError,
    ModelError,
    PreprocessingError,
    RunFolderError,
    TrainingError,
)
from vismae.core.rundir import open_run
from vismae.core.settings import build_config
from vismae.core.types import Modality, PixelUnit
from vismae.data.loaders import PretrainImages, PretrainItem
from vismae.data.sampler import Draw
from vismae.data.store import StoreWriter
from vismae.models import SwinMAE
from vismae.models.arithmetic import resolve_precision
from vismae.models.weights import load_model
from vismae.training.modules import Batch, PretrainModule
from vismae.training.optimizer import effective_lr, lr_factor
from vismae.workflows.pretrain import pretrain
from vismae.workflows.replay import replay

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


def run_interrupted(folder: Path, number: int, config: PretrainConfig):
    script = folder / "interrupted.py"
    script.write_text(INTERRUPTED)
    options = json.loads(config.model_dump_json(exclude_none=True))
    return subprocess.run(
        [sys.executable, str(script), str(int(number)), "5", json.dumps(options)],
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def steps_logged(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that were learnt from, in order, as runs go on."""
    rows: list[int] = []
    step = PretrainModule.training_step

    def noting_step(self: PretrainModule, batch: Batch, batch_idx: int) -> torch.Tensor:
        rows.extend(batch["row"].tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PretrainModule, "training_step", noting_step)
    return rows


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, unlabelled: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    options = {**SMALL_RUN, **DEMANDING, "out": out, "store": unlabelled}
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
    assert found.returncode == status, found.stderr
    if number != signal.SIGKILL:
        # Lightning's news and advice are none of the user's business.
        assert found.stdout + found.stderr == ""
    assert (out / ".lock").exists() == (number == signal.SIGKILL)
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


def test_a_finished_run_is_left_as_it_is(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = pretrain(pretrain_config(out, unlabelled, **{"trainer.max_steps": 2}))
    assert not first.already_finished
    before = (out / "model" / "model.safetensors").stat().st_mtime_ns
    again = pretrain(pretrain_config(out, unlabelled, resume=True, **{"trainer.max_steps": 2}))
    assert again.already_finished
    assert "already finished after 2 steps" in again.summary()
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == before
    # Fewer steps than were done are no other number of steps.
    fewer = pretrain(pretrain_config(out, unlabelled, resume=True, **{"trainer.max_steps": 1}))
    assert "already finished after 2 steps" in fewer.summary()
    # More steps lengthen the run.
    longer = pretrain(pretrain_config(out, unlabelled, resume=True, **{"trainer.max_steps": 3}))
    assert not longer.already_finished
    assert steps_logged(out) == [1, 2, 3]


def test_a_run_killed_between_its_last_step_and_its_model_is_completed(
    uninterrupted: Path, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    point = uninterrupted / "checkpoints" / "last.ckpt"
    (out / "checkpoints" / "last.ckpt").write_bytes(point.read_bytes())
    result = pretrain(pretrain_config(out, unlabelled, **DEMANDING, resume=True))
    assert not result.already_finished
    expected = load_file(uninterrupted / "model" / "model.safetensors")
    found = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_lengthened_run_killed_before_its_model_does_not_keep_the_earlier_one(
    uninterrupted: Path, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pretrain(pretrain_config(out, unlabelled, **{**DEMANDING, "trainer.max_steps": 2}))
    shutil.copy(uninterrupted / "checkpoints" / "last.ckpt", out / "checkpoints")
    result = pretrain(pretrain_config(out, unlabelled, **DEMANDING, resume=True))
    assert not result.already_finished
    expected = load_file(uninterrupted / "model" / "model.safetensors")
    found = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert pretrain(pretrain_config(out, unlabelled, **DEMANDING, resume=True)).already_finished


def test_a_resumed_run_has_the_record_of_one_that_never_stopped(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"trainer.max_steps": 8, "trainer.log_every": 3, "trainer.checkpoint_every": 2}

    def record_of(run: Path) -> list[dict[str, str]]:
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{k: v for k, v in row.items() if k == "step" or "loss" in k} for row in rows]

    pretrain(pretrain_config(tmp_path / "whole", unlabelled, **settings))
    step = PretrainModule.training_step
    for last in (1, 5, 8):

        def stopping(self: PretrainModule, batch: Batch, number: int, last: int = last) -> Any:
            if self.trainer.global_step == last:
                raise KeyboardInterrupt
            return step(self, batch, number)

        monkeypatch.setattr(PretrainModule, "training_step", stopping)
        config = pretrain_config(tmp_path / "run", unlabelled, **settings, resume=True)
        with contextlib.suppress(KeyboardInterrupt):
            pretrain(config)
    assert record_of(tmp_path / "run") == record_of(tmp_path / "whole")
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("loss")
    assert [value.step for value in shown] == [3, 6, 8]


def test_resuming_without_a_resume_point_starts_at_the_first_step(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = pretrain(pretrain_config(out, unlabelled, resume=True, **{"trainer.max_steps": 1}))
    assert result.steps == 1
    assert steps_logged(out) == [1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.mask_ratio", 0.5), ("trainer.ema_decay", 0.5), ("seed", 7)],
)
def test_a_run_is_not_resumed_with_another_setting(
    name: str,
    value: object,
    uninterrupted: Path,
    unlabelled: Path,
    pretrain_config: MakeConfig,
) -> None:
    settings = {**DEMANDING, name: value}
    with pytest.raises(RunFolderError, match=rf"{name} was .*, now {value}"):
        pretrain(pretrain_config(uninterrupted, unlabelled, **settings, resume=True))


def test_a_run_is_not_resumed_with_another_number_of_images_a_step(
    uninterrupted: Path, unlabelled: Path, pretrain_config: MakeConfig
) -> None:
    settings = {**DEMANDING, "trainer.accumulate": 4}
    with pytest.raises(RunFolderError, match="12 images a step, it began with 6"):
        pretrain(pretrain_config(uninterrupted, unlabelled, **settings, resume=True))


def test_a_run_may_go_on_with_batches_of_another_size_on_the_images_it_would_have_seen(
    unlabelled: Path,
    pretrain_config: MakeConfig,
    tmp_path: Path,
    seen: list[int],
) -> None:
    cuts = [{"data.batch_size": 12 // parts, "trainer.accumulate": parts} for parts in (1, 3, 2)]
    pretrain(pretrain_config(tmp_path / "whole", unlabelled, **cuts[0], **{"trainer.max_steps": 6}))
    expected = [*seen]
    seen.clear()
    for steps, cut in zip((1, 3, 6), cuts, strict=True):
        settings = {**cut, "trainer.max_steps": steps, "resume": steps > 1}
        pretrain(pretrain_config(tmp_path / "cut", unlabelled, **settings))
    assert seen == expected
    assert steps_logged(tmp_path / "cut") == [1, 2, 3, 4, 5, 6]


def test_simclr_does_not_go_on_with_other_batches_for_a_step(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    def opened(**cut: int) -> None:
        settings = {f"trainer.{name}": value for name, value in cut.items() if name != "batch_size"}
        settings["data.batch_size"] = cut["batch_size"]
        config = pretrain_config(tmp_path / "run", unlabelled, method="simclr", **settings)
        with open_run(config.out, "pretrain", config, resume=True):
            pass

    opened(batch_size=8, accumulate=1, devices=1)
    # Before its first line a run may go on with any settings.
    (tmp_path / "run" / "metrics.csv").write_text("step,loss\n1,0.5\n")
    opened(batch_size=4, accumulate=1, devices=2)
    # Images of two batches are not compared with each other.
    with pytest.raises(RunFolderError, match=r"trainer\.accumulate was 1, now 2"):
        opened(batch_size=4, accumulate=2, devices=1)


def test_a_run_goes_on_with_the_images_it_began_with_when_its_store_has_grown(
    pretrain_config: MakeConfig, tmp_path: Path, seen: list[int]
) -> None:
    small = pretrain_store(tmp_path / "small").folder
    grown = pretrain_store(tmp_path / "grown", images=18).folder
    other = pretrain_store(tmp_path / "other", seed=1).folder
    store, out = tmp_path / "store", tmp_path / "run"
    store.symlink_to(small)
    pretrain(pretrain_config(tmp_path / "whole", store))
    expected = [*seen]
    seen.clear()
    pretrain(pretrain_config(out, store, **{"trainer.max_steps": 2}))
    for changed in (other, grown):
        store.unlink()
        store.symlink_to(changed)
        config = pretrain_config(out, store, resume=True)
        if changed == other:
            with pytest.raises(DataError, match=r"does not hold the images that .* began with"):
                pretrain(config)
        else:
            pretrain(config)
    assert seen == expected
    card = load_model(out / "model").card
    assert card is not None
    assert card.training["pretrain"].images == 12


def test_a_resume_point_that_cannot_be_written_leaves_the_one_before_it(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = L.Trainer.save_checkpoint

    def until_full(self: L.Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        if self.global_step > 1:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", until_full)
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"last\.ckpt: the resume point of step 2 cannot be"):
        pretrain(pretrain_config(out, unlabelled, **{"trainer.checkpoint_every": 1}))
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "images.json"}
    point = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert point["global_step"] == 1


def test_resume_points_pass_by_the_folder_for_temporary_files(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small on many machines, and what was half written there stays after a kill.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    out = tmp_path / "odd:: ünï"
    pretrain(pretrain_config(out, unlabelled, **{"trainer.max_steps": 1}))
    longer = {"trainer.max_steps": 2}
    result = pretrain(pretrain_config(out, unlabelled, resume=True, **longer))
    assert (result.steps, result.already_finished) == (2, False)


def test_a_resume_point_with_a_changed_byte_is_not_gone_on_from(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pretrain(pretrain_config(out, unlabelled, **{"trainer.max_steps": 1}))
    point = out / "checkpoints" / "last.ckpt"
    content = bytearray(point.read_bytes())
    content[len(content) // 2] ^= 64
    point.write_bytes(content)
    with pytest.raises(ModelError, match=r"last\.ckpt: .* differs from its checksum"):
        pretrain(pretrain_config(out, unlabelled, resume=True))


def test_a_run_leaves_one_model_its_record_and_pictures(
    uninterrupted: Path, unlabelled: Path
) -> None:
    files = sorted(path.name for path in uninterrupted.rglob("model.safetensors"))
    assert files == ["model.safetensors"]
    assert {path.name for path in (uninterrupted / "figures").iterdir()} == {
        "fill_in.png",
        "fill_in_0000003.png",
        "fill_in_0000006.png",
    }
    with (uninterrupted / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "lr", "images_per_second", "data_wait_share", "seconds_left", "epoch"):
        assert all(row[name] for row in rows), name
    assert all(0 <= float(row["data_wait_share"]) <= 1 for row in rows)
    assert float(rows[-1]["seconds_left"]) == 0
    assert "peak lr" in (uninterrupted / "log.txt").read_text()
    card = load_model(uninterrupted / "model").card
    assert card is not None
    assert card.training["pretrain"].images == 12
    assert card.preprocessing.pixel_units["ct"] == ("hu",)


def test_the_record_has_the_rate_that_each_step_was_made_with(uninterrupted: Path) -> None:
    config = build_config(PretrainConfig, "pretrain", file=uninterrupted / "config.yaml")
    with (uninterrupted / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    peak = effective_lr(config.optimizer, 6)
    expected = [peak * lr_factor(step, 8, config.optimizer) for step in range(8)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert rates[0] == pytest.approx(peak)
    assert rates[-1] == pytest.approx(peak * config.optimizer.min_lr_fraction)


def test_the_model_is_the_average_where_one_is_kept(uninterrupted: Path) -> None:
    point = torch.load(uninterrupted / "checkpoints" / "last.ckpt", weights_only=True)
    average = load_file(uninterrupted / "model" / "model.safetensors")
    name = "encoder.patch_embed.proj.weight"
    assert not torch.equal(average[name], point["state_dict"][f"model.{name}"])
    kept = point["callbacks"]["AveragedWeights"]
    assert int(kept["n_averaged"]) == 8
    assert torch.equal(average[name], kept[f"module.{name}"])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_step_batch_and_resume_point(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    wild = {
        "optimizer.lr": 1e30,
        "optimizer.warmup_fraction": 0.0,
        "trainer.gradient_clip": 0.0,
        "trainer.checkpoint_every": 1,
        "trainer.accumulate": 2,
    }
    with pytest.raises(TrainingError, match=r"loss of step 2 .*nan_step; its images are rows"):
        pretrain(pretrain_config(out, unlabelled, **wild))
    kept = json.loads((out / "nan_step" / "step.json").read_text())
    assert kept["step"] == 2
    batch = load_file(out / "nan_step" / "batch.safetensors")
    assert batch["image"].shape == (4, 1, 32, 32)
    assert batch["key"].tolist() == kept["key"]
    point = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert point["global_step"] == 1
    assert all(torch.isfinite(value).all() for value in point["state_dict"].values())
    assert not (out / "model").exists()


def test_a_step_that_is_not_finite_leaves_the_weights_alone_and_can_be_run_again(
    unlabelled: Path,
    pretrain_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = PretrainImages.__getitem__
    broken_row = 5

    def with_a_broken_image(self: PretrainImages, draw: Draw) -> PretrainItem:
        item = read(self, draw)
        if draw.row == broken_row:
            item["image"][0, 3, 7] = float("nan")
        return item

    monkeypatch.setattr(PretrainImages, "__getitem__", with_a_broken_image)
    out = tmp_path / "run"
    settings = {"trainer.checkpoint_every": 1, "trainer.max_steps": 12, "model.drop_path": 0.5}
    with pytest.raises(TrainingError, match="not a finite number"):
        pretrain(pretrain_config(out, unlabelled, **settings, seed=3))
    kept = json.loads((out / "nan_step" / "step.json").read_text())
    assert broken_row in kept["row"]
    point = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert point["global_step"] == kept["step"] - 1 > 0
    weights = load_file(out / "nan_step" / "weights.safetensors")
    for name, value in weights.items():
        assert torch.equal(value, point["state_dict"][f"model.{name}"]), name
    found = replay(out / "nan_step", "cpu")
    assert found.images == (broken_row,)
    assert not found.weights
    assert "images of rows 5." in found.summary()
    # Whole again, the same step is finite.
    images = load_file(out / "nan_step" / "batch.safetensors")
    whole = {name: value.nan_to_num(0.0) for name, value in images.items()}
    save_file(whole, out / "nan_step" / "batch.safetensors")
    assert replay(out / "nan_step", "cpu").finite


@pytest.fixture
def partly_damaged(tmp_path: Path) -> Path:
    """A store of 12 images of which rows 4 and 9 have a changed byte."""
    store = pretrain_store(tmp_path / "store")
    index = store.index
    shard = store.folder / store.manifest["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    for row in (4, 9):
        content[int(index["pixels_offset"][row]) + 40] ^= 1
    shard.write_bytes(content)
    return store.folder


def test_damaged_images_never_end_a_long_run_and_resuming_stays_exact(
    partly_damaged: Path, pretrain_config: MakeConfig, seen: list[int], tmp_path: Path
) -> None:
    settings = {**DEMANDING, "data.max_damaged_fraction": 0.2, "monitor.every": 3}
    whole, out = tmp_path / "whole", tmp_path / "run"
    result = pretrain(pretrain_config(whole, partly_damaged, **settings))

    assert set(seen) == set(range(12)) - {4, 9}
    assert f"in place of damaged ones: {whole / 'damaged.csv'}" in result.summary()
    with (whole / "damaged.csv").open(newline="") as file:
        listed = {(line["row"], line["position"]) for line in csv.DictReader(file)}
    assert listed == {("4", "4"), ("9", "9")}
    log = (whole / "log.txt").read_text()
    assert log.count("another image is seen in its place") == 2
    assert "2 of 12 images were damaged" in log
    config = pretrain_config(out, partly_damaged, **settings)
    found = run_interrupted(tmp_path, signal.SIGKILL, config)
    assert found.returncode == -signal.SIGKILL, found.stderr
    settings["data.workers"] = 1
    pretrain(pretrain_config(out, partly_damaged, **settings, resume=True))
    resumed, expected = (load_file(run / "model" / "model.safetensors") for run in (out, whole))
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name


def test_more_damaged_images_than_allowed_stop_a_run_that_can_go_on(
    partly_damaged: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for allowed, found in ((0.0, 1), (0.01, 2)):
        settings = {**DEMANDING, "data.max_damaged_fraction": allowed}
        expected = rf"{found} of 12 images were found damaged.*{allowed:g} allows.*damaged\.csv"
        with pytest.raises(TrainingError, match=expected):
            pretrain(pretrain_config(out, partly_damaged, **settings, resume=True))
    more = {**DEMANDING, "data.max_damaged_fraction": 0.2}
    assert pretrain(pretrain_config(out, partly_damaged, **more, resume=True)).steps == 8


def test_memory_that_runs_out_is_answered_with_the_batch_size_to_try(
    unlabelled: Path,
    pretrain_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_much(*_: object) -> torch.Tensor:
        return torch.empty(1 << 50)

    monkeypatch.setattr("vismae.training.modules.PretrainModule.training_step", too_much)
    with pytest.raises(TrainingError, match=r"batch_size=4\. .*batch_size=2 and .*accumulate=2"):
        pretrain(pretrain_config(tmp_path / "run", unlabelled))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, unlabelled: Path, shades: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("watched") / "run"
    watching = {"monitor.every": 2, "monitor.most_time_fraction": 1.0, "monitor.data": [shades]}
    options = {**SMALL_RUN, **DEMANDING, **watching, "out": out, "store": unlabelled}
    pretrain(build_config(PretrainConfig, "pretrain", options=options))
    return out


def test_watching_a_run_does_not_change_it(watched: Path, uninterrupted: Path) -> None:
    found = load_file(watched / "model" / "model.safetensors")
    expected = load_file(uninterrupted / "model" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_watched_run_records_features_probes_and_losses_by_modality(watched: Path) -> None:
    with (watched / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    for step, row in rows.items():
        looked = step % 2 == 0
        for name in ("effective_rank", "knn_balanced_accuracy", "linear_balanced_accuracy"):
            assert bool(row[name]) == looked, (step, name)
        assert float(row["gradient_norm"]) > 0
        assert float(row["peak_memory_gib"]) > 0
        by_modality = [float(row[name]) for name in row if name.startswith("loss_") and row[name]]
        assert min(by_modality) <= float(row["loss"]) <= max(by_modality)
    assert {name for name in rows[1] if name.startswith("loss_")} == {
        "loss_ct",
        "loss_mr",
        "loss_us",
    }
    # Bright and dark images differ for any network; patients of the other half are judged.
    assert float(rows[8]["knn_balanced_accuracy"]) > 0.9
    assert float(rows[8]["judged_images"]) == 6
    events = EventAccumulator(str(watched / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("effective_rank")] == [2, 4, 6, 8]
    assert [event.step for event in events.Images("fill_in")] == [3, 6]


def test_validation_and_test_rows_are_left_out_unless_asked_for(
    pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    store = pretrain_store(tmp_path / "store", splits=("train", "val", None, "test")).folder
    steps = {"trainer.max_steps": 1}
    model = pretrain(pretrain_config(tmp_path / "a", store, **steps)).model
    card = load_model(model).card
    assert card is not None
    assert card.training["pretrain"].patients == 3
    asked = {**steps, "data.use_test_rows": True, "data.modality": "ct,us"}
    model = pretrain(pretrain_config(tmp_path / "b", store, **asked)).model
    card = load_model(model).card
    assert card is not None
    assert card.training["pretrain"].by_modality == {"ct": 4, "us": 4}
    with pytest.raises(DataError, match=r"data\.min_side"):
        pretrain(pretrain_config(tmp_path / "c", store, **{"data.min_side": 200}))


@pytest.mark.parametrize(
    ("sampling", "ct", "mr"),
    # Of 12 images 9 and 3; roots of these 3 and 1.73, that is 7.6 and 4.4 of 12; halves.
    [("natural", 9, 3), ("sqrt", 8, 4), ("balanced", 6, 6)],
)
def test_named_modalities_are_learnt_from_in_the_shares_asked_for(
    sampling: str,
    ct: int,
    mr: int,
    pretrain_config: MakeConfig,
    tmp_path: Path,
    seen: list[int],
) -> None:
    rng = np.random.default_rng(0)
    facts = {
        "ct": {"modality": Modality.CT, "unit": PixelUnit.HU},
        "mr": {"modality": Modality.MR, "unit": PixelUnit.ARBITRARY},
        "us": {"modality": Modality.US},
    }
    with StoreWriter(tmp_path / "store") as writer:
        for number, name in enumerate(["ct"] * 9 + ["mr"] * 3 + ["us"] * 4):
            pixels = rng.integers(0, 255, (32, 32)).astype(np.uint8)
            writer.add(record(f"image{number}", pixels, **facts[name]), pixels)
    asked = {"data.modality": "ct,mr", "data.sampling": sampling, "trainer.max_steps": 6}
    result = pretrain(pretrain_config(tmp_path / "run", tmp_path / "store", **asked))
    # Two epochs of 12: none of ultrasound, the others in their shares.
    for epoch in (seen[:12], seen[12:]):
        assert sum(row < 9 for row in epoch) == ct
        assert sum(9 <= row < 12 for row in epoch) == mr
    card = load_model(result.model).card
    assert card is not None
    assert card.modalities == (Modality.CT, Modality.MR)
    # Each in its own scale.
    assert card.preprocessing.pixel_units == {"ct": ("hu",), "mr": ("arbitrary",)}


def test_starting_from_a_model_takes_its_network_weights_and_history(
    pretrained: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    other = pretrain_store(tmp_path / "store", images=6, seed=5).folder
    still = {"optimizer.lr": 1e-12, "trainer.max_steps": 1, "model.size": "vismae"}
    result = pretrain(pretrain_config(tmp_path / "run", other, init=pretrained, **still))
    before, after = load_model(pretrained), load_model(result.model)
    for name, value in before.state_dict().items():
        assert torch.allclose(after.state_dict()[name], value, atol=1e-6), name
    assert before.card is not None
    assert after.card is not None
    assert after.card.training["pretrain"].images == 6
    assert after.card.training["earlier pretrain"] == before.card.training["pretrain"]


def test_a_start_model_that_was_prepared_in_another_way_is_refused(
    pretrained: Path, unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    wish = {"preprocessing.mean": 0.5}
    with pytest.raises(PreprocessingError, match=r"preprocessing\.mean.*0\.223.*0\.5"):
        pretrain(pretrain_config(tmp_path / "run", unlabelled, init=pretrained, **wish))


TOGETHER = """
import os, sys, json, torch
from vismae.core.config import PretrainConfig
from vismae.core.errors import TrainingError
from vismae.core.settings import build_config
from vismae.workflows.pretrain import pretrain

if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        for options in json.loads(sys.argv[1]):
            print(pretrain(build_config(PretrainConfig, "pretrain", options=options)).summary())
    except TrainingError as error:
        print("stopped:", error)
        sys.exit(3)
"""


def run_together(folder: Path, *configs: PretrainConfig) -> "subprocess.CompletedProcess[str]":
    script = folder / "together.py"
    script.write_text(TOGETHER)
    options = [json.loads(config.model_dump_json(exclude_none=True)) for config in configs]
    return subprocess.run(
        [sys.executable, str(script), json.dumps(options)],
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_train_one_model_and_a_second_run_can_follow(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    both = {"trainer.devices": 2, "trainer.checkpoint_every": 2}
    first, second = tmp_path / "first", tmp_path / "second"
    found = run_together(
        tmp_path,
        pretrain_config(first, unlabelled, **both),
        pretrain_config(second, unlabelled, **both, seed=1),
    )
    assert found.returncode == 0, found.stderr
    # Each run is reported by one process.
    assert found.stdout.count("training finished after 4 steps") == 2
    assert found.stderr == ""
    for run in (first, second):
        assert steps_logged(run) == [1, 2, 3, 4]
        assert (run / "model" / "model.json").is_file()
        assert not (run / ".lock").exists()
    # Two processes with half the batch are one process with the whole: the same images.
    with (first / "metrics.csv").open(newline="") as file:
        epochs = [float(row["epoch"]) for row in csv.DictReader(file)]
    assert epochs == pytest.approx([8 / 12, 16 / 12, 2, 32 / 12], rel=1e-4)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_both_processes_with_the_cause(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    wild = {
        "optimizer.lr": 1e30,
        "optimizer.warmup_fraction": 0.0,
        "trainer.gradient_clip": 0.0,
        "trainer.devices": 2,
    }
    out = tmp_path / "run"
    found = run_together(tmp_path, pretrain_config(out, unlabelled, **wild))
    assert found.returncode == 3, found.stderr
    assert found.stdout.count("stopped: The loss of step 2") == 1
    kept = sorted(path.parent.name for path in out.glob("nan_step/*/step.json"))
    assert kept == ["rank_0", "rank_1"]


def test_the_run_folder_says_the_arithmetic_that_auto_took(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", unlabelled, **{"trainer.max_steps": 1})
    assert config.trainer.precision == "auto"
    pretrain(config)
    kept = build_config(PretrainConfig, "pretrain", tmp_path / "run" / "config.yaml")
    assert kept.trainer.precision == resolve_precision("auto", "cpu")


def test_an_encoder_of_visible_tokens_trains_in_bfloat16_with_clipped_gradients(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {
        "trainer.max_steps": 2,
        "trainer.precision": "bf16",
        "model.encoder_input": "visible",
        "model.checkpointing": True,
    }
    pretrain(pretrain_config(tmp_path / "run", unlabelled, **settings))
    model = load_model(tmp_path / "run" / "model")
    assert isinstance(model, SwinMAE)
    assert model.encoder_input == "visible"
    # A start for the dense network, except for the token, which stands at another depth.
    dense = pretrain_config(
        tmp_path / "next", unlabelled, init=tmp_path / "run" / "model", **{"trainer.max_steps": 1}
    )
    pretrain(dense)
    assert load_model(tmp_path / "next" / "model").encoder_input == "dense"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_run_learns_as_a_plain_one_resumes_exactly_and_is_watched(
    uninterrupted: Path,
    unlabelled: Path,
    shades: Path,
    pretrain_config: MakeConfig,
    tmp_path: Path,
) -> None:
    watching = {"monitor.every": 2, "monitor.most_time_fraction": 1.0, "monitor.data": [shades]}
    settings = {**DEMANDING, **watching, "model.compile": True}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pretrain(pretrain_config(whole, unlabelled, **settings))
    found = run_interrupted(
        tmp_path, signal.SIGTERM, pretrain_config(stopped, unlabelled, **settings)
    )
    assert found.returncode == 130, found.stderr
    pretrain(pretrain_config(stopped, unlabelled, **settings, resume=True))
    resumed = load_file(stopped / "model" / "model.safetensors")
    for name, value in load_file(whole / "model" / "model.safetensors").items():
        assert torch.equal(resumed[name], value), name
    # The same samples, hidden patches and dropped paths as without the compiler.
    assert losses_of(whole) == pytest.approx(losses_of(uninterrupted), rel=1e-4)
    with (whole / "metrics.csv").open(newline="") as file:
        looked = [row for row in csv.DictReader(file) if row["knn_balanced_accuracy"]]
    assert [int(row["step"]) for row in looked] == [2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_step_that_is_not_finite_can_be_run_again(
    unlabelled: Path, pretrain_config: MakeConfig, tmp_path: Path
) -> None:
    wild = {"optimizer.lr": 1e30, "optimizer.warmup_fraction": 0.0, "trainer.gradient_clip": 0.0}
    settings = {**wild, "model.compile": True, "trainer.max_steps": 5}
    with pytest.raises(TrainingError, match="not a finite number"):
        pretrain(pretrain_config(tmp_path / "run", unlabelled, **settings))
    assert not replay(tmp_path / "run" / "nan_step", "cpu").finite


def losses_of(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]
