"""Counts that stay small however much is counted, and that can be added up.

Histograms with fixed bins, so that those of two workers fit together, and tallies of the
commonest words. All are plain numbers and texts: they travel between processes and into JSON.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True)
class Bins:
    """Fixed bins of one width, of the values or (``log``) of their logarithm.

    Attributes:
        low, high: Where the first bin begins and the last one ends.
        count: Number of bins.
        log: Each bin is wider than the one before by the same factor.
    """

    low: float
    high: float
    count: int
    log: bool = False

    @cached_property
    def edges(self) -> np.ndarray:
        """The ``count + 1`` borders; a value on a border lies in the bin above it."""
        if self.log:
            return np.geomspace(self.low, self.high, self.count + 1)
        return np.linspace(self.low, self.high, self.count + 1)

    def positions(self, values: np.ndarray | float) -> np.ndarray:
        """Return the bin of each value: 1 to ``count``, 0 below the first, ``count + 1`` above."""
        return np.searchsorted(self.edges, values, side="right")


@dataclass(frozen=True)
class Histogram:
    """How many values fell into which bin.

    Attributes:
        counts: Position as ``Bins.positions`` gives it -> number of values; empty bins are absent.
        unknown: Values that are missing or no number.
    """

    counts: Mapping[int, int]
    unknown: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Histogram":
        """Return the histogram that ``dataclasses.asdict`` and JSON were made of."""
        return cls({int(k): int(n) for k, n in value["counts"].items()}, int(value["unknown"]))

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(added(self.counts, other.counts), self.unknown + other.unknown)

    @property
    def known(self) -> int:
        """Values that have a place in a bin, or below or above all bins."""
        return sum(self.counts.values())

    def dense(self, bins: Bins) -> np.ndarray:
        """Return the counts of all bins in order, with those below and above at the ends."""
        counts = np.zeros(bins.count + 2, dtype=np.int64)
        for position, number in self.counts.items():
            counts[position] = number
        return counts


@dataclass(frozen=True)
class Tally:
    """How often each word came, for at most ``limit`` words.

    Where there are more, the rarest are given up whenever tallies are added. A word that was given
    up and comes back later is then counted too low; the sum over ``counts`` and ``further`` is
    always right.

    Attributes:
        limit: Words kept.
        counts: Word -> how often.
        further: Counts of the words given up.
    """

    limit: int
    counts: Mapping[str, int]
    further: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int], limit: int, further: int = 0) -> "Tally":
        """Return a tally of the commonest ``limit`` words, those equally common in the alphabet."""
        if len(counts) > limit:
            kept = dict(_commonest(counts)[:limit])
            further += sum(counts.values()) - sum(kept.values())
            counts = kept
        return cls(limit, dict(sorted(counts.items())), further)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Tally":
        """Return the tally that ``dataclasses.asdict`` and JSON were made of."""
        return cls(int(value["limit"]), dict(value["counts"]), int(value["further"]))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally.of(added(self.counts, other.counts), self.limit, self.further + other.further)

    @property
    def total(self) -> int:
        """How many words were counted altogether."""
        return sum(self.counts.values()) + self.further

    def commonest(self, most: int | None = None) -> list[tuple[str, int]]:
        """Return words and counts, the commonest first; at most ``most`` of them."""
        return _commonest(self.counts)[:most]


def added(first: Mapping[_Key, int], second: Mapping[_Key, int]) -> dict[_Key, int]:
    """Return the sum of two counts, in the order of their keys."""
    total = Counter(first)
    total.update(second)
    return dict(sorted(total.items()))


def _commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
