import copy

import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.models import HybridUNet, SwinClassifier, SwinConfig, add_lora, merge_lora
from vismae.models.trainable import choose_trainable


def count(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters() if value.requires_grad)


def learn(model: SwinClassifier, steps: int = 5) -> None:
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    images, labels = torch.randn(4, 1, 32, 32), torch.arange(4) % 2
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def test_nothing_changes_until_something_is_learnt(small: SwinConfig):
    model = SwinClassifier(small, 2).eval()
    images = torch.randn(2, 1, 30, 41)
    with torch.no_grad():
        before = model(images)
        add_lora(model.encoder, rank=2)
        assert torch.equal(model(images), before)


def test_the_number_of_parameters_that_learn(small: SwinConfig):
    """Each layer D×C has r·(C + D); two blocks of 16 and two of 32 channels."""
    model = SwinClassifier(small, 2)
    attention = sum(2 * 3 * ((c + 3 * c) + (c + c)) for c in (16, 32))
    assert add_lora(model.encoder, rank=3) == attention == count(model.encoder)
    mlp = SwinClassifier(small, 2)
    expected = sum(2 * 2 * 2 * (c + 4 * c) for c in (16, 32))
    assert add_lora(mlp.encoder, rank=2, targets=("fc1", "fc2")) == expected


def test_merged_weights_give_the_same_numbers_under_the_plain_names(small: SwinConfig):
    model = SwinClassifier(small, 2)
    names, start = list(model.state_dict()), copy.deepcopy(model.state_dict())
    add_lora(model.encoder, rank=4, alpha=8.0, targets=("qkv", "proj", "fc1", "fc2"))
    learn(model)
    images = torch.randn(2, 1, 30, 41)
    with torch.no_grad():
        learnt = model.eval()(images)
        assert merge_lora(model) == 16
        assert torch.equal(model(images), learnt)
        assert sorted(model.state_dict()) == sorted(names)
        plain = SwinClassifier(small, 2).eval()
        plain.load_state_dict(model.state_dict())
        assert torch.equal(plain(images), learnt)
    qkv = "encoder.layers.1.blocks.0.attn.qkv.weight"
    change = model.state_dict()[qkv] - start[qkv]
    assert change.abs().max() > 0
    assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 4
    norm = "encoder.layers.0.blocks.0.norm1.weight"
    assert torch.equal(model.state_dict()[norm], start[norm])
    assert merge_lora(model) == 0


def test_a_copy_learns_for_itself(small: SwinConfig):
    model = SwinClassifier(small, 2).eval()
    add_lora(model.encoder)
    other = copy.deepcopy(model)
    images = torch.randn(2, 1, 32, 32)
    before = other(images)
    learn(model)
    assert torch.equal(other(images), before)
    assert not torch.equal(model(images), before)


def test_wrong_settings_are_errors(small: SwinConfig):
    model = SwinClassifier(small, 2)
    with pytest.raises(SettingError, match=r"lora_targets is query .* some of qkv"):
        add_lora(model.encoder, targets=("query",))
    with pytest.raises(SettingError, match="rank 0"):
        add_lora(model.encoder, rank=0)
    with pytest.raises(ModelError, match="Linear has no linear layers"):
        add_lora(torch.nn.Linear(2, 2))
    add_lora(model.encoder)
    with pytest.raises(ModelError, match="left to adapt"):
        add_lora(model.encoder)


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("all", {"patch_embed", "0.0", "0.1", "0.downsample", "1.0", "1.1"}),
        ("head", set()),
        ("last_1", {"1.1"}),
        ("last_3", {"0.1", "0.downsample", "1.0", "1.1"}),
    ],
)
def test_which_layers_learn(small: SwinConfig, train: str, expected: set[str]):
    network = HybridUNet(small, 2)
    learning = choose_trainable(network, train)
    found = set()
    for name, value in network.encoder.named_parameters():
        if value.requires_grad:
            parts = name.replace("blocks.", "").split(".")
            found.add(".".join(parts[1:3]) if parts[0] == "layers" else parts[0])
    assert found == expected
    assert learning == count(network)
    rest = [value for name, value in network.named_parameters() if not name.startswith("encoder.")]
    assert all(value.requires_grad for value in rest)


def test_lora_leaves_the_rest_of_the_network_free(small: SwinConfig):
    network = HybridUNet(small, 2)
    encoder = sum(value.numel() for value in network.encoder.parameters())
    total = sum(value.numel() for value in network.parameters())
    learning = choose_trainable(network, "lora", lora_rank=1, lora_targets=("proj",))
    assert learning == total - encoder + sum(2 * 2 * c for c in (16, 32))


def test_what_cannot_learn_so_is_an_error(small: SwinConfig):
    with pytest.raises(SettingError, match="the encoder has 4 blocks"):
        choose_trainable(HybridUNet(small, 2), "last_5")
    with pytest.raises(SettingError, match="use all, head, lora"):
        choose_trainable(HybridUNet(small, 2), "some")
    with pytest.raises(SettingError, match="Linear has no encoder"):
        choose_trainable(torch.nn.Linear(2, 2), "head")
