from typing import get_args

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer

from vismae.core.errors import ModelError, SettingError
from vismae.core.setting_types import SizeName
from vismae.models.backbone import (
    SIZES,
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    config_for_size,
    stage_grids,
)


def monai_state(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights under MONAI's names."""
    state = {}
    for name, value in ours.items():
        name = name.replace("mlp.fc", "mlp.linear")
        if name.startswith("layers."):
            stage, rest = name.split(".", 2)[1:]
            name = f"layers{int(stage) + 1}.0.{rest}"
        state[name] = value
    return state


def test_encoder_equals_monai_swin():
    config = SwinConfig(
        embed_dim=12,
        num_heads=(1, 2, 4, 4),
        depths=(2, 2, 3, 2),
        norm_eps=1e-5,
        shift_single_window=False,
    )
    encoder = SwinEncoder(config).eval()
    for parameter in encoder.parameters():
        parameter.data.normal_(std=0.2)
    monai = SwinTransformer(
        in_chans=3,
        embed_dim=12,
        window_size=(7, 7),
        patch_size=(4, 4),
        depths=config.depths,
        num_heads=config.num_heads,
        patch_norm=True,
        spatial_dims=2,
        downsample="mergingv2",
    ).eval()
    missing, unexpected = monai.load_state_dict(monai_state(encoder.state_dict()), strict=False)
    assert not unexpected
    assert all("index" in name or name.startswith("layers4.0.downsample") for name in missing)
    outputs = []
    monai.layers4[0].blocks[-1].register_forward_hook(lambda *a: outputs.append(a[2]))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        stages = monai(images, normalize=False)
        ours = encoder(images)
    for skip, stage in zip(ours.skips, stages, strict=False):
        torch.testing.assert_close(skip, stage.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.tokens, outputs[0], atol=1e-4, rtol=1e-4)


def test_encoder_takes_images_of_any_size(small: SwinConfig):
    output = SwinEncoder(small)(torch.randn(2, 1, 50, 83))
    assert [tuple(skip.shape) for skip in output.skips] == [(2, 13, 21, 16), (2, 7, 11, 32)]
    assert output.tokens.shape == (2, 7, 11, 32)


def test_decoder_returns_to_odd_grids(small: SwinConfig):
    output = SwinEncoder(small)(torch.randn(2, 1, 50, 83))
    tokens = SwinDecoder(small)(output.tokens, stage_grids(output.skips))
    assert tokens.shape == (2, 13, 21, 16)


def test_images_in_a_batch_do_not_influence_each_other(small: SwinConfig):
    encoder = SwinEncoder(small).eval()
    images = torch.randn(4, 1, 40, 24)
    order = torch.tensor([2, 0, 3, 1])
    tokens = encoder(images).tokens
    torch.testing.assert_close(encoder(images[order]).tokens, tokens[order], atol=1e-5, rtol=1e-5)


def test_whole_patches_are_not_padded_again(small: SwinConfig):
    encoder = SwinEncoder(small)
    assert encoder.embed(torch.zeros(1, 1, 32, 33)).shape[1:3] == (8, 9)


def test_wrong_channels_are_an_error_that_names_both(small: SwinConfig):
    with pytest.raises(ModelError, match=r"\(1, 3, 32, 32\).*expects \(batch, 1"):
        SwinEncoder(small)(torch.zeros(1, 3, 32, 32))


def test_drop_path_grows_linearly_and_is_mirrored():
    config = SwinConfig(embed_dim=12, num_heads=(1, 1, 1, 1), drop_path=0.7)
    assert config.drop_path_rates()[0] == pytest.approx([0.0, 0.1])
    assert config.drop_path_rates()[3] == pytest.approx([0.6, 0.7])
    decoder = SwinDecoder(config)
    rates = [[b.drop_path.rate for b in stage.blocks] for stage in decoder.layers_up]
    assert rates == list(reversed(config.drop_path_rates()[:3]))


def test_paper_size_has_the_papers_number_of_parameters():
    encoder, decoder = SwinEncoder(SIZES["vismae"]), SwinDecoder(SIZES["vismae"])
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, decoder)]
    assert millions[0] == pytest.approx(20.4, abs=0.05)
    # Beside the decoder, the 26.9 M count the stored positions and the pixel prediction.
    assert sum(millions) + (3136 * 96 + 97 * 48) / 1e6 == pytest.approx(26.9, abs=0.05)


@pytest.mark.parametrize("size", ["nano", "micro"])
def test_small_sizes_run(size: str):
    output = SwinEncoder(config_for_size(size, in_channels=1))(torch.randn(1, 1, 32, 32))
    assert len(output.skips) == 3


def test_the_settings_know_every_size():
    # A wrong one is refused before a run folder is made.
    assert get_args(SizeName) == tuple(SIZES)


def test_every_size_survives_model_json():
    for config in SIZES.values():
        assert SwinConfig.from_dict(config.to_dict()) == config


def test_unknown_size_or_setting_names_the_nearest():
    with pytest.raises(SettingError, match="Did you mean tiny"):
        config_for_size("tinny")
    with pytest.raises(SettingError, match="Did you mean window_size"):
        config_for_size("tiny", windw_size=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (2,)}, "at least 2"),
        ({"num_heads": (5, 6, 12, 24)}, "does not divide"),
        ({"window_size": 0}, "window_size is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"norm_eps": 0.0}, "above 0"),
        ({"depths": (2, 0, 2, 2)}, "1 or more in every stage"),
    ],
)
def test_settings_that_make_no_network_are_errors(settings: dict, message: str):
    with pytest.raises(ModelError, match=message):
        SwinConfig(**settings)


def test_unknown_or_wrongly_typed_architecture_is_an_error():
    with pytest.raises(ModelError, match=r"architecture\.rotary"):
        SwinConfig.from_dict({"rotary": True})
    with pytest.raises(ModelError, match="wrong type"):
        SwinConfig.from_dict({"embed_dim": "96"})
