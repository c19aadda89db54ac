"""The arithmetic of a run and its resume point."""

from pathlib import Path

import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.core.sections import TrainerSettings
from vismae.training.accelerator import accelerator
from vismae.training.trainer import Schedule, plan_schedule, resume_path, resume_step


def test_images_of_a_step_count_batches_devices_and_machines():
    settings = TrainerSettings(max_steps=50, accumulate=3, devices=2, nodes=2)
    assert plan_schedule(settings, 8, 1000) == Schedule(96, 50, 1000)


def test_epochs_replace_steps():
    assert plan_schedule(TrainerSettings(max_epochs=3), 10, 105).total_steps == 32
    assert plan_schedule(TrainerSettings(max_epochs=0.001), 64, 10).total_steps == 1


def test_fewer_images_than_a_batch_make_a_schedule():
    assert plan_schedule(TrainerSettings(max_epochs=4), 16, 3).total_steps == 1


def test_a_run_without_a_resume_point_stands_at_0(tmp_path: Path):
    assert resume_path(tmp_path) is None
    assert resume_step(tmp_path) == 0


def test_a_resume_point_tells_its_step(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({"global_step": 17}, tmp_path / "checkpoints" / "last.ckpt")
    assert resume_step(tmp_path) == 17


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_resume_point_is_an_error_that_names_it(content: bytes, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=r"last\.ckpt: the resume point cannot be read"):
        resume_step(tmp_path)


@pytest.mark.parametrize(
    "content", [[1, 2], {"step": 1}, {"global_step": "x"}, {"global_step": None}]
)
def test_a_file_that_is_no_resume_point_is_an_error_that_names_it(content: object, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(ModelError, match=r"last\.ckpt: the resume point cannot be read"):
        resume_step(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is not there")
def test_a_device_that_is_not_there_is_refused_with_what_to_do():
    with pytest.raises(SettingError, match=r"trainer\.device is cuda.*--device auto or cpu"):
        accelerator(TrainerSettings(device="cuda"))
