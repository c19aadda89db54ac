"""A slice and those beside it as channels (2.5D): which they are, and how they are put together.

Channels stand in the order of the slices, the slice itself in the middle. Where a volume ends, or a
slice is missing, the nearest one towards the middle stands in.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vismae.data.store import Store


class Neighbours:
    """Finds the rows beside a row; picklable.

    Args:
        store: Where the volumes are.
        reach: Slices on each side.
    """

    def __init__(self, store: Store, reach: int) -> None:
        columns = store.columns(["patient_id", "volume_id", "slice_index"])
        volumes = columns.groupby(["patient_id", "volume_id"], observed=True).ngroup().to_numpy()
        slices = columns["slice_index"].to_numpy()
        self._order = np.lexsort((slices, volumes))
        self._place = np.empty(len(volumes), dtype=np.int64)
        self._place[self._order] = np.arange(len(volumes))
        self._volumes, self._slices = volumes, slices
        self._reach = reach

    def of(self, row: int) -> list[int]:
        """Return 2·reach + 1 rows, the given one in the middle."""
        return [*self._side(row, -1)[::-1], row, *self._side(row, 1)]

    def _side(self, row: int, direction: int) -> list[int]:
        """Rows 1 to ``reach`` slices away, going up or down."""
        found, nearest, place = [], row, int(self._place[row]) + direction
        for distance in range(1, self._reach + 1):
            wanted = self._slices[row] + direction * distance
            while 0 <= place < len(self._order):
                other = int(self._order[place])
                beyond = direction * (self._slices[other] - wanted) > 0
                if self._volumes[other] != self._volumes[row] or beyond:
                    break
                nearest, place = other, place + direction
            found.append(nearest)
        return found


def of_whole_volume(slices: Float[Tensor, "B C h w"], reach: int) -> Float[Tensor, "B D h w"]:
    """Return every slice of a volume with its neighbours, as ``in_sequence`` yields them.

    In operations that an exported program can hold for any number of slices.

    Args:
        slices: All of them, in order.
        reach: Slices on each side; D is C·(2·reach + 1).
    """
    places = torch.arange(slices.shape[0], device=slices.device)
    last = slices.shape[0] - 1
    beside = [(places + step).clamp(min=0, max=last) for step in range(-reach, reach + 1)]
    return torch.cat([slices[chosen] for chosen in beside], dim=1)


def in_sequence(slices: Iterable[Tensor], reach: int) -> Iterator[Tensor]:
    """Yield each slice of a volume with its neighbours, (C·(2·reach + 1), H, W), in order.

    Args:
        slices: Each (C, H, W), of one size; read ``reach`` slices ahead.
        reach: Slices on each side; 0 gives the slices as they are.
    """
    if reach == 0:
        yield from slices
        return
    window: deque[Tensor] = deque(maxlen=2 * reach + 1)
    for item in _edges_repeated(slices, reach):
        window.append(item)
        if len(window) == 2 * reach + 1:
            yield torch.cat(list(window))


def _edges_repeated(slices: Iterable[Tensor], reach: int) -> Iterator[Tensor]:
    last: Tensor | None = None
    for item in slices:
        if last is None:
            yield from [item] * reach
        last = item
        yield item
    if last is not None:
        yield from [last] * reach
