"""A batch that fails is taken apart until it is known which item it failed for."""

from collections.abc import Iterator

import pytest
import torch

from vismae.core.errors import ModelError
from vismae.inference.unanswered import (
    NotFiniteError,
    Unanswered,
    answers_or_reasons,
    require_answers,
)


def halves(batch: list[int]) -> Iterator[float]:
    if 3 in batch:
        raise NotFiniteError("no number")
    if len(batch) > 2 or 5 in batch:
        torch.empty(1 << 50)
    yield from (item / 2 for item in batch)


def test_every_item_has_its_answer_or_the_reason_why_not() -> None:
    found = dict(answers_or_reasons([1, 2, 3, 4, 5], halves))
    assert [found[item] for item in (1, 2, 4)] == [0.5, 1.0, 2.0]
    assert found[3] == Unanswered("not-finite", "no number")
    assert isinstance(found[5], Unanswered)
    assert found[5].reason == "memory"


def test_another_error_is_not_hidden() -> None:
    def broken(batch: list[int]) -> Iterator[float]:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        list(answers_or_reasons([1, 2], broken))


def test_who_needs_all_answers_is_told_why_one_is_missing() -> None:
    assert list(require_answers(answers_or_reasons([1, 2], halves))) == [(1, 0.5), (2, 1.0)]
    with pytest.raises(ModelError, match="no number"):
        list(require_answers(answers_or_reasons([1, 3], halves)))
