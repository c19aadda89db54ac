"""Many shuffles of a few values at once, each the very one that numpy's generator gives alone.

Balanced sampling passes over a small modality as often as once an image. To make a generator for
each pass takes 20 µs, half a minute for a million passes; the same numbers computed for all passes
together take a second. The order is that of ``default_rng([*key, turn]).permutation(values)``,
which runs were begun with, so that they go on as they were begun.

Sources: O'Neill 2015, "Developing a seed_seq alternative" (the hash of the key); O'Neill 2014,
"PCG: a family of simple fast space-efficient statistically good algorithms" (PCG XSL RR 128/64);
Durstenfeld 1964, algorithm 235 (the shuffle), places drawn by rejection from the 32-bit halves of
the output. All arithmetic is modulo 2^32 or 2^64. Shape legend: T turns, N values.
"""

from collections.abc import Sequence

import numpy as np

MOST_VALUES = 64
"""Longer shuffles are faster one by one."""

_POOL_WORDS = 4
_HASH_FIRST, _HASH_STEP = 0x43B0D7E5, 0x931E8875
_OUTPUT_FIRST, _OUTPUT_STEP = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_HALF = np.uint32(16)
_PCG_MULTIPLIER = (np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645))
_LOW_HALF, _HALF_BITS, _ONE, _TOP = np.uint64(2**32 - 1), np.uint64(32), np.uint64(1), np.uint64(63)


def shuffled(values: np.ndarray, key: Sequence[int], turns: np.ndarray) -> np.ndarray:
    """Return the order of some values in each of many turns, (T, N).

    Args:
        values: (N,).
        key: Numbers from 0 that decide the order, together with the turn.
        turns: (T,) from 0 to below 2^32.
    """
    shuffles = np.repeat(values[None], len(turns), axis=0)
    if len(values) < 2:
        return shuffles
    if len(values) > MOST_VALUES:
        for turn, row in zip(turns.tolist(), shuffles, strict=True):
            row[:] = np.random.default_rng([*key, turn]).permutation(values)
        return shuffles
    numbers = _Generators(key, turns)
    everyone = np.arange(len(turns))
    for last in range(len(values) - 1, 0, -1):
        place = numbers.up_to(last)
        moved = shuffles[everyone, place]
        shuffles[everyone, place] = shuffles[:, last]
        shuffles[:, last] = moved
    return shuffles


class _Generators:
    """One PCG64 for each turn."""

    def __init__(self, key: Sequence[int], turns: np.ndarray) -> None:
        words = _hashed([*(word for number in key for word in _words(number)), turns])
        # Of the hash, pairs of words are numbers of 64 bits, low word first.
        state = words[0] | (words[1] << _HALF_BITS), words[2] | (words[3] << _HALF_BITS)
        stream = words[4] | (words[5] << _HALF_BITS), words[6] | (words[7] << _HALF_BITS)
        self._step = (stream[0] << _ONE) | (stream[1] >> _TOP), (stream[1] << _ONE) | _ONE
        self._state = _sum(self._step, state)
        self._advance(np.arange(len(turns)))
        self._waiting = np.zeros(len(turns), np.uint32)
        self._waits = np.zeros(len(turns), bool)

    def up_to(self, most: int) -> np.ndarray:
        """Draw a number from 0 to ``most`` for each turn, (T,)."""
        bits = np.uint32((1 << most.bit_length()) - 1)
        found = np.empty(len(self._waits), np.uint32)
        left = np.arange(len(found))
        while len(left):
            drawn = self._next(left) & bits
            found[left] = drawn
            left = left[drawn > most]
        return found

    def _next(self, which: np.ndarray) -> np.ndarray:
        """Return 32 further bits of some generators: the low half of an output, then the high."""
        fresh = which[~self._waits[which]]
        drawn = self._waiting[which]
        if len(fresh):
            output = self._advance(fresh)
            drawn[~self._waits[which]] = output & _LOW_HALF
            self._waiting[fresh] = output >> _HALF_BITS
        self._waits[which] = ~self._waits[which]
        return drawn

    def _advance(self, which: np.ndarray) -> np.ndarray:
        """Move some generators on and return their output of 64 bits."""
        state = self._state[0][which], self._state[1][which]
        step = self._step[0][which], self._step[1][which]
        high, low = _sum(_product(state, _PCG_MULTIPLIER), step)
        self._state[0][which], self._state[1][which] = high, low
        turned, by = high ^ low, high >> np.uint64(58)
        return (turned >> by) | (turned << ((np.uint64(64) - by) & _TOP))


def _words(number: int) -> list[int]:
    """Return a number as words of 32 bits, low one first."""
    words = [number & 0xFFFFFFFF]
    while number := number >> 32:
        words.append(number & 0xFFFFFFFF)
    return words


def _hashed(entropy: Sequence[int | np.ndarray]) -> list[np.ndarray]:
    """Mix words, of which some differ by turn, into 8 words for each turn, (T,) uint64."""
    words = [np.asarray(word, dtype=np.uint32).reshape(-1) for word in entropy]
    constant = _HASH_FIRST

    def hashed(word: np.ndarray) -> np.ndarray:
        nonlocal constant
        word = word ^ np.uint32(constant)
        constant = constant * _HASH_STEP & 0xFFFFFFFF
        word = word * np.uint32(constant)
        return word ^ (word >> _HALF)

    def mixed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        mix = _MIX_LEFT * one - _MIX_RIGHT * other
        return mix ^ (mix >> _HALF)

    nothing = [np.zeros(1, np.uint32)] * (_POOL_WORDS - len(words))
    pool = [hashed(word) for word in [*words, *nothing][:_POOL_WORDS]]
    for source in range(_POOL_WORDS):
        for target in range(_POOL_WORDS):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for word in words[_POOL_WORDS:]:
        for target in range(_POOL_WORDS):
            pool[target] = mixed(pool[target], hashed(word))
    outputs = []
    constant = _OUTPUT_FIRST
    for number in range(2 * _POOL_WORDS):
        word = pool[number % _POOL_WORDS] ^ np.uint32(constant)
        constant = constant * _OUTPUT_STEP & 0xFFFFFFFF
        word = word * np.uint32(constant)
        outputs.append((word ^ (word >> _HALF)).astype(np.uint64))
    return outputs


_Wide = tuple[np.ndarray, np.ndarray]
"""Numbers of 128 bits: high and low half."""


def _sum(one: _Wide, other: _Wide) -> _Wide:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < one[1]), low


def _product(one: _Wide, other: tuple[np.uint64, np.uint64]) -> _Wide:
    a, b = one[1] >> _HALF_BITS, one[1] & _LOW_HALF
    c, d = other[1] >> _HALF_BITS, other[1] & _LOW_HALF
    middle = b * c + (b * d >> _HALF_BITS)
    carried = a * d + (middle & _LOW_HALF)
    high = a * c + (middle >> _HALF_BITS) + (carried >> _HALF_BITS)
    return high + one[0] * other[1] + one[1] * other[0], one[1] * other[1]
