"""The best weights of a run, through kills and without a score."""

from pathlib import Path

import torch

from vismae.training.best_model import BestModel

NAN = float("nan")


def weights(value: float) -> torch.nn.Linear:
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, value)
    return model


def kept(best: BestModel) -> float:
    model = weights(-1.0)
    best.load_into(model)
    return model.weight.item()


def test_only_better_weights_replace_the_best(tmp_path: Path):
    best = BestModel(tmp_path / "best.pt")
    for step, value in ((1, 0.5), (2, 0.7), (3, 0.7), (4, 0.6)):
        best.offer(step, value, weights(step))
    assert (best.step, best.value, kept(best)) == (2, 0.7, 2.0)


def test_a_resumed_run_takes_up_what_was_kept(tmp_path: Path):
    BestModel(tmp_path / "best.pt").offer(5, 0.9, weights(5.0))
    again = BestModel(tmp_path / "best.pt")
    again.offer(6, 0.8, weights(6.0))
    assert (again.step, again.value, kept(again)) == (5, 0.9, 5.0)


def test_without_a_score_the_latest_weights_are_kept_until_one_comes(tmp_path: Path):
    best = BestModel(tmp_path / "best.pt")
    best.offer(1, NAN, weights(1.0))
    best.offer(2, NAN, weights(2.0))
    assert kept(best) == 2.0
    best.offer(3, 0.1, weights(3.0))
    best.offer(4, NAN, weights(4.0))
    assert (best.step, kept(best)) == (3, 3.0)


def test_a_model_is_left_alone_where_nothing_was_kept(tmp_path: Path):
    assert kept(BestModel(tmp_path / "best.pt")) == -1.0
