"""Encoder weights under the names of other Swin code: their numbers, their names."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import vismae
from models_on_disk import PLACED, SMALL_CONTRACT, save_network, write_network
from vismae.core.errors import ModelError
from vismae.models import SwinMAE, SwinSimCLR, load_model
from vismae.models.foreign_names import swin_naming
from vismae.models.reference import save_reference_checkpoint


@pytest.mark.parametrize("format", ["microsoft", "timm"])
@pytest.mark.parametrize("network", ["swin_mae", "swin", "hybrid"])
def test_swin_weights_give_the_numbers_of_transformers_swin(
    format: str, network: str, tmp_path: Path
) -> None:
    model = write_network(tmp_path / "model", network)
    result = vismae.export(model=model, format=format, out=tmp_path / "out")
    report = json.loads((result.folder / "export.json").read_text())
    assert {name.split(",")[0] for name in report["differences"]} == {
        "read back",
        "transformers' Swin",
    }
    assert result.difference < 1e-4
    assert "shifts nothing and this network does" in result.summary()


def test_swin_weights_are_compared_where_the_smallest_variances_matter(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = SwinMAE.from_size("nano", in_channels=1, mask_unit_px=8)
    with torch.no_grad():
        # Patches so faint that 1e-5 instead of 1e-6 beside their variance changes every number.
        made.encoder.patch_embed.proj.weight.mul_(1e-2)
        made.encoder.patch_embed.proj.bias.zero_()
    model = save_network(tmp_path / "model", made, "mae", SMALL_CONTRACT)
    assert vismae.export(model=model, format="microsoft", out=tmp_path / "out").difference < 1e-5


def test_the_norm_of_a_contrastive_network_is_written(tmp_path: Path) -> None:
    made = SwinSimCLR.from_size("nano", in_channels=1)
    torch.nn.init.uniform_(made.norm.weight)
    model = save_network(tmp_path / "model", made, "contrastive", SMALL_CONTRACT)
    result = vismae.export(model=model, format="timm", out=tmp_path / "out")
    state = safetensors.torch.load_file(result.file)
    assert torch.equal(state["norm.weight"], made.norm.weight)
    assert result.difference < 1e-4


def test_a_last_layer_that_sees_places_stays_behind(tmp_path: Path) -> None:
    model = write_network(tmp_path / "model", PLACED)
    result = vismae.export(model=model, format="microsoft", out=tmp_path / "out")
    assert not [name for name in torch.load(result.file)["model"] if name.startswith("head")]
    assert "The last layer is left out: it was trained with place_grid 3" in result.summary()
    with pytest.raises(ModelError, match=r"place_grid 3\. Keep the model folder"):
        save_reference_checkpoint(load_model(model), tmp_path / "official.pth")


def test_timm_names_are_those_of_its_swin(tmp_path: Path) -> None:
    model = write_network(tmp_path / "model", "swin")
    result = vismae.export(model=model, format="timm", out=tmp_path / "out")
    state = safetensors.torch.load_file(result.file)
    depths = load_model(model).config.depths  # pyright: ignore
    expected = {"patch_embed.proj", "patch_embed.norm", "norm", "head.fc"}
    expected |= {f"layers.{stage}.downsample.norm" for stage in range(1, len(depths))}
    tables = set()
    for stage, depth in enumerate(depths):
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}"
            parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
            expected |= {f"{place}.{part}" for part in parts}
            tables |= {f"{place}.attn.relative_position_{end}" for end in ("bias_table", "index")}
    names = {f"{name}.{end}" for name in expected for end in ("weight", "bias")} | tables
    names |= {f"layers.{stage}.downsample.reduction.weight" for stage in range(1, len(depths))}
    assert set(state) == names
    assert swin_naming(state) == "timm"
