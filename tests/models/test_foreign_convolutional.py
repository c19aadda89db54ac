"""ResNet and DenseNet weights in torchvision and RadImageNet naming."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.models import ComparisonClassifier, load_checkpoint, plan_network, transfer
from vismae.models.foreign import IMAGENET

State = dict[str, Tensor]
PARTS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def random_classifier(network: str, width: int = 8) -> ComparisonClassifier:
    model = ComparisonClassifier(network, plan_network(network, 3, (64, 64), width), 4).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.05 * torch.rand_like(value))
    return model


def as_torchvision(model: ComparisonClassifier) -> State:
    last = "classifier" if model.network == "densenet121" else "fc"
    return {
        re.sub(r"^head\.", f"{last}.", name.removeprefix("encoder.").replace(".layers.", ".")): v
        for name, v in model.state_dict().items()
    }


def as_radimagenet(model: ComparisonClassifier) -> State:
    """The names in RadImageNet's PyTorch files: numbered layers, no last one."""
    state = {n: v for n, v in as_torchvision(model).items() if not n.startswith(("fc.", "class"))}
    if model.network == "densenet121":
        return {f"backbone.0.{name.removeprefix('features.')}": v for name, v in state.items()}
    return {
        f"backbone.{PARTS[name.split('.')[0]]}.{name.split('.', 1)[1]}": value
        for name, value in state.items()
    }


@pytest.mark.parametrize("network", ["resnet18", "resnet50", "densenet121"])
def test_torchvision_names_give_the_same_numbers(network: str, tmp_path: Path):
    model = random_classifier(network)
    save_file(as_torchvision(model), tmp_path / "model.safetensors")
    again = load_checkpoint(tmp_path / "model.safetensors")
    assert isinstance(again, ComparisonClassifier)
    assert (again.network, again.num_classes) == (network, 4)
    images = torch.randn(2, 3, 64, 50)
    torch.testing.assert_close(again(images), model(images))
    assert again.origin is not None
    assert (again.origin.unused, again.origin.absent) == ((), ())
    assert again.origin.normalisation == IMAGENET


def test_torchvisions_own_densenet_file_has_older_names(tmp_path: Path):
    model = random_classifier("densenet121")
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in as_torchvision(model).items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet121-a639ec97.pth")
    again = load_checkpoint(tmp_path / "densenet121-a639ec97.pth")
    assert isinstance(again, ComparisonClassifier)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(images), model(images))


@pytest.mark.parametrize("network", ["resnet50", "densenet121"])
def test_radimagenet_files_fill_the_encoder(network: str, tmp_path: Path):
    model = random_classifier(network)
    torch.save(as_radimagenet(model), tmp_path / "model.pt")
    again = load_checkpoint(tmp_path / "model.pt")
    assert isinstance(again, ComparisonClassifier)
    images = torch.randn(2, 3, 64, 50)
    torch.testing.assert_close(again.features(images), model.features(images))
    assert again.origin is not None
    assert again.origin.absent == ("head.weight", "head.bias")
    assert again.origin.normalisation == (0.5, 0.5)
    target = ComparisonClassifier(network, model.config.with_channels(1), 2).eval()
    report = transfer(again, target)
    grey = torch.randn(2, 1, 64, 50)
    expected = model.features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(target.features(grey), expected, atol=1e-4, rtol=1e-4)
    assert "torchvision names" in report.text()
    assert "summed over 3 image channels" in report.text()


def test_resnet_computes_what_torchvision_publishes():
    """The layers of torchvision's ResNet-50 (v1.5) written out, on torchvision's names."""
    model = random_classifier("resnet50")
    state = as_torchvision(model)

    def normalised(x: Tensor, conv: str, norm: str, stride: int = 1, padding: int = 0) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{name}"] for name in names))

    x = images = torch.randn(2, 3, 64, 64)
    x = F.max_pool2d(normalised(x, "conv1", "bn1", 2, 3).relu(), 3, 2, 1)
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = normalised(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = normalised(y, f"{name}.conv2", f"{name}.bn2", stride, 1).relu()
            y = normalised(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = normalised(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (x + y).relu()
    expected = F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


def test_other_depths_and_half_files_are_refused(tmp_path: Path):
    state = as_torchvision(random_classifier("resnet18"))
    deeper = {**state, "layer3.2.conv1.weight": torch.ones(1)}
    save_file(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(ModelError, match=r"ResNet with \(2, 2, 3, 2\) blocks"):
        load_checkpoint(tmp_path / "deeper.safetensors")
    del state["layer2.0.bn1.running_mean"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(ModelError, match=r"running_mean .* is missing"):
        load_checkpoint(tmp_path / "half.safetensors")


def test_old_files_without_counts_are_whole(tmp_path: Path):
    model = random_classifier("resnet18")
    state = {n: v for n, v in as_torchvision(model).items() if "num_batches" not in n}
    state["avgpool.note"] = torch.ones(1)
    save_file(state, tmp_path / "model.safetensors")
    again = load_checkpoint(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(images), model(images))
    assert again.origin.unused == ("avgpool.note",)
