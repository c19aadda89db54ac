import argparse
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import (
    SwinClassifier,
    SwinConfig,
    SwinMAE,
    SwinUNet,
    architecture_of,
    load_checkpoint,
    load_reference_checkpoint,
    save_model,
    save_reference_checkpoint,
    transfer,
)
from vismae.models.weights import Model

EXACT = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture
def parity(test_data: Path) -> Path:
    return test_data / "fixtures" / "parity"


@torch.no_grad()
def test_masked_autoencoder_gives_the_official_numbers(parity: Path):
    recorded = load_file(parity / "mae.safetensors")
    hidden = recorded["mask"].bool()
    mae = load_reference_checkpoint(parity / "mae.pth")
    assert isinstance(mae, SwinMAE)
    output = mae(recorded["images"], hidden=hidden)
    tokens = mae.embed_with_token(recorded["images"], hidden)
    latent = mae.forward_features(recorded["images"], hidden)
    torch.testing.assert_close(tokens, recorded["tokens_after_masking"], **EXACT)
    torch.testing.assert_close(latent, recorded["latent"], **EXACT)
    torch.testing.assert_close(output.prediction, recorded["pred"], **EXACT)
    torch.testing.assert_close(output.loss, recorded["loss"], **EXACT)
    scaled = load_reference_checkpoint(parity / "mae.pth", normalise_patches=True)
    loss = scaled(recorded["images"], hidden=hidden).loss
    torch.testing.assert_close(loss, recorded["loss_norm_pix"], **EXACT)
    assert mae.preprocessing == Preprocessing(fit="stretch")


@torch.no_grad()
def test_segmenter_gives_the_official_numbers(parity: Path):
    recorded = load_file(parity / "segmenter.safetensors")
    unet = load_reference_checkpoint(parity / "segmenter.pth")
    assert isinstance(unet, SwinUNet)
    torch.testing.assert_close(unet(recorded["images"]), recorded["logits"], **EXACT)
    assert unet.preprocessing is not None
    assert unet.preprocessing.image_size == (320, 320)


@torch.no_grad()
def test_classifier_gives_the_official_numbers(parity: Path):
    recorded = load_file(parity / "classifier.safetensors")
    classifier = load_reference_checkpoint(parity / "classifier.pth")
    assert isinstance(classifier, SwinClassifier)
    torch.testing.assert_close(classifier(recorded["images"]), recorded["logits"], **EXACT)


@pytest.mark.parametrize("kind", ["mae", "segmenter", "classifier"])
def test_official_names_and_values_survive_a_round_trip(parity: Path, tmp_path: Path, kind: str):
    with torch.serialization.safe_globals([argparse.Namespace]):
        official = torch.load(parity / f"{kind}.pth", weights_only=True)["model"]
    save_reference_checkpoint(load_checkpoint(parity / f"{kind}.pth"), tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert {name: value.shape for name, value in again.items()} == {
        name: value.shape for name, value in official.items()
    }
    for name in official.keys() - {"pos_embed"}:  # stored but never used by the official code
        assert torch.equal(again[name], official[name]), name


def test_official_encoder_and_decoder_arrive_whole_in_a_unet(parity: Path):
    mae = load_checkpoint(parity / "mae.pth")
    report = transfer(mae, SwinUNet(mae.config, 3), ("encoder", "decoder"))
    assert report.adapted == ()
    assert all("skip" in name or name.startswith(("final", "head")) for name in
               report.left_at_start)  # fmt: skip


def models(config: SwinConfig) -> list[Model]:
    return [SwinMAE(config), SwinUNet(config, 3), SwinClassifier(config, 5)]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "own.safetensors", "plain.pth"])
def test_every_form_of_file_gives_the_model_back(small: SwinConfig, tmp_path: Path, suffix: str):
    for module in models(small):
        path = tmp_path / f"x{suffix}"
        save_reference_checkpoint(module, tmp_path / "official.pth")
        official = torch.load(tmp_path / "official.pth", weights_only=True)
        if suffix == ".pth":
            torch.save(official, path)
        elif suffix == "plain.pth":
            torch.save({f"module.{k}": v for k, v in official["model"].items()}, path)
        elif suffix == ".safetensors":
            save_file(official["model"], path)
        else:
            save_file(module.state_dict(), path)
        again = load_checkpoint(path)
        assert type(again) is type(module)
        expected = {**module.config.to_dict(), "drop_path": 0.1}
        assert again.config.to_dict() == expected
        assert (again.preprocessing is None) == suffix.startswith("own")
        state = module.state_dict()
        for name, value in again.state_dict().items():
            assert torch.equal(value, state[name]), name
        bias_lost = isinstance(module, SwinUNet) and not suffix.startswith("own")
        assert len(state) - len(again.state_dict()) == int(bias_lost)


@pytest.mark.parametrize("wrapper", ["model.", "_orig_mod.", "module._orig_mod."])
def test_what_wraps_a_network_changes_nothing(small: SwinConfig, tmp_path: Path, wrapper: str):
    """A resume point has ``model.`` before every name, a compiled network ``_orig_mod.``."""
    for module in models(small):
        save_reference_checkpoint(module, tmp_path / "official.pth")
        official = torch.load(tmp_path / "official.pth", weights_only=True)["model"]
        for state in (official, module.state_dict()):
            wrapped = {f"{wrapper}{name}": value for name, value in state.items()}
            torch.save({"state_dict": wrapped, "epoch": 1}, tmp_path / "wrapped.ckpt")
            again = load_checkpoint(tmp_path / "wrapped.ckpt")
            assert type(again) is type(module)
            assert getattr(again, "origin", None) is None
            assert (again.config.norm_eps, again.config.shift_single_window) == (1e-6, True)
            for name, value in again.state_dict().items():
                assert torch.equal(value, module.state_dict()[name]), name


def test_what_an_unfinished_run_continues_from_names_its_model_folder(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    path = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": {"model.encoder.norm.weight": torch.ones(4)}}, path)
    with pytest.raises(ModelError, match=r"give its model folder, .*model, which is there once"):
        load_checkpoint(path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ModelError) as other:
        load_checkpoint(path)
    assert "model folder" not in str(other.value)


def test_model_folder_is_read_by_folder_or_by_its_weights(small: SwinConfig, tmp_path: Path):
    mae = SwinMAE(small, mask_ratio=0.5)
    card = ModelCard(kind="mae", architecture=architecture_of(mae), preprocessing=Preprocessing())
    save_model(mae, card, tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again = load_checkpoint(path)
        assert again.card == card
        assert isinstance(again, SwinMAE)
        assert again.mask_ratio == 0.5


def test_head_bias_that_learned_is_kept_with_a_warning(
    small: SwinConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    unet = SwinUNet(small, 2)
    with caplog.at_level(logging.WARNING):
        save_reference_checkpoint(unet, tmp_path / "zero.pth")
        assert not caplog.records
        unet.set_class_shares([0.9, 0.1])
        save_reference_checkpoint(unet, tmp_path / "bias.pth")
    assert "no head bias" in caplog.text
    again = load_checkpoint(tmp_path / "bias.pth")
    images = torch.randn(1, 1, 20, 24)
    assert torch.equal(again(images), unet.eval()(images))


def test_network_the_official_code_cannot_run_is_not_written(tmp_path: Path):
    config = SwinConfig(norm_eps=1e-5, embed_dim=12, num_heads=(1, 1, 1, 1))
    with pytest.raises(ModelError, match="norm_eps 1e-6"):
        save_reference_checkpoint(SwinClassifier(config, 2), tmp_path / "model.pth")


def test_incomplete_or_foreign_checkpoints_are_errors(small: SwinConfig, tmp_path: Path):
    path = tmp_path / "model.pth"
    save_reference_checkpoint(SwinMAE(small), path)
    whole = torch.load(path, weights_only=True)["model"]

    def expect(state: object, message: str) -> None:
        torch.save(state, path)
        with pytest.raises(ModelError, match=message):
            load_checkpoint(path)

    expect({"conv1.weight": torch.ones(1)}, "no VIS-MAE checkpoint")
    expect([1, 2], "holds a list")
    without = {k: v for k, v in whole.items() if not k.startswith("norm_up")}
    expect(without, r"decoder.norm_up.bias \(16,\) is missing")
    expect({k: v for k, v in whole.items() if k != "decoder_pred.weight"}, "kind is unknown")
    expect({k: v for k, v in whole.items() if "bias_table" not in k}, "cannot be read off")
    extra = {**whole, "layers.0.blocks.0.gate": torch.ones(1)}
    expect(extra, "has no counterpart")
    index = "layers.0.blocks.0.attn.relative_position_index"
    expect({**whole, index: whole[index].T.contiguous()}, "another way")


def test_paths_may_be_plain_text(tmp_path):
    model = SwinMAE.from_size("nano")
    save_reference_checkpoint(model, str(tmp_path / "model.pth"))
    for load in (load_reference_checkpoint, load_checkpoint):
        copy = load(str(tmp_path / "model.pth"))
        assert torch.equal(copy.mask_token, model.mask_token)


def test_an_encoder_of_visible_tokens_is_not_written_for_the_official_code(tmp_path: Path):
    mae = SwinMAE.from_size("nano", encoder_input="visible")
    with pytest.raises(ModelError, match="trained with encoder_input 'visible'"):
        save_reference_checkpoint(mae, tmp_path / "mae.pth")
    assert not (tmp_path / "mae.pth").exists()
