"""Slices that a network gives no answer for: told one by one, while the others go on.

A batch that fails is computed again slice by slice, which tells the one that it failed for, and
needs less memory.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from vismae.core.errors import ModelError
from vismae.models.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class NotFiniteError(ModelError):
    """A network's answers are no finite numbers."""


@dataclass(frozen=True)
class Unanswered:
    """Why a slice has no answer.

    Attributes:
        reason: As a code.
        message: As sentences, without the name of the input.
    """

    reason: Literal["not-finite", "memory"]
    message: str


def answers_or_reasons(
    batch: list[Item], answer: Callable[[list[Item]], Iterable[Answer]]
) -> Iterator[tuple[Item, Answer | Unanswered]]:
    """Yield each item of a batch with its answer, or with the reason why there is none.

    Args:
        batch: Items, in order.
        answer: Gives the answers of any number of items together.
    """
    found = _attempt(batch, answer)
    if isinstance(found, list):
        yield from zip(batch, found, strict=True)
    elif len(batch) == 1:
        yield batch[0], found
    else:
        if found.reason == "memory":
            logger.warning(
                "Memory ran out for %d slices together, computed one by one; a smaller batch_size "
                "is faster",
                len(batch),
            )
        for item in batch:
            yield from answers_or_reasons([item], answer)


def require_answers(
    found: Iterable[tuple[Item, Answer | Unanswered]],
) -> Iterator[tuple[Item, Answer]]:
    """Yield items with their answers.

    Raises:
        ModelError: One has none; says why.
    """
    for item, answer in found:
        if isinstance(answer, Unanswered):
            raise ModelError(answer.message)
        yield item, answer


def _attempt(
    batch: list[Item], answer: Callable[[list[Item]], Iterable[Answer]]
) -> list[Answer] | Unanswered:
    try:
        return list(answer(batch))
    except NotFiniteError as error:
        return Unanswered("not-finite", str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only now, without the error, nothing holds what was computed so far.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    message = (
        "Memory ran out for one slice of it. Use --precision bf16 or another --device, --tiling "
        "where the image is larger than the model's size, or divide the file."
    )
    return Unanswered("memory", message)
