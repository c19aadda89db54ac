"""Many shuffles at once are those that numpy gives one by one."""

import numpy as np
import pytest

from vismae.data.shuffles import MOST_VALUES, shuffled


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**63 - 1])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 33, MOST_VALUES, MOST_VALUES + 1])
def test_each_turn_is_the_shuffle_of_numpy(count: int, seed: int) -> None:
    values = np.random.default_rng(count).permutation(1000)[:count]
    for first in (0, 2**31 + 12345):
        turns = np.arange(first, first + 20)
        for key in ([seed, 2, 4], [seed], [seed, 0, 0, 0, 3]):
            one_by_one = [np.random.default_rng([*key, t]).permutation(values) for t in turns]
            np.testing.assert_array_equal(shuffled(values, key, turns), np.stack(one_by_one))


def test_no_turn_is_no_row() -> None:
    assert shuffled(np.arange(3), [1], np.arange(0)).shape == (0, 3)
