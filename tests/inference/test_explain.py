"""Evidence of a classifier and errors of an autoencoder against what they must add up to."""

from pathlib import Path
from typing import cast

import pytest
import torch

from models_on_disk import PLACED, SMALL_CONTRACT, write_mae, write_network
from vismae.inference.explain import class_evidence, covering_patterns, reconstruction_error
from vismae.models.classifier import SwinClassifier
from vismae.models.mae import SwinMAE
from vismae.models.weights import load_model


def images(count: int = 2, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", ["swin", PLACED])
def test_evidence_averages_to_the_images_own_logits(network: str, tmp_path: Path) -> None:
    classes = ("normal", "ill")
    model = cast(SwinClassifier, load_model(write_network(tmp_path / "m", network, classes)))
    # Sigmoid's inverse brings back the logits of each place; an image of one place has one.
    shown = images(size=(64, 64))
    evidence = class_evidence(model, shown, multi_label=True)
    assert evidence.shape == (2, 2, 64, 64)
    with torch.inference_mode():
        by_place = model.evidence(shown)
        assert torch.allclose(by_place.mean(dim=(1, 2)), model(shown), atol=1e-5)
        assert torch.allclose(evidence[:, :, -1, -1], by_place[:, -1, -1].sigmoid(), atol=1e-5)
    separate = class_evidence(model, shown, multi_label=False)
    assert torch.allclose(separate.sum(dim=1), torch.ones(2, 64, 64), atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("size", [(32, 32), (40, 56)])
def test_patterns_hide_every_patch_and_keep_the_ratio(size: tuple[int, int], rounds: int) -> None:
    model = SwinMAE.from_size("nano", in_channels=1, mask_unit_px=8)
    patterns = covering_patterns(model, size, torch.arange(3), rounds)
    times = torch.stack(patterns).sum(dim=0)
    assert int(times.min()) >= rounds
    units = -(-size[0] // 8) * -(-size[1] // 8)
    per_unit = (8 // model.config.patch_size) ** 2
    if size == (32, 32):
        assert all(
            hidden.sum(dim=1).eq(round(0.75 * units) * per_unit).all() for hidden in patterns
        )
    assert not torch.equal(patterns[0][0], patterns[0][1])


def test_errors_are_those_of_the_hidden_patches_alone(tmp_path: Path) -> None:
    model = cast(SwinMAE, load_model(write_mae(tmp_path / "m")))
    shown, keys = images(), torch.zeros(2, dtype=torch.int64)
    found = reconstruction_error(model, shown, keys, SMALL_CONTRACT)
    total, count = torch.zeros(2, 32, 32), torch.zeros(2, 32, 32)
    side = model.config.patch_size
    with torch.inference_mode():
        for hidden in covering_patterns(model, (32, 32), keys, 2):
            filled = model.fill_in(shown, model(shown, hidden=hidden))
            for image in range(2):
                for patch in torch.nonzero(hidden[image])[:, 0].tolist():
                    row, column = divmod(patch, 32 // side)
                    place = (
                        image,
                        slice(row * side, (row + 1) * side),
                        slice(column * side, (column + 1) * side),
                    )
                    total[place] += (filled[:, 0] - shown[:, 0]).abs()[place]
                    count[place] += 1
    assert torch.allclose(found, total / count * SMALL_CONTRACT.std, atol=1e-6)


def test_a_perfect_autoencoder_has_no_error(tmp_path: Path) -> None:
    model = cast(SwinMAE, load_model(write_mae(tmp_path / "m")))
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
        model.decoder_pred.bias.fill_(0.7)
    constant, spot = torch.full((1, 1, 32, 32), 0.7), torch.full((1, 1, 32, 32), 0.7)
    spot[0, 0, 9, 21] = 2.7
    keys = torch.zeros(1, dtype=torch.int64)
    assert reconstruction_error(model, constant, keys, SMALL_CONTRACT).abs().max() < 1e-6
    error = reconstruction_error(model, spot, keys, SMALL_CONTRACT)[0]
    assert torch.nonzero(error > 1e-3).tolist() == [[9, 21]]
    assert float(error[9, 21]) == pytest.approx(2.0 * SMALL_CONTRACT.std, rel=1e-4)
