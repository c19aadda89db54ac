"""Swin weights under other projects' names; the numbers are those of Hugging Face transformers.

``tests/golden/swin_transformers.safetensors`` holds a small network that transformers 5.23 drew and
saved, an image, and what it computed: hidden states and logits.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models import (
    SwinClassifier,
    SwinConfig,
    SwinMAE,
    load_checkpoint,
    save_reference_checkpoint,
    transfer,
)
from vismae.models.foreign_swin import load_foreign_swin, widen_bias_table
from vismae.models.windows import relative_position_index

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "swin_transformers.safetensors"
PATH = Path("swin.safetensors")
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden() -> State:
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def hugging_face(golden: State) -> State:
    """The file that transformers wrote."""
    return {
        name.removeprefix("weights/"): value
        for name, value in golden.items()
        if name.startswith("weights/")
    }


def as_microsoft(hugging_face: State) -> State:
    """The same network as Microsoft's code would save it."""
    model = load_foreign_swin(hugging_face, PATH)
    assert model is not None
    state = {name.removeprefix("encoder."): value for name, value in model.state_dict().items()}
    for stage in range(2):
        for block in range(2):
            name = f"layers.{stage}.blocks.{block}.attn.relative_position_index"
            state[name] = relative_position_index(4)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return state


def as_timm(hugging_face: State) -> State:
    """The same network as timm 1.0 would save it."""
    state = {
        name.replace("layers.0.downsample", "layers.1.downsample").replace("head.", "head.fc."): v
        for name, v in as_microsoft(hugging_face).items()
        if not name.endswith(("attn_mask", "relative_position_index"))
    }
    # The names in timm's file of a Swin with two stages of two blocks each.
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    rest = ("patch_embed.proj", "patch_embed.norm", "layers.1.downsample.norm", "norm", "head.fc")
    blocks = [f"layers.{stage}.blocks.{block}" for stage in (0, 1) for block in (0, 1)]
    both = [*rest, *(f"{block}.{layer}" for block in blocks for layer in layers)]
    table = {f"{name}.{kind}" for name in both for kind in ("weight", "bias")}
    table |= {f"{block}.attn.relative_position_bias_table" for block in blocks}
    assert set(state) == table | {"layers.1.downsample.reduction.weight"}
    return state


def as_transformers_5_in_memory(state: State) -> State:
    """The names that ``state_dict`` of transformers 5 gives."""
    names = {
        "attention.self.query": "attention.q_proj",
        "attention.self.key": "attention.k_proj",
        "attention.self.value": "attention.v_proj",
        "attention.self.relative": "attention.relative_position_bias.relative",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    renamed = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(
    ("form", "naming"),
    [
        (dict, "Hugging Face"),
        (as_transformers_5_in_memory, "Hugging Face"),
        (as_microsoft, "Microsoft"),
        (as_timm, "timm"),
    ],
)
def test_every_naming_gives_the_numbers_of_transformers(
    golden: State,
    hugging_face: State,
    form: Callable[[State], State],
    naming: str,
    tmp_path: Path,
):
    save_file(form(hugging_face), tmp_path / "model.safetensors")
    model = load_checkpoint(tmp_path / "model.safetensors")
    assert isinstance(model, SwinClassifier)
    with torch.no_grad():
        tokens, skips = model.encoder(golden["image"])
        logits = model(golden["image"])
    for number, grid in enumerate((*skips, tokens)):
        found = grid.flatten(1, 2)
        torch.testing.assert_close(found, golden[f"hidden_{number}"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=1e-5)
    assert model.origin is not None
    assert (model.origin.naming, model.origin.absent) == (naming, ())
    assert (model.config.norm_eps, model.config.shift_single_window) == (1e-5, False)


def test_numbers_need_their_epsilon_and_their_unshifted_window(golden: State, hugging_face: State):
    """Else the test above could not tell these settings from VIS-MAE's."""
    model = load_foreign_swin(hugging_face, PATH)
    assert model is not None
    for change in ({"norm_eps": 1e-2}, {"shift_single_window": True}):
        other = SwinClassifier(replace(model.config, **change), 3).eval()
        other.load_state_dict(model.state_dict())
        assert not torch.allclose(other(golden["image"]), golden["logits"], atol=1e-4)


def test_live_transformers_agrees(tmp_path: Path):
    """Runs where transformers is installed; the recorded numbers above serve everywhere else."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=48,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=3,
        drop_path_rate=0.0,
    )
    theirs = transformers.SwinModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True).hidden_states
        tokens, skips = ours.encoder(images)
    for grid, hidden in zip((*skips, tokens), expected, strict=True):
        torch.testing.assert_close(grid.flatten(1, 2), hidden, atol=1e-4, rtol=1e-4)


def test_the_account_names_what_was_left_out_and_what_is_absent(hugging_face: State):
    state = {name: v for name, v in hugging_face.items() if not name.startswith("classifier")}
    state["decoder.0.weight"] = torch.zeros(3)
    model = load_foreign_swin(state, PATH)
    assert model is not None
    assert model.origin is not None
    assert model.origin.unused == ("decoder.0.weight",)
    assert model.origin.absent == ("head.weight", "head.bias")
    derived = sum(name.endswith("relative_position_index") for name in state)
    assert model.origin.taken == len(state) - derived - 1
    assert model.num_classes == 1
    report = transfer(model, SwinMAE(replace(model.config, in_channels=1)))
    assert report.origin == model.origin
    for said in ("Hugging Face names", "not used: decoder.0.weight", "not in the file: head.weight",
                 "encoder.norm_eps: 1e-05 as theirs", "summed over 3 image channels"):  # fmt: skip
        assert said in report.text()
    assert report.to_dict()["origin"]["naming"] == "Hugging Face"


def test_one_channel_gives_the_same_tokens_on_grey_images(hugging_face: State):
    model = load_foreign_swin(hugging_face, PATH)
    assert model is not None
    grey = SwinClassifier(replace(model.config, in_channels=1), 2).eval()
    transfer(model, grey)
    images = torch.randn(2, 1, 28, 28)
    expected = model.encoder(images.expand(-1, 3, -1, -1)).tokens
    torch.testing.assert_close(grey.encoder(images).tokens, expected, atol=1e-5, rtol=1e-5)


def test_wrapped_names_and_a_pickle_are_read(hugging_face: State, tmp_path: Path):
    wrapped = {f"module.encoder.{n}": v for n, v in as_microsoft(hugging_face).items()}
    wrapped["module.encoder.mask_token"] = torch.zeros(1)
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "simmim.pth")
    model = load_checkpoint(tmp_path / "simmim.pth")
    assert isinstance(model, SwinClassifier)
    assert model.origin is not None
    assert (model.origin.naming, model.origin.unused) == ("Microsoft", ("mask_token",))


def test_files_of_vismae_are_not_taken_for_others(small: SwinConfig, tmp_path: Path):
    for number, model in enumerate((SwinMAE(small), SwinClassifier(small, 5))):
        save_reference_checkpoint(model, tmp_path / f"{number}.pth")
        save_file(dict(model.state_dict()), tmp_path / f"{number}.safetensors")
        for suffix in ("pth", "safetensors"):
            again = load_checkpoint(tmp_path / f"{number}.{suffix}")
            assert type(again) is type(model)
            assert getattr(again, "origin", None) is None
            assert again.config.shift_single_window


def test_smaller_windows_of_late_stages_keep_their_numbers(golden: State, hugging_face: State):
    """A file made for small images has 3×3 windows in its last stage, ours 4×4 everywhere."""
    table = torch.randn(25, 4)
    state = as_microsoft(hugging_face)
    for block in range(2):
        state[f"layers.1.blocks.{block}.attn.relative_position_bias_table"] = table
        state[f"layers.1.blocks.{block}.attn.relative_position_index"] = relative_position_index(3)
    model = load_foreign_swin(state, PATH)
    assert model is not None
    assert model.config.window_size == 4
    bias = model.encoder.layers[1].blocks[0].attn.position_bias(3)
    expected = table[relative_position_index(3)].permute(2, 0, 1)
    torch.testing.assert_close(bias, expected)
    wide = widen_bias_table(table, 49).view(7, 7, 4)
    assert torch.equal(wide[0, 0], table[0])
    assert model.origin is not None
    assert "2 put into the middle of larger windows" in model.origin.text()


def test_windows_that_grow_towards_later_stages_are_refused(hugging_face: State):
    """Those of Swin-S3; windows as large everywhere would look at other tokens."""
    state = {n: v for n, v in as_microsoft(hugging_face).items() if not n.endswith("index")}
    for block in range(2):
        name = f"layers.0.blocks.{block}.attn.relative_position_bias_table"
        state[name] = torch.randn(9, 2)
    with pytest.raises(ModelError, match=r"windows of 2, 4 tokens in its stages"):
        load_foreign_swin(state, PATH)


def test_attention_trained_without_bias_gets_zeros(hugging_face: State):
    state = {n: v for n, v in as_timm(hugging_face).items() if not n.endswith("qkv.bias")}
    model = load_foreign_swin(state, PATH)
    assert model is not None
    assert not model.encoder.layers[1].blocks[1].attn.qkv.bias.any()
    assert model.origin is not None
    assert "4 set to 0" in model.origin.text()
    assert model.origin.taken == len(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.blocks.0.attn.logit_scale": torch.ones(2)}, "Swin V2"),
        ({"absolute_pos_embed": torch.ones(1, 49, 8)}, "position embedding"),
        (
            {"layers.0.blocks.0.attn.relative_position_index": relative_position_index(4).T},
            "in another way",
        ),
        (
            {"layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(35, 2)},
            "only square windows",
        ),
        ({"layers.0.blocks.0.norm1.weight": None}, "norm1.weight .* is missing"),
        ({"patch_embed.norm.weight": None}, "patch_embed.norm.weight .* is missing"),
        ({"layers.0.blocks.1.attn.extra": torch.ones(1)}, "has no counterpart"),
    ],
)
def test_variants_that_compute_something_else_are_refused(
    hugging_face: State, change: dict[str, Tensor | None], message: str
):
    state = {**as_microsoft(hugging_face), **change}
    with pytest.raises(ModelError, match=message):
        load_foreign_swin({n: v for n, v in state.items() if v is not None}, PATH)
