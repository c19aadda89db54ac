"""Every network through ``vismae finetune``: chosen, started, trained, saved, and refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models_on_disk import write_network
from vismae.core.config import FinetuneConfig
from vismae.core.errors import ModelError, SettingError
from vismae.data.store import Store
from vismae.inference.predictor import Predictor
from vismae.models import (
    ComparisonClassifier,
    HybridUNet,
    SwinClassifier,
    network_of,
    plan_network,
)
from vismae.models.weights import load_model
from vismae.workflows.finetune import finetune

MakeConfig = Callable[..., FinetuneConfig]

LEARN = {
    "augment.probability": 0.0,
    "augment.intensity_probability": 0.0,
    "model.drop_path": 0.0,
    "optimizer.lr": 3e-3,
    "data.batch_size": 8,
    "trainer.validate_every": 30,
    "trainer.max_steps": 30,
}
STILL = {"optimizer.lr": 1e-12, "trainer.max_steps": 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"model.network": "hybrid"},
        {"model.network": "hybrid", "model.deep_supervision": True, "trainer.ema_decay": 0.5},
        {"model.network": "swin_unet_conv"},
        {"model.network": "unet", "model.width": 8},
        {"model.network": "dynunet", "model.width": 8},
        {"model.network": "swin_unetr", "model.width": 12, "trainer.max_steps": 10},
    ],
    ids=lambda settings: settings["model.network"],
)
def test_every_segmentation_network_learns_to_find_a_bright_disc(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path, settings: dict
) -> None:
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **{**LEARN, **settings}))
    assert result.validation > 0.85
    model = load_model(result.model)
    assert network_of(model) == settings["model.network"]
    assert model.card is not None
    assert model.card.task is not None
    assert model.card.task.network == settings["model.network"]
    store = Store(discs)
    assert model.preprocessing is not None
    rows = np.arange(2)
    maps = dict(Predictor(model, model.preprocessing).label_maps(store, rows))
    assert sorted(maps) == [0, 1]


@pytest.mark.parametrize("network", ["resnet18", "densenet121"])
def test_classifiers_to_compare_with_learn_to_tell_bright_from_dark(
    shades: Path, finetune_config: MakeConfig, tmp_path: Path, network: str
) -> None:
    settings = {**LEARN, "model.network": network, "model.width": 8}
    result = finetune(finetune_config("classify", tmp_path / "run", shades, **settings))
    assert result.validation > 0.9
    assert network_of(load_model(result.model)) == network


def test_the_hybrid_takes_the_encoder_of_a_pretrained_model(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**STILL, "init": pretrained, "model.network": "hybrid"}
    model = load_model(
        finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    )
    assert isinstance(model, HybridUNet)
    source = load_model(pretrained).encoder.state_dict()
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, source[name], atol=1e-6, rtol=0)
    shares = model.heads[0].bias.detach().exp()
    assert shares.sum().item() == pytest.approx(1, abs=1e-4)
    assert model.card is not None
    assert "copied" in model.card.provenance["transfer"]


@pytest.mark.parametrize("from_weights", [False, True])
def test_the_attention_window_can_be_chosen(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path, from_weights: bool
) -> None:
    start = {"init": pretrained} if from_weights else {}
    settings = {**STILL, **start, "model.network": "hybrid", "model.window_size": 3}
    model = load_model(
        finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    )
    assert isinstance(model, HybridUNet)
    assert model.config.window_size == 3


def test_lora_ends_in_a_plain_model_folder(
    pretrained: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**LEARN, "init": pretrained, "model.train": "lora", "model.lora_rank": 2}
    config = finetune_config("classify", tmp_path / "run", shades, **settings)
    model = load_model(finetune(config).model)
    assert isinstance(model, SwinClassifier)
    source = load_model(pretrained).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("encoder."):
            adapted = name.endswith(("attn.qkv.weight", "attn.proj.weight"))
            assert torch.equal(value, source[name]) != adapted, name


def test_only_the_last_blocks_may_learn(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**LEARN, "trainer.max_steps": 2, "init": pretrained, "model.train": "last_1"}
    model = load_model(
        finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    )
    assert isinstance(model, HybridUNet)
    source = load_model(pretrained).state_dict()
    last = max(name for name in source if name.startswith("encoder.layers.")).split(".blocks.")[0]
    for name, value in model.state_dict().items():
        if name.startswith("encoder.") and not name.startswith(last):
            assert torch.equal(value, source[name]), name
    learnt = f"{last}.blocks.{model.config.depths[-1] - 1}.mlp.fc1.weight"
    assert not torch.equal(model.state_dict()[learnt], source[learnt])


def test_foreign_weights_start_networks_of_their_kind(
    discs: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    swin = SwinClassifier.from_size("nano", 3, num_classes=1000, norm_eps=1e-5)
    names = {n.removeprefix("encoder."): v.clone() for n, v in swin.state_dict().items()}
    save_file(names, tmp_path / "swin.safetensors")
    settings = {**STILL, "init": tmp_path / "swin.safetensors", "model.network": "hybrid"}
    model = load_model(
        finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    )
    assert (model.config.norm_eps, model.config.shift_single_window) == (1e-5, False)
    assert model.card is not None
    assert "Microsoft names" in model.card.provenance["transfer"]
    assert model.preprocessing is not None
    assert (model.preprocessing.mean, model.preprocessing.std) == (0.449, 0.226)
    resnet = ComparisonClassifier("resnet18", plan_network("resnet18", 3, (32, 32), 8), 4)
    names = {n.removeprefix("encoder."): v.clone() for n, v in resnet.encoder.state_dict().items()}
    torch.save(names, tmp_path / "resnet.pt")
    settings = {**STILL, "init": tmp_path / "resnet.pt", "model.network": "resnet18"}
    grey = {"model.in_channels": 1}
    config = finetune_config("classify", tmp_path / "b", shades, **settings, **grey)
    model = load_model(finetune(config).model)
    assert (model.config.in_channels, model.config.width) == (1, 8)
    expected = resnet.encoder.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.encoder.conv1.weight, expected, atol=1e-5, rtol=0)


def test_a_start_goes_only_to_networks_that_can_take_it(
    pretrained: Path, discs: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    start = {**STILL, "init": pretrained}
    with pytest.raises(SettingError, match=r"dynunet, which always starts from scratch"):
        finetune(finetune_config("segment", tmp_path / "a", discs, **start, **network("dynunet")))
    assert not (tmp_path / "a").exists()
    with pytest.raises(SettingError, match=r"is a swin_mae, and model.network is resnet50"):
        finetune(
            finetune_config("classify", tmp_path / "b", shades, **start, **network("resnet50"))
        )
    settings = {**STILL, "model.width": 8, **network("resnet18")}
    resnet = finetune(finetune_config("classify", tmp_path / "c", shades, **settings)).model
    settings = {**STILL, "init": resnet, **network("hybrid")}
    unet = {"init": write_network(tmp_path / "unet", "unet")}
    with pytest.raises(SettingError, match=r"is a unet, whose weights are no start"):
        finetune(finetune_config("segment", tmp_path / "e", discs, **{**STILL, **unet}))
    with pytest.raises(SettingError, match=r"is a resnet18, .* This start fits: resnet18"):
        finetune(finetune_config("segment", tmp_path / "d", discs, **settings))


def network(name: str) -> dict[str, str]:
    return {"model.network": name}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("segment", network("resnet18"), "resnet18, which cannot segment"),
        ("classify", network("hybrid"), "hybrid, which cannot classify"),
        ("segment", {**network("unet"), "model.train": "lora"}, "train=lora does not go with"),
        ("segment", {**network("dynunet"), "model.train": "head"}, "train=head does not go with"),
        ("classify", {**network("resnet18"), "model.train": "last_2"}, "train=last_2 does not"),
        ("segment", {**network("swin_unet"), "model.width": 8}, "width does not go with"),
        ("classify", {"model.width": 8}, "width does not go with network swin"),
        ("segment", {**network("unet"), "model.deep_supervision": True}, "deep_supervision does"),
        ("segment", {"model.train": "last_0"}, "model.train"),
        ("segment", network("nnunet"), "model.network"),
    ],
)
def test_settings_that_contradict_the_network_are_errors(
    discs: Path,
    finetune_config: MakeConfig,
    tmp_path: Path,
    kind: str,
    settings: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(SettingError, match=message):
        finetune(finetune_config(kind, tmp_path / "run", discs, **settings))


def test_a_start_that_is_not_there_is_told_before_images_are_read(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    config = finetune_config(
        "classify", tmp_path / "run", tmp_path / "no_images", init=tmp_path / "gone"
    )
    with pytest.raises(ModelError, match=r"gone does not exist\. Give a checkpoint"):
        finetune(config)
    assert not (tmp_path / "run").exists()
