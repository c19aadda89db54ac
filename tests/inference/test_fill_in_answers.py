"""A slice hidden and filled in at a chosen ratio."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models_on_disk import write_classifier, write_mae
from vismae.core.errors import ModelError, SettingError
from vismae.data.intensity import normalise
from vismae.inference.ensemble import Ensemble, load_ensemble
from vismae.inference.fill_in import fill_in_slice
from vismae.models.mae import SwinMAE
from vismae.models.reconstruction import patchify


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    folder = write_mae(tmp_path_factory.mktemp("mae") / "model")
    return load_ensemble([folder], torch.device("cpu"))


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_chosen_share_of_units_is_hidden_exactly(ensemble: Ensemble, ratio: float) -> None:
    found = fill_in_slice(ensemble, picture(32, 32), ratio, key=1)
    assert found.hidden_fraction == ratio
    blocks = found.hidden.reshape(4, 8, 4, 8)  # mask units of 8 pixels
    assert np.isin(blocks.mean(axis=(1, 3)), (0.0, 1.0)).all()


def test_what_was_seen_stays_and_only_the_hidden_part_has_errors(ensemble: Ensemble) -> None:
    image = picture(32, 32)
    found = fill_in_slice(ensemble, image, 0.5, key=1)
    seen = ~found.hidden
    assert np.array_equal(found.filled[seen], image[0].numpy()[seen])
    assert not found.error[seen].any()
    assert np.allclose(found.error, np.abs(found.filled - image[0].numpy()), atol=1e-6)
    assert found.mean_error == pytest.approx(found.error[found.hidden].mean())


def test_the_drawing_is_the_models_own(ensemble: Ensemble) -> None:
    image = picture(32, 32)
    found = fill_in_slice(ensemble, image, 0.5, key=1)
    model, contract = ensemble.models[0], ensemble.preprocessing
    assert isinstance(model, SwinMAE)
    canvas = torch.from_numpy(normalise(image.numpy(), contract))[None]
    patch = model.config.patch_size
    hidden = patchify(torch.from_numpy(found.hidden)[None, None].float(), patch)[..., 0] > 0
    with torch.inference_mode():
        drawn = model.fill_in(canvas, model(canvas, hidden=hidden))[0, 0].numpy()
    expected = np.clip(drawn * contract.std + contract.mean, 0.0, 1.0)
    assert np.allclose(found.filled[found.hidden], expected[found.hidden], atol=1e-5)


def test_results_have_the_slices_own_size_and_the_key_decides_what_is_hidden(
    ensemble: Ensemble,
) -> None:
    image = picture(70, 45)
    first, again = (fill_in_slice(ensemble, image, 0.5, key=7) for _ in range(2))
    other = fill_in_slice(ensemble, image, 0.5, key=8)
    assert first.filled.shape == first.error.shape == first.hidden.shape == (70, 45)
    assert np.array_equal(first.filled, again.filled)
    assert not np.array_equal(first.hidden, other.hidden)


@pytest.mark.parametrize("ratio", [0.001, 0.999, 1.5])
def test_ratios_that_hide_nothing_or_all_are_refused(ensemble: Ensemble, ratio: float) -> None:
    with pytest.raises(SettingError, match="mask_ratio"):
        fill_in_slice(ensemble, picture(32, 32), ratio, key=0)


def test_other_models_draw_nothing(tmp_path: Path) -> None:
    other = load_ensemble([write_classifier(tmp_path / "model")], torch.device("cpu"))
    with pytest.raises(ModelError, match="classifier"):
        fill_in_slice(other, picture(32, 32), 0.5, key=0)
