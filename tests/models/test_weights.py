import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import (
    ComparisonClassifier,
    ComparisonSegmenter,
    HybridUNet,
    SwinClassifier,
    SwinConfig,
    SwinMAE,
    SwinSimCLR,
    SwinUNet,
    architecture_of,
    build_module,
    kind_of,
    load_model,
    network_of,
    plan_network,
    save_model,
    save_reference_checkpoint,
)
from vismae.models.comparison_plan import CLASSIFIERS, SEGMENTERS
from vismae.models.weights import NETWORKS, Model


def card_of(module: Model) -> ModelCard:
    classes = tuple(f"class {i}" for i in range(getattr(module, "num_classes", 0)))
    return ModelCard(
        kind=kind_of(module),
        architecture=architecture_of(module),
        preprocessing=Preprocessing(image_size=(32, 40), in_channels=1),
        task=TaskCard(classes=classes) if classes else None,
    )


def models(config: SwinConfig) -> list[Model]:
    return [
        SwinMAE(config, mask_ratio=0.6, strategy="block", normalise_patches=True),
        SwinUNet(config, 3, head_bias=False),
        SwinClassifier(config, 5, dropout=0.1),
    ]


@pytest.fixture
def folder(small: SwinConfig, tmp_path: Path) -> Path:
    classifier = SwinClassifier(small, 2)
    save_model(classifier, card_of(classifier), tmp_path / "model")
    return tmp_path / "model"


def test_model_folder_gives_the_same_model_back(small: SwinConfig, tmp_path: Path):
    for number, module in enumerate(models(small)):
        target = tmp_path / str(number)
        save_model(module, card_of(module), target)
        again = load_model(target)
        assert type(again) is type(module)
        assert architecture_of(again) == architecture_of(module)
        assert again.card == card_of(module)
        assert again.preprocessing == again.card.preprocessing
        assert not again.training
        images = torch.randn(2, 1, 32, 40)
        if isinstance(module, SwinMAE):
            keys = torch.arange(2)
            module.eval()
            assert torch.equal(module(images, keys=keys).loss, again(images, keys=keys).loss)
        else:
            assert torch.equal(module.eval()(images), again(images))
        assert sorted(path.name for path in target.iterdir()) == [
            "model.json",
            "model.safetensors",
        ]


def test_saving_again_replaces_the_model(folder: Path, small: SwinConfig):
    other = SwinMAE(small)
    save_model(other, card_of(other), folder)
    assert isinstance(load_model(folder), SwinMAE)


def test_newer_format_is_refused_by_name(folder: Path):
    card = json.loads((folder / "model.json").read_text())
    card.update(format_version=2, hologram=True)
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="format_version 2; this vismae reads up to 1"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} does not exist"):
        load_model(folder)


def test_the_folder_of_a_run_is_answered_with_that_of_its_model(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "model")
    with pytest.raises(ModelError, match=f"It is a run, whose model is {run / 'model'}: give that"):
        load_model(run)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_damaged_file_is_named(folder: Path, name: str):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=name):
        load_model(folder)


def test_weights_of_another_network_are_an_error(folder: Path):
    state = load_file(folder / "model.safetensors")
    state["head.weight"] = torch.zeros(7, 32)
    del state["norm.weight"]
    save_file(state, folder / "model.safetensors")
    expected = r"head.weight is \(7, 32\), expected \(2, 32\); norm.weight \(32,\) is missing"
    with pytest.raises(ModelError, match=expected):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "oracle"}, "kind: "),
        ({"architecture": {"num_classes": 2}}, "swin is missing"),
        ({"architecture": {"swin": {}, "colour": 1}}, "colour is unknown"),
        ({"architecture": {"swin": {}, "num_classes": 3, "dropout": 0}}, "names 2 classes"),
        ({"architecture": {"swin": {}, "num_classes": 2, "dropout": "x"}}, "wrong type"),
        ({"format_version": None}, "no format_version"),
        ({"preprocessing": {"std": 0.0}}, "preprocessing.std"),
        ({"preprocessing": {"mean": float("nan")}}, "preprocessing.mean"),
        ({"preprocessing": {"image_size": [0, 32]}}, "preprocessing.image_size.0"),
        ({"preprocessing": {"image_size": [32, 10**6]}}, "preprocessing.image_size.1"),
        ({"preprocessing": {"percentiles": [0.5, 101]}}, "preprocessing.percentiles.1"),
        ({"preprocessing": {"ct_window_hu": [40, 40]}}, "ct_window_hu: .*must be the larger"),
        ({"task": {"classes": ["no", "yes"], "thresholds": [0.5]}}, "1 thresholds for 2 classes"),
    ],
)
def test_card_that_makes_no_sense_is_an_error(folder: Path, change: dict, message: str):
    card = json.loads((folder / "model.json").read_text())
    if "swin" in change.get("architecture", {}):  # its sizes are right, the rest is not
        own = {"swin": card["architecture"]["swin"]}
        change = {"architecture": {**change["architecture"], **own}}
    (folder / "model.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_card_of_another_model_is_not_saved(small: SwinConfig, tmp_path: Path):
    mae = SwinMAE(small)
    with pytest.raises(ModelError, match="describes a 'classifier'"):
        save_model(mae, card_of(SwinClassifier(small, 2)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_segmentation_network_is_an_error(small: SwinConfig):
    task = TaskCard(classes=("background", "organ"), network="hyper_net")
    with pytest.raises(ModelError, match=r"network 'hyper_net' is unknown.*swin_unet"):
        build_module("segmenter", architecture_of(SwinUNet(small, 2)), task)


def test_module_that_is_no_model_is_an_error():
    with pytest.raises(ModelError, match="Linear is no vismae model"):
        kind_of(torch.nn.Linear(1, 1))


def test_a_folder_may_be_plain_text(small: SwinConfig, tmp_path: Path):
    module = SwinClassifier(small, 2)
    save_model(module, card_of(module), str(tmp_path / "model"))
    assert torch.equal(load_model(str(tmp_path / "model")).head.weight, module.head.weight)


def test_every_network_comes_back_from_its_folder(small: SwinConfig, tmp_path: Path):
    plan = {name: plan_network(name, 1, (32, 32), 12) for name in (*SEGMENTERS, *CLASSIFIERS)}
    models = [
        SwinMAE(small),
        SwinSimCLR(small),
        SwinUNet(small, 2),
        SwinUNet(small, 2, head_kind="convolutional"),
        HybridUNet(small, 2, width=8, deep_supervision=True),
        *(ComparisonSegmenter(name, plan[name], 2, name == "dynunet") for name in SEGMENTERS),
        SwinClassifier(small, 2),
        *(ComparisonClassifier(name, plan[name], 2, dropout=0.1) for name in CLASSIFIERS),
    ]
    names = [network_of(model) for model in models]
    assert names == [name for networks in NETWORKS.values() for name in networks]
    images = torch.randn(2, 1, 40, 33)
    for model in models:
        card = card_of(model)
        if card.task is not None:
            task = card.task.model_copy(update={"network": network_of(model)})
            card = card.model_copy(update={"task": task})
        save_model(model, card, tmp_path / "model")
        again = load_model(tmp_path / "model")
        assert type(again) is type(model)
        assert architecture_of(again) == architecture_of(model)
        if not isinstance(model, SwinMAE | SwinSimCLR):
            with torch.no_grad():
                assert torch.equal(again(images), model.eval()(images))


def test_folders_from_before_there_were_other_networks_still_open(small: SwinConfig):
    old = {"swin": small.to_dict(), "num_classes": 2, "head_bias": True}
    assert (
        build_module("segmenter", old).state_dict().keys() == SwinUNet(small, 2).state_dict().keys()
    )
    assert "network" not in architecture_of(SwinUNet(small, 2))


def test_folders_from_before_the_branch_open_without_one(small: SwinConfig):
    mae = SwinMAE(small, decoder_kind="convolutional", decoder_branch=False)
    for model in (HybridUNet(small, 2, branch=False), mae, SwinMAE(small)):
        old = architecture_of(model)
        del old["decoder_branch" if isinstance(model, SwinMAE) else "branch"]
        again = build_module(kind_of(model), old)
        assert again.state_dict().keys() == model.state_dict().keys()
        assert architecture_of(again) == architecture_of(model)


def test_a_card_that_names_two_networks_is_an_error(small: SwinConfig):
    task = TaskCard(classes=("background", "organ"), network="hybrid")
    with pytest.raises(ModelError, match=r"'hybrid', but architecture.network is 'swin_unet'"):
        build_module("segmenter", architecture_of(SwinUNet(small, 2)), task)


def test_networks_the_official_code_does_not_have_are_not_exported(
    small: SwinConfig, tmp_path: Path
):
    others = (
        HybridUNet(small, 2),
        SwinUNet(small, 2, head_kind="convolutional"),
        ComparisonClassifier("resnet18", plan_network("resnet18", 1, (32, 32), 8), 2),
    )
    for model in others:
        with pytest.raises(ModelError, match=f"no network '{network_of(model)}'"):
            save_reference_checkpoint(model, tmp_path / "model.pth")
    assert list(tmp_path.iterdir()) == []
