"""Learning rates by hand, and parameter groups that hold every parameter once."""

import math
from typing import cast

import pytest
import torch
from torch import nn

from vismae.core.sections import OptimizerSettings
from vismae.models import (
    ComparisonClassifier,
    SwinClassifier,
    SwinMAE,
    SwinUNet,
    config_for_size,
    plan_network,
)
from vismae.training.optimizer import (
    build_optimizer,
    decays,
    effective_lr,
    encoder_layers,
    lr_factor,
    parameter_groups,
)

NANO = config_for_size("nano", in_channels=1)


def test_the_rate_follows_the_number_of_images_as_asked():
    def lr(scaling: str) -> float:
        settings = OptimizerSettings.model_validate({"lr": 1e-3, "lr_scaling": scaling})
        return effective_lr(settings, 1024)

    assert lr("none") == 1e-3
    assert lr("sqrt") == pytest.approx(2e-3)
    assert lr("linear") == pytest.approx(4e-3)


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    settings = OptimizerSettings(warmup_fraction=0.2, min_lr_fraction=0.1)
    factors = [lr_factor(step, 11, settings) for step in range(11)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2] == 1.0
    assert factors[6] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert factors[10] == pytest.approx(0.1)
    assert lr_factor(50, 11, settings) == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_runs_have_a_rate(steps: int):
    settings = OptimizerSettings(warmup_fraction=0.5)
    assert all(0 < lr_factor(step, steps, settings) <= 1 for step in range(steps))


def test_the_encoder_waits_and_then_everything_warms_up_again():
    settings = OptimizerSettings(warmup_fraction=0.25, min_lr_fraction=0.0, head_first_fraction=0.2)
    head = [lr_factor(step, 10, settings) for step in range(10)]
    encoder = [lr_factor(step, 10, settings, encoder=True) for step in range(10)]
    assert encoder[:2] == [0.0, 0.0]
    assert head[:2] == [1.0, 1.0]
    assert (
        head[2:]
        == encoder[2:]
        == [
            lr_factor(step, 8, settings.model_copy(update={"head_first_fraction": 0.0}))
            for step in range(8)
        ]
    )
    assert head[2:4] == [0.5, 1.0]


def test_a_waiting_encoder_keeps_its_weights_while_the_rest_learns():
    model = SwinClassifier(NANO, 2)
    settings = OptimizerSettings(head_first_fraction=0.5, weight_decay=0.5)
    groups = parameter_groups(model, 0.1, settings, encoder_layers(model))
    optimizer, schedule = build_optimizer(groups, settings, 4, fused=True)
    still = [p.detach().clone() for p in model.encoder.parameters()]
    for _ in range(2):
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(model.encoder.parameters(), still, strict=True))
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    assert not all(
        torch.equal(p, q) for p, q in zip(model.encoder.parameters(), still, strict=True)
    )


def test_what_stands_above_the_encoder_has_a_rate_of_its_own():
    model = SwinClassifier(NANO, 2)
    settings = OptimizerSettings(layer_decay=0.5, head_lr_factor=10.0)
    above = {id(p) for n, p in model.named_parameters() if not n.startswith("encoder.")}
    plain = settings.model_copy(update={"head_lr_factor": None})
    pairs = zip(
        parameter_groups(model, 0.1, settings, encoder_layers(model)),
        parameter_groups(model, 0.1, plain, encoder_layers(model)),
        strict=True,
    )
    for group, without in pairs:
        stands_above = {id(p) for p in cast("list[nn.Parameter]", group["params"])} <= above
        factor = 10.0 if stands_above else 1.0
        assert group["lr"] == pytest.approx(factor * cast("float", without["lr"]))
    # Where nothing is known of an encoder, nothing stands above it.
    assert {group["lr"] for group in parameter_groups(model, 0.1, settings)} == {0.1}


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_convolutional_encoders_have_a_layer_for_each_stage(name: str):
    model = ComparisonClassifier(name, plan_network(name, 1, (32, 32), 8), 2)
    layers = encoder_layers(model)
    assert len(layers) == 5
    names = [n for n, _ in model.named_parameters()]
    held = {n for n in names for prefixes in layers if n.startswith(prefixes)}
    assert held == {n for n in names if n.startswith("encoder.")}


def test_norms_biases_tables_and_tokens_do_not_decay():
    decaying = {name for name, p in SwinMAE(NANO).named_parameters() if decays(name, p)}
    assert "encoder.layers.0.blocks.0.attn.qkv.weight" in decaying
    assert "decoder_pred.weight" in decaying
    for part in ("norm", "bias", "mask_token"):
        assert not [name for name in decaying if part in name.rpartition(".blocks")[2]]


@pytest.mark.parametrize("model", [SwinMAE(NANO), SwinUNet(NANO, 3), SwinClassifier(NANO, 2)])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_groups_hold_every_parameter_once(model: torch.nn.Module, layer_decay: float):
    settings = OptimizerSettings(layer_decay=layer_decay)
    groups = parameter_groups(model, 1.0, settings, encoder_layers(model))
    held = [id(p) for group in groups for p in group["params"]]  # pyright: ignore[reportGeneralTypeIssues]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_each_layer_learns_slower_than_the_one_above():
    model = SwinClassifier(NANO, 2)
    groups = parameter_groups(
        model, 1.0, OptimizerSettings(layer_decay=0.5, weight_decay=0.3), encoder_layers(model)
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}  # pyright: ignore[reportGeneralTypeIssues]
    rate = {name: rates[id(p)] for name, p in model.named_parameters()}
    # nano: patch embedding, then blocks of depth 1, 1, 2; the head is above them all.
    assert rate["head.weight"] == rate["norm.weight"] == 1
    assert rate["encoder.layers.2.blocks.1.mlp.fc1.weight"] == 0.5
    assert rate["encoder.layers.2.blocks.0.mlp.fc1.bias"] == 0.25
    assert rate["encoder.layers.1.downsample.reduction.weight"] == 0.125
    assert rate["encoder.layers.1.blocks.0.attn.qkv.weight"] == 0.125
    assert rate["encoder.layers.0.blocks.0.attn.relative_position_bias_table"] == 0.0625
    assert rate["encoder.patch_embed.proj.weight"] == 0.03125
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}


def test_what_does_not_learn_is_in_no_group():
    model = SwinClassifier(NANO, 2)
    model.encoder.requires_grad_(False)
    groups = parameter_groups(model, 1.0, OptimizerSettings(), encoder_layers(model))
    held = sum(len(group["params"]) for group in groups)  # pyright: ignore[reportArgumentType]
    assert held == 4


def test_the_schedule_reaches_every_group():
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    settings = OptimizerSettings(warmup_fraction=0.5)
    optimizer, schedule = build_optimizer(
        [{"params": [parameter], "lr": 0.4, "weight_decay": 0.0}], settings, 4, fused=False
    )
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.2, 0.4, 0.4, 0.004])


def test_the_recipe_of_nnunet_is_sgd_with_nesterov_momentum_and_a_polynomial():
    settings = OptimizerSettings(
        algorithm="sgd", schedule="poly", warmup_fraction=0.0, min_lr_fraction=0.0
    )
    factors = [lr_factor(step, 1000, settings) for step in (0, 500, 999)]
    assert factors == pytest.approx([1.0, 0.5**0.9, 0.001**0.9])
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    group = {"params": [ours], "lr": 0.01, "weight_decay": 3e-5}
    optimizer, _ = build_optimizer([group], settings, 10, fused=False)
    expected = torch.optim.SGD([theirs], lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    for _ in range(3):
        for parameter, stepper in ((ours, optimizer), (theirs, expected)):
            stepper.zero_grad()
            (parameter**2).sum().backward()
            stepper.step()
    assert torch.equal(ours, theirs)
