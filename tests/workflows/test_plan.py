"""A plan is measured on real steps, adds up, and leaves nothing behind."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vismae.core.config import PretrainConfig
from vismae.models import SwinMAE
from vismae.training.trainer import Schedule
from vismae.workflows.plan import PretrainPlan, flops_per_image, plan


def test_a_plan_tells_the_network_the_steps_and_what_they_need(
    unlabelled: Path,
    pretrain_config: Callable[..., PretrainConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "vismae")
    settings = {"trainer.max_steps": 3000, "trainer.devices": 2, "trainer.accumulate": 2}
    config = pretrain_config(tmp_path / "run", unlabelled, **settings)
    found = plan(config)
    assert not config.out.exists()
    # Not the steps, rate and folder of the trial.
    assert caplog.messages == ["measuring 20 steps"]
    model = SwinMAE.from_size("nano", in_channels=1)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.schedule == Schedule(images_per_step=16, total_steps=3000, epoch_length=12)
    assert found.images_per_second > 1
    assert 0 <= found.data_wait_share <= 1
    assert 0.05 < found.peak_memory_gib < 64
    # Weights and two moments in each of two resume points, and the weights in the model folder.
    assert found.disk_gib * 2**30 > (2 * 3 + 1) * 4 * found.parameters
    assert "3000 of 16 images" in found.summary()
    assert "on 2 devices" in found.summary()


def test_hours_are_images_by_images_a_second() -> None:
    schedule = Schedule(images_per_step=400, total_steps=900, epoch_length=1000)
    found = PretrainPlan(1, 1, schedule, 4, 50.0, 0.0, 1.0, 1.0)
    assert found.hours == pytest.approx(0.5)


def test_operations_are_those_of_the_matrix_products() -> None:
    model = SwinMAE.from_size("nano", in_channels=1)
    products = 0

    def add(layer: torch.nn.Linear, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal products
        products += 2 * output.numel() * layer.in_features

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(add)
    counted = flops_per_image(model, (32, 32))
    # Backward costs twice the forward; patch embedding and attention come on top of the layers.
    assert 3 * products < counted < 4 * products
