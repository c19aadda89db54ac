import pytest
import torch

from vismae.inference.uncertainty import image_uncertainty


def test_even_probabilities_are_one_and_certain_ones_zero() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    assert image_uncertainty(logits).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_of_a_label_map_it_is_the_mean_over_pixels() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0, 0] = 60.0  # one row certain, one undecided
    assert image_uncertainty(logits).item() == pytest.approx(0.5, abs=1e-6)


def test_classes_that_do_not_exclude_each_other_are_judged_singly() -> None:
    logits = torch.tensor([[0.0, 80.0]])
    assert image_uncertainty(logits, multi_label=True).item() == pytest.approx(0.5, abs=1e-6)
    assert torch.isfinite(image_uncertainty(torch.tensor([[500.0, -500.0]]), True)).all()
