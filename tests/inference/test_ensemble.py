"""Several models and mirrored views as one answer."""

from pathlib import Path

import pytest
import torch

from models_on_disk import SMALL_CONTRACT, write_classifier, write_mae, write_segmenter
from vismae.core.errors import ModelError, PreprocessingError
from vismae.inference.ensemble import Ensemble, load_ensemble

CPU = torch.device("cpu")
IMAGES = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_one_model_gives_its_own_logits(tmp_path: Path) -> None:
    ensemble = load_ensemble([write_segmenter(tmp_path / "a")], CPU)
    with torch.inference_mode():
        assert torch.equal(ensemble.scores(IMAGES), ensemble.models[0](IMAGES))


def test_scores_are_the_mean_of_probabilities(tmp_path: Path) -> None:
    folders = [write_segmenter(tmp_path / str(seed), seed=seed) for seed in range(3)]
    ensemble = load_ensemble(folders, CPU)
    alone = [load_ensemble([folder], CPU).scores(IMAGES).softmax(dim=1) for folder in folders]
    found = ensemble.scores(IMAGES).softmax(dim=1)
    assert torch.allclose(found, torch.stack(alone).mean(dim=0), atol=1e-6)
    assert not torch.allclose(found, alone[0], atol=1e-2)


def test_a_model_given_twice_answers_as_if_alone(tmp_path: Path) -> None:
    folder = write_segmenter(tmp_path / "a")
    once, twice = load_ensemble([folder], CPU), load_ensemble([folder, folder], CPU)
    expected = once.scores(IMAGES).log_softmax(dim=1)
    assert torch.allclose(twice.scores(IMAGES), expected, atol=1e-5)


def test_flips_make_the_answer_the_same_for_mirrored_images(tmp_path: Path) -> None:
    folder = write_segmenter(tmp_path / "a")
    plain = load_ensemble([folder], CPU)
    both = load_ensemble([folder], CPU, flips=("horizontal", "vertical"))
    mirrored = both.scores(IMAGES.flip(-1)).flip(-1)
    assert torch.allclose(both.scores(IMAGES), mirrored, atol=1e-5)
    assert not torch.allclose(plain.scores(IMAGES), plain.scores(IMAGES.flip(-1)).flip(-1))
    upside_down = both.scores(IMAGES.flip(-2)).flip(-2)
    assert torch.allclose(both.scores(IMAGES), upside_down, atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_classifier_gives_probabilities(multi_label: bool, tmp_path: Path) -> None:
    folders = [
        write_classifier(tmp_path / str(seed), seed=seed, multi_label=multi_label)
        for seed in range(2)
    ]
    ensemble = load_ensemble(folders, CPU, flips=("horizontal",))
    found = ensemble.probabilities(IMAGES)
    parts = []
    with torch.inference_mode():
        for model in ensemble.models:
            for images in (IMAGES, IMAGES.flip(-1)):
                logits = model(images)
                parts.append(logits.sigmoid() if multi_label else logits.softmax(dim=1))
    assert torch.allclose(found, torch.stack(parts).mean(dim=0), atol=1e-6)


def test_the_order_of_models_does_not_matter_to_their_thresholds(tmp_path: Path) -> None:
    one = load_ensemble([write_classifier(tmp_path / "a", multi_label=True)], CPU)
    cards = []
    for thresholds in ((0.2, 0.6), (0.4, 0.3), None):
        task = one.task.model_copy(update={"thresholds": thresholds})
        cards.append(one.cards[0].model_copy(update={"task": task}))

    def of(*chosen: int) -> tuple[float, ...] | None:
        models = one.models * len(chosen)
        return Ensemble(models, [cards[n] for n in chosen], "", CPU).task.thresholds

    assert of(0) == (0.2, 0.6)
    assert of(0, 1) == pytest.approx((0.3, 0.45))
    assert of(1, 0) == of(0, 1)
    assert of(0, 2) == pytest.approx((0.35, 0.55))
    assert of(2, 2) is None


def test_models_that_do_not_fit_together_are_refused_by_name(tmp_path: Path) -> None:
    first = write_segmenter(tmp_path / "a")
    with pytest.raises(ModelError, match=r"task\.classes"):
        load_ensemble([first, write_segmenter(tmp_path / "b", ("background", "x", "y"))], CPU)
    with pytest.raises(ModelError, match="of one kind"):
        load_ensemble([first, write_classifier(tmp_path / "c")], CPU)
    other = SMALL_CONTRACT.model_copy(update={"ct_window_hu": (-160.0, 240.0)})
    with pytest.raises(PreprocessingError, match="ct_window_hu"):
        load_ensemble([first, write_segmenter(tmp_path / "d", preprocessing=other)], CPU)
    larger = SMALL_CONTRACT.model_copy(update={"image_size": (64, 64)})
    with pytest.raises(ModelError, match="image_size"):
        load_ensemble([first, write_segmenter(tmp_path / "e", preprocessing=larger)], CPU)
    mae = write_mae(tmp_path / "f")
    with pytest.raises(ModelError, match="autoencoders"):
        load_ensemble([mae, mae], CPU)


def test_the_digest_names_weights_and_their_order(tmp_path: Path) -> None:
    first, second = write_segmenter(tmp_path / "a"), write_segmenter(tmp_path / "b", seed=1)
    digests = {
        load_ensemble(folders, CPU).digest
        for folders in ([first], [second], [first, second], [second, first])
    }
    assert len(digests) == 4
    assert load_ensemble([first], CPU).digest in digests


def test_lower_precision_changes_little(tmp_path: Path) -> None:
    folder = write_segmenter(tmp_path / "a")
    exact = load_ensemble([folder], CPU).scores(IMAGES)
    rough = load_ensemble([folder], CPU, precision="bf16").scores(IMAGES)
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.05 * exact.abs().mean()
