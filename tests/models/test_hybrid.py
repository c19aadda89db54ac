from dataclasses import replace

import pytest
import torch
from learning import dice_after
from torch import Tensor

from vismae.core.errors import ModelError, SettingError
from vismae.models import HybridUNet, SwinConfig, SwinMAE, SwinUNet, segmentation_loss, transfer
from vismae.models.backbone import SwinEncoder
from vismae.models.convolutional_decoder import ConvolutionalDecoder, filled_from, stage_outputs
from vismae.models.transfer import parts_in_common


@pytest.mark.parametrize("branch", [True, False])
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_any_size_and_any_channels_work(small: SwinConfig, patch_size: int, branch: bool):
    config = replace(small, in_channels=5, patch_size=patch_size)
    network = HybridUNet(config, 3, deep_supervision=True, branch=branch)
    images = torch.randn(2, 5, 21, 38)
    outputs = network(images)
    assert [tuple(output.shape) for output in outputs] == [
        (2, 3, -(-21 // stride), -(-38 // stride)) for stride in (1, 2, 4)[: len(outputs)]
    ]
    segmentation_loss(outputs, torch.randint(0, 3, (2, 21, 38))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(images).shape == (2, 3, 21, 38)


def test_one_pixel_in_the_deepest_grid_and_one_image_can_be_learnt_from(small: SwinConfig):
    network = HybridUNet(small, 2).train()
    loss = segmentation_loss(network(torch.randn(1, 1, 5, 6)), torch.ones(1, 5, 6).long())
    loss.backward()
    assert torch.isfinite(loss)


def test_the_whole_encoder_arrives_from_any_model_of_ours(small: SwinConfig):
    for source in (SwinMAE(small), SwinUNet(small, 2), HybridUNet(small, 4)):
        network = HybridUNet(small, 2)
        report = transfer(source, network)
        encoder = source.encoder.state_dict()
        for name, value in network.encoder.state_dict().items():
            assert torch.equal(value, encoder[name]), name
        groups = {name.split(".")[0] for name in report.left_at_start}
        assert groups == {"decoder", "heads"}


def test_a_convolutional_decoder_arrives_too(small: SwinConfig):
    source = SwinMAE(small, decoder_kind="convolutional", decoder_width=24)
    network = HybridUNet(small, 2, width=24)
    assert parts_in_common(source, network) == ("encoder", "decoder")
    report = transfer(source, network, parts_in_common(source, network))
    assert {name.split(".")[0] for name in report.left_at_start} == {"heads"}
    for name, value in network.decoder.state_dict().items():
        assert torch.equal(value, source.decoder.state_dict()[name]), name
    assert parts_in_common(source, HybridUNet(small, 2, width=16)) == ("encoder",)
    assert parts_in_common(source, HybridUNet(small, 2, width=24, branch=False)) == ("encoder",)
    assert parts_in_common(SwinMAE(small), network) == ("encoder",)


def test_a_decoder_begins_with_its_slice_among_neighbours(small: SwinConfig):
    source = SwinMAE(small, decoder_kind="convolutional")
    network = HybridUNet(replace(small, in_channels=3), 2)
    transfer(source, network, ("encoder", "decoder"), middle=True)
    images = torch.randn(2, 3, 32, 32)
    found = network.decoder(images, stage_outputs(network.encoder, network.encoder.embed(images)))
    tokens = stage_outputs(source.encoder, source.encoder.embed(images[:, 1:2]))
    expected = source.decoder(images[:, 1:2], tokens)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("asked", "filled"),
    [
        ((None, None), (24, False)),
        ((24, None), (24, False)),
        ((None, True), (24, True)),
        ((16, None), (16, None)),  # of another width, its decoder is not taken over
    ],
)
def test_what_is_not_asked_for_is_as_in_the_decoder_that_is_taken_over(
    small: SwinConfig, asked: tuple, filled: tuple
):
    assert filled_from(ConvolutionalDecoder(small, 24, branch=False), *asked) == filled
    assert filled_from(SwinMAE(small).decoder, *asked) == asked


def test_the_branch_sees_the_image_on_the_coarsest_grid(small: SwinConfig):
    images = torch.randn(1, 1, 32, 32)
    tokens = stage_outputs(*_encoder_and_tokens(small, images))
    changed = images + torch.randn(1, 1, 32, 32)
    for branch in (True, False):
        decoder = ConvolutionalDecoder(small, 8, branch)
        before, after = (decoder(seen, tokens)[-1] for seen in (images, changed))
        assert torch.equal(before, after) != branch


def test_without_tokens_the_branch_is_a_unet(small: SwinConfig):
    decoder = ConvolutionalDecoder(small, 8)
    images = torch.randn(2, 1, 32, 32)
    tokens = stage_outputs(*_encoder_and_tokens(small, images))
    for skip in decoder.skips:
        torch.nn.init.zeros_(skip[1].weight)
    features = []
    x = images
    for block in decoder.stem:
        x = block(x)
        features.append(x)
    for block, skip in zip(decoder.expanding, reversed(features[:-1]), strict=True):
        x = block(x, skip)
    torch.testing.assert_close(decoder(images, tokens)[0], x)


def _encoder_and_tokens(config: SwinConfig, images: Tensor) -> tuple[SwinEncoder, Tensor]:
    encoder = SwinEncoder(config)
    return encoder, encoder.embed(images)


def test_features_are_what_the_encoder_gives_out(small: SwinConfig):
    network = HybridUNet(small, 2).eval()
    images = torch.randn(2, 1, 33, 40)
    tokens, skips = network.encoder(images)
    outputs = stage_outputs(network.encoder, network.encoder.embed(images))
    torch.testing.assert_close(outputs[-1], tokens)
    merged = network.encoder.layers[0].downsample(outputs[0])
    torch.testing.assert_close(merged, skips[1])


def test_every_output_starts_near_the_class_shares_with_logits_of_about_unit_size(
    small: SwinConfig,
):
    network = HybridUNet(small, 3, deep_supervision=True)
    network.set_class_shares([0.9, 0.08, 0.02])
    with torch.no_grad():
        outputs = network(torch.randn(2, 1, 32, 32))
    for output in outputs:
        means = output.mean(dim=(0, 2, 3), keepdim=True)
        assert 0.3 < float((output - means).std()) < 1.5
        moved = means.flatten() - torch.tensor([0.9, 0.08, 0.02]).log()
        assert float((moved - moved.mean()).abs().max()) < 1.0  # of equal shares it would be 2.3
    with pytest.raises(ModelError, match="2 class shares for 3"):
        network.set_class_shares([0.9, 0.1])


def test_an_image_is_judged_apart_from_its_batch(small: SwinConfig):
    network = HybridUNet(small, 2).train()
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-5, rtol=1e-4)


def test_overfits_eight_images():
    network = HybridUNet.from_size("nano", in_channels=1, num_classes=2, drop_path=0.0)
    assert dice_after(network, steps=20) > 0.95


def test_overfits_eight_images_with_deep_supervision():
    settings = {"drop_path": 0.0, "deep_supervision": True}
    network = HybridUNet.from_size("nano", in_channels=1, num_classes=2, **settings)
    assert dice_after(network, steps=20) > 0.95


def test_bfloat16_autocast_works(small: SwinConfig):
    network = HybridUNet(small, 2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(network(torch.randn(1, 1, 32, 32)), torch.ones(1, 32, 32).long())
    assert loss.dtype == torch.float32
    loss.backward()


def test_wrong_settings_are_errors(small: SwinConfig):
    with pytest.raises(ModelError, match="patch_size 3"):
        HybridUNet(replace(small, patch_size=3), 2)
    with pytest.raises(ModelError, match=r"width is 2000 .* 1 to 1024"):
        HybridUNet(small, 2, width=2000)
    with pytest.raises(ModelError, match="num_classes is 1"):
        HybridUNet(small, 1)
    with pytest.raises(SettingError, match="Did you mean width"):
        HybridUNet.from_size("nano", num_classes=2, widht=3)
    with pytest.raises(ModelError, match="expects"):
        HybridUNet(small, 2)(torch.randn(1, 3, 32, 32))
