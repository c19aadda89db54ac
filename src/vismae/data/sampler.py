"""Which image comes at which place: a pure function of (seed, position), so resume is exact.

Training is one endless stream of draws. Epochs follow one another without a gap, so the last
incomplete batch of one is filled from the next; any rank can compute its share from the position
alone, whatever the number of ranks or workers.
"""

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

Sampling = Literal["natural", "sqrt", "balanced"]


# Images that a draw may take in place of its own: so many that with a hundredth of all damaged no
# draw of 800 passes over millions finds none, for it would find none after a resume either.
_SPARES = 8
# Passes over a group in an epoch from which on many share one generator, and how many draws these
# make at least: a generator for each pass over one image among millions took half a minute.
_MANY_PASSES, _DRAWS_AT_ONCE = 64, 4096


class Draw(NamedTuple):
    """One sample: which row, and how many times the row has come before (its own epoch).

    ``spares`` are the rows to take one after the other where the image turns out to be damaged:
    those that come next, so that they too follow from the place alone.
    """

    row: int
    epoch: int
    spares: tuple[int, ...] = ()


class DrawStream:
    """The endless, seeded order of training samples.

    Args:
        rows: Row numbers to draw from, (N,).
        groups: Group of each row (modality), (N,); sampling shares are set between groups.
        sampling: ``natural`` draws every row once an epoch; ``sqrt`` draws groups in proportion
            to the square root of their size, ``balanced`` all alike. An epoch takes the rows of a
            group from shuffled passes over it, one after the other, and shuffles what it took.
        seed: Decides the order.
    """

    def __init__(
        self, rows: np.ndarray, groups: np.ndarray, sampling: Sampling = "natural", seed: int = 0
    ) -> None:
        if len(rows) == 0:
            raise ValueError("There is no image to draw from.")
        self.seed = seed
        self.epoch_length = len(rows)
        if sampling == "natural":
            groups = np.zeros(len(rows), dtype=np.int64)
        names = sorted(pd.unique(groups), key=str)
        self._members = [rows[groups == name] for name in names]
        self._shares = _integer_shares([len(m) for m in self._members], sampling, len(rows))

    def checksum(self) -> int:
        """Return a number that tells this order from another."""
        content = 0
        for members, share in zip(self._members, self._shares, strict=True):
            content = zlib.crc32(np.array([self.seed, share]).tobytes(), content)
            content = zlib.crc32(np.ascontiguousarray(members).tobytes(), content)
        return content

    def epoch(self, epoch: int) -> np.ndarray:
        """Return the draws of one epoch, (epoch_length, 2): row, pass over its group."""
        parts = []
        for number, (members, share) in enumerate(zip(self._members, self._shares, strict=True)):
            first, last = epoch * share, (epoch + 1) * share
            turns = np.arange(first // len(members), -(-last // len(members)))
            shuffle = _shuffles_at_once if share > _MANY_PASSES * len(members) else _shuffles
            order = shuffle(members, [self.seed, number], turns)
            taken = np.stack([order.ravel(), turns.repeat(len(members))], axis=1)
            start = first - int(turns[0]) * len(members)
            parts.append(taken[start : start + share])
        draws = np.concatenate(parts)
        return draws[np.random.default_rng([self.seed, 1, epoch]).permutation(len(draws))]


def _shuffles(members: np.ndarray, key: list[int], turns: np.ndarray) -> np.ndarray:
    """Return the members in the order of each turn, (T, N)."""
    seed, group = key
    return np.stack(
        [np.random.default_rng([seed, 2, group, t]).permutation(members) for t in turns.tolist()]
    )


def _shuffles_at_once(members: np.ndarray, key: list[int], turns: np.ndarray) -> np.ndarray:
    """Return the same of other shuffles, those of a block of turns from one generator."""
    seed, group = key
    block = -(-_DRAWS_AT_ONCE // len(members))
    blocks = range(int(turns[0]) // block, int(turns[-1]) // block + 1)
    every_turn = np.tile(members, (block, 1))
    whole = [
        np.random.default_rng([seed, 3, group, number]).permuted(every_turn, axis=1)
        for number in blocks
    ]
    return np.concatenate(whole)[turns - blocks.start * block]


def _integer_shares(counts: list[int], sampling: Sampling, total: int) -> list[int]:
    """Divide ``total`` draws between groups by largest remainder; each group gets at least 1."""
    power = {"natural": 1.0, "sqrt": 0.5, "balanced": 0.0}[sampling]
    weights = np.array(counts, dtype=np.float64) ** power
    exact = weights / weights.sum() * total
    shares = np.maximum(1, np.floor(exact)).astype(int)
    for index in np.argsort(np.floor(exact) - exact, kind="stable"):
        if shares.sum() >= total:
            break
        shares[index] += 1
    while shares.sum() > total:
        shares[np.argmax(shares)] -= 1
    return shares.tolist()


class BatchStream(Sampler[list[Draw]]):
    """Endless batches of draws for one rank, from any position on.

    Args:
        stream: The order of samples.
        batch_size: Samples of a batch on this rank.
        start_batch: Batches this rank has already seen.
        rank, world: This process among all that train together.
    """

    def __init__(
        self,
        stream: DrawStream,
        batch_size: int,
        start_batch: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.stream = stream
        self.batch_size = batch_size
        self.start_batch = start_batch
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield batches for ever; consecutive ranks take consecutive parts of a global batch."""
        length = self.stream.epoch_length
        position = (self.start_batch * self.world + self.rank) * self.batch_size
        epoch, draws = -1, np.empty((0, 2), dtype=np.int64)
        while True:
            batch: list[Draw] = []
            for place in range(position, position + self.batch_size):
                if place // length != epoch:
                    epoch = place // length
                    draws = self.stream.epoch(epoch)
                row, turn = draws[place % length].tolist()
                next_places = np.arange(place + 1, place + 1 + _SPARES) % length
                spares = (other for other in draws[next_places, 0].tolist() if other != row)
                batch.append(Draw(row, turn, tuple(spares)))
            yield batch
            position += self.batch_size * self.world
