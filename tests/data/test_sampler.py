"""The order of samples: every row, fair shares, the same stream however it is cut."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from vismae.data.sampler import BatchStream, Draw, DrawStream

ROWS = np.arange(100, 111)
GROUPS = np.array(["ct"] * 8 + ["mr"] * 2 + ["us"])
# Drawn when every pass had a generator of its own.
BALANCED_EPOCH = [
    *([105, 0], [110, 5], [109, 2], [110, 3], [101, 0], [109, 3], [106, 0], [108, 2], [110, 4]),
    *([107, 0], [108, 3]),
]


def take(batches: BatchStream, count: int) -> list[list[Draw]]:
    return list(islice(iter(batches), count))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_every_row_comes_once_an_epoch_over_all_ranks(world: int, batch_size: int):
    stream = DrawStream(ROWS, GROUPS, "natural", seed=3)
    epochs = 4
    per_rank = -(-epochs * len(ROWS) // (world * batch_size))
    ranks = [
        take(BatchStream(stream, batch_size, rank=rank, world=world), per_rank)
        for rank in range(world)
    ]
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    # A global batch is what all ranks see at one step, in the order of ranks.
    together = [draw for step in zip(*ranks, strict=True) for batch in step for draw in batch]
    for epoch in range(epochs):
        draws = together[epoch * len(ROWS) : (epoch + 1) * len(ROWS)]
        assert sorted(draw.row for draw in draws) == ROWS.tolist()
        assert {draw.epoch for draw in draws} == {epoch}


def test_the_stream_of_samples_does_not_depend_on_ranks_or_batch_size():
    stream = DrawStream(ROWS, GROUPS, "sqrt", seed=1)
    one = [draw for batch in take(BatchStream(stream, 12), 3) for draw in batch]
    three = [take(BatchStream(stream, 4, rank=rank, world=3), 3) for rank in range(3)]
    assert [draw for step in zip(*three, strict=True) for batch in step for draw in batch] == one


@pytest.mark.parametrize("sampling", ["natural", "sqrt", "balanced"])
def test_starting_at_a_batch_is_the_uninterrupted_stream_from_there(sampling: str):
    stream = DrawStream(ROWS, GROUPS, sampling, seed=5)  # pyright: ignore[reportArgumentType]
    whole = take(BatchStream(stream, 4, rank=1, world=2), 12)
    for start in (1, 5, 11):
        part = take(BatchStream(stream, 4, start_batch=start, rank=1, world=2), 12 - start)
        assert part == whole[start:]


def test_an_incomplete_batch_is_filled_from_the_next_epoch():
    stream = DrawStream(ROWS, GROUPS, "natural")
    batches = take(BatchStream(stream, 8), 2)
    assert [draw.epoch for draw in batches[1]] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_fewer_rows_than_a_batch_come_several_times():
    batch = take(BatchStream(DrawStream(np.array([7]), np.array(["ct"])), 3), 1)[0]
    assert batch == [Draw(7, 0), Draw(7, 1), Draw(7, 2)]


def test_spares_are_other_rows_that_follow_from_the_place_alone():
    stream = DrawStream(ROWS, GROUPS, "balanced", seed=5)
    draws = [draw for batch in take(BatchStream(stream, 11), 2) for draw in batch]
    for epoch in range(2):
        rows = stream.epoch(epoch)[:, 0].tolist()
        for place, draw in enumerate(draws[epoch * 11 : epoch * 11 + 11]):
            next_ones = [rows[(place + step) % 11] for step in range(1, 9)]
            assert draw.spares == tuple(row for row in next_ones if row != draw.row)


def shares(sampling: str, epochs: int) -> Counter[str]:
    stream = DrawStream(ROWS, GROUPS, sampling)  # pyright: ignore[reportArgumentType]
    rows = np.concatenate([stream.epoch(epoch)[:, 0] for epoch in range(epochs)])
    return Counter(GROUPS[rows - 100].tolist())


def test_shares_follow_counts_their_square_roots_or_are_equal():
    assert shares("natural", 1) == {"ct": 8, "mr": 2, "us": 1}
    # Square roots 2.83, 1.41, 1 of 5.24; times 11: 5.94, 2.97, 2.10.
    assert shares("sqrt", 1) == {"ct": 6, "mr": 3, "us": 2}
    assert sorted(shares("balanced", 1).values()) == [3, 4, 4]


def test_within_a_group_no_row_comes_again_before_all_have_come():
    stream = DrawStream(ROWS, GROUPS, "sqrt")
    draws = np.concatenate([stream.epoch(epoch) for epoch in range(8)])
    ct = draws[draws[:, 0] < 108]
    assert len(ct) == 48
    counts = Counter(ct[:, 0].tolist())
    assert set(counts.values()) == {6}
    # A row and how often it came before are never given twice.
    assert len({tuple(draw) for draw in draws.tolist()}) == len(draws)


def test_a_small_group_beside_a_huge_one_still_comes():
    groups = np.array(["ct"] * 5000 + ["us"])
    stream = DrawStream(np.arange(5001), groups, "natural")
    assert len(stream.epoch(0)) == 5001
    balanced = DrawStream(np.arange(5001), groups, "sqrt").epoch(0)
    assert len(balanced) == 5001
    assert (balanced[:, 0] == 5000).sum() > 0


def test_the_order_is_that_which_earlier_versions_began_runs_with():
    stream = DrawStream(ROWS, GROUPS, "balanced", seed=2**33 + 1)
    assert stream.epoch(1).tolist() == BALANCED_EPOCH


def test_a_group_of_one_image_among_very_many_costs_no_generator_for_each_draw(
    monkeypatch: pytest.MonkeyPatch,
):
    groups = np.array(["ct"] * 40_000 + ["us"] + ["xr"] * 3)
    made: list[object] = []
    make = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda key: made.append(key) or make(key))
    draws = DrawStream(np.arange(40_004), groups, "balanced").epoch(3)
    assert Counter(groups[draws[:, 0]].tolist()).most_common()[-1][1] == 13_334
    assert len(made) < 20


def test_many_passes_over_a_small_group_go_on_from_epoch_to_epoch():
    groups = np.array(["ct"] * 3000 + ["us"] * 7)
    stream = DrawStream(np.arange(3007), groups, "balanced", seed=4)
    draws = np.concatenate([stream.epoch(epoch) for epoch in range(6)])
    small = draws[draws[:, 0] >= 3000]
    assert len({tuple(draw) for draw in small.tolist()}) == len(small)
    # Each pass but the last has every image once, whatever block and epoch it fell into.
    passes = {turn: set(small[small[:, 1] == turn, 0].tolist()) for turn in small[:, 1].tolist()}
    whole = set(range(3000, 3007))
    assert len(passes) > 1200
    assert all(passes[turn] == whole for turn in range(len(passes) - 1))
    first_places = [stream.epoch(0)[stream.epoch(0)[:, 1] == turn][0, 0] for turn in range(40)]
    assert len(set(first_places)) > 3


def test_seeds_and_epochs_differ_and_repeat():
    def first(seed: int, epoch: int) -> list[int]:
        return DrawStream(ROWS, GROUPS, "natural", seed).epoch(epoch)[:, 0].tolist()

    assert first(0, 0) == first(0, 0)
    assert first(0, 0) != first(1, 0)
    assert first(0, 0) != first(0, 1)


def test_an_empty_selection_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        DrawStream(np.array([]), np.array([]))


def test_an_epoch_of_many_rows_takes_two_numbers_a_row():
    rows = np.arange(400_000)
    stream = DrawStream(rows, rows % 5, "sqrt")
    draws = stream.epoch(0)
    assert len(draws) == len(rows)
    assert draws.nbytes <= 2 * rows.nbytes
    assert len(take(BatchStream(stream, 64), 2)) == 2
