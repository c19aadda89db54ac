from dataclasses import replace

import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.models import SwinClassifier, SwinConfig, SwinMAE, SwinSimCLR, SwinUNet, transfer
from vismae.models.foreign import ForeignAccount
from vismae.models.transfer import parts_in_common, resize_bias_table


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_everything_but_skips_and_head_reaches_the_unet(small: SwinConfig):
    mae, unet = SwinMAE(small), SwinUNet(small, 3)
    report = transfer(mae, unet, ("encoder", "decoder"))
    assert same(mae.encoder, unet.encoder)
    assert same(mae.decoder, unet.decoder)
    parts = [unet.skip_connection_layers, unet.final_patch_expanding, unet.head]
    new = sum(p.numel() for part in parts for p in part.parameters())
    total = sum(p.numel() for p in unet.parameters())
    assert report.arrived_share == pytest.approx(1 - new / total)
    assert {name.split(".")[0] for name in report.left_at_start} == {
        "skip_connection_layers",
        "final_patch_expanding",
        "head",
    }
    encoder_size = sum(p.numel() for p in mae.encoder.parameters())
    assert report.copied["encoder"].parameters == encoder_size
    assert f"encoder: {report.copied['encoder'].tensors} tensors, {encoder_size:,}" in report.text()
    assert "at their start: skip_connection_layers, final_patch_expanding, head" in report.text()
    assert report.to_dict()["copied"]["decoder"]["tensors"] > 0


def test_features_are_the_same_after_transfer(small: SwinConfig):
    mae, classifier = SwinMAE(small).eval(), SwinClassifier(small, 2).eval()
    transfer(mae, classifier)
    images = torch.randn(2, 1, 33, 40)
    expected = mae.encoder(images).tokens
    torch.testing.assert_close(classifier.encoder(images).tokens, expected, rtol=0, atol=0)
    back = SwinMAE(small)
    transfer(classifier, back)
    assert same(back.encoder, mae.encoder)


@pytest.mark.parametrize("head_kind", ["linear", "convolutional"])
def test_a_swin_unet_starts_another_with_all_but_its_head(small: SwinConfig, head_kind: str):
    """A decoder behind skips that begin at random would be given noise."""
    source, target = SwinUNet(small, 3).eval(), SwinUNet(small, 2, head_kind=head_kind).eval()
    report = transfer(source, target, parts_in_common(source, target))
    assert {name.split(".")[0] for name in report.left_at_start} == {"head"}
    seen = []
    for unet in (source, target):
        unet.final_patch_expanding.register_forward_hook(lambda *call: seen.append(call[2]))
        unet(torch.randn(1, 1, 33, 40, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(*seen)
    assert parts_in_common(source, target, decoder=False) == ("encoder",)


@pytest.mark.parametrize("kind", [SwinClassifier, SwinSimCLR])
def test_the_norm_behind_an_encoder_goes_with_it(small: SwinConfig, kind: type):
    source = kind(small, 2).eval()
    torch.nn.init.uniform_(source.norm.weight)
    torch.nn.init.uniform_(source.norm.bias)
    target = SwinClassifier(small, 3).eval()
    report = transfer(source, target, parts_in_common(source, target))
    assert {name.split(".")[0] for name in report.left_at_start} == {"head"}
    images = torch.randn(2, 1, 33, 40)
    assert torch.equal(target.features(images), source.features(images))
    source.origin = ForeignAccount("Microsoft", 9, absent=("norm.weight", "norm.bias"))
    assert parts_in_common(source, target) == ("encoder",)
    assert parts_in_common(SwinMAE(small), target) == ("encoder",)


def test_other_window_interpolates_the_bias_tables(small: SwinConfig):
    wide = replace(small, window_size=7)
    mae, unet = SwinMAE(small), SwinUNet(wide, 2)
    report = transfer(mae, unet, ("encoder", "decoder"))
    assert ("encoder.*.relative_position_bias_table",
            "4 tables interpolated from window 4 to 7") in report.adapted  # fmt: skip
    assert torch.equal(
        unet.encoder.layers[0].blocks[0].mlp.fc1.weight,
        mae.encoder.layers[0].blocks[0].mlp.fc1.weight,
    )


def test_interpolated_table_keeps_its_shape_in_space():
    side = 13
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    bump = torch.exp(-((rows - 6) ** 2 + (columns - 6) ** 2) / 20.0).flatten()[:, None]
    slope = columns.flatten()[:, None].float()
    small = resize_bias_table(torch.cat((bump, slope), 1), 49).view(7, 7, 2)
    assert small[..., 0].argmax() == 24  # offset 0 stays in the middle
    torch.testing.assert_close(small[..., 0], small[..., 0].T)
    assert (small[:, 1:, 1] > small[:, :-1, 1]).all()
    same_size = torch.randn(169, 3)
    torch.testing.assert_close(resize_bias_table(same_size, 169), same_size)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_grey_images_look_the_same_with_another_number_of_channels(
    small: SwinConfig, before: int, after: int
):
    source = SwinMAE(replace(small, in_channels=before)).eval()
    target = SwinClassifier(replace(small, in_channels=after), 2).eval()
    report = transfer(source, target)
    grey = torch.randn(2, 1, 32, 32)
    expected = source.encoder(grey.expand(-1, before, -1, -1)).tokens
    tokens = target.encoder(grey.expand(-1, after, -1, -1)).tokens
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    assert "over 3 image channels" in report.text()


@pytest.mark.parametrize("before", [1, 2, 3])
def test_sequences_that_show_the_same_look_as_one_image_did(small: SwinConfig, before: int):
    source = SwinMAE(replace(small, in_channels=before)).eval()
    target = SwinClassifier(replace(small, in_channels=3), 2).eval()
    report = transfer(source, target, sequences=3)
    grey = torch.randn(2, 1, 32, 32)
    expected = source.encoder(grey.expand(-1, before, -1, -1)).tokens
    tokens = target.encoder(grey.expand(-1, 3, -1, -1)).tokens
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    stem = target.encoder.patch_embed.proj.weight
    # Colours of the source say nothing of what is which sequence.
    torch.testing.assert_close(stem[:, 0], stem[:, 2])
    assert "patch_embed.proj.weight: spread over 3 sequences\n" in report.text() + "\n"
    beside = SwinClassifier(replace(small, in_channels=6), 2).eval()
    report = transfer(source, beside, sequences=2)
    assert "2 sequences of the middle slice, the 2 beside it at 0" in report.text()
    slices = torch.cat([torch.randn(2, 2, 32, 32), grey, grey, torch.randn(2, 2, 32, 32)], dim=1)
    torch.testing.assert_close(beside.encoder(slices).tokens, expected, atol=1e-5, rtol=1e-5)


def test_half_a_fit_is_an_error_that_lists_what_differs_and_changes_nothing(small: SwinConfig):
    mae = SwinMAE(small)
    deep = SwinUNet(replace(small, depths=(2, 3)), 2)
    before = {name: value.clone() for name, value in deep.state_dict().items()}
    with pytest.raises(ModelError, match=r"layers\.1\.blocks\.2.*is missing.*and 3 more") as error:
        transfer(mae, deep)
    assert str(error.value).count("is missing") == 10
    for name, value in deep.state_dict().items():
        assert torch.equal(value, before[name])
    wide = SwinUNet(replace(small, embed_dim=32), 2)
    with pytest.raises(ModelError, match=r"is \(16,\), expected \(32,\)"):
        transfer(mae, wide)


def test_missing_and_unknown_parts_are_errors(small: SwinConfig):
    with pytest.raises(ModelError, match="SwinClassifier has no decoder"):
        transfer(SwinClassifier(small, 2), SwinUNet(small, 2), ("encoder", "decoder"))
    with pytest.raises(SettingError, match="'head' cannot be transferred"):
        transfer(SwinMAE(small), SwinUNet(small, 2), ("head",))


def test_settings_that_no_tensor_shows_are_reported(small: SwinConfig):
    other = replace(small, norm_eps=1e-5)
    report = transfer(SwinMAE(small), SwinClassifier(other, 2))
    assert ("encoder.norm_eps", "1e-06 became 1e-05") in report.adapted
