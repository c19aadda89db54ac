from collections import Counter

import pytest

from vismae.data.strata import hash_rank, interleave, ranked_strata, spread_quota


def groups_of(*sizes: int, name: str = "P") -> list[list[str]]:
    """Return groups of patients by size."""
    numbers = iter(range(sum(sizes)))
    return [[f"{name}{next(numbers)}" for _ in range(size)] for size in sizes]


def test_neighbours_share_their_rarest_name_and_patients_are_ranked_by_chance() -> None:
    strata = {"1": ("a",), "2": ("a", "b"), "3": ("a", "c"), "4": ("b",), "5": ("a",)}

    ranked = ranked_strata(strata, "x")

    assert [strata[group[0]] for group in ranked] == [("a", "c"), ("b",), ("a", "b"), ("a",)]
    assert ranked[-1] == sorted(["1", "5"], key=lambda patient: hash_rank("x", patient))
    assert ranked_strata(dict(reversed(strata.items())), "x") == ranked


@pytest.mark.parametrize("quota", [0, 1, 7, 20, 33, 34])
def test_a_quota_is_met_exactly_and_every_group_has_its_share_up_or_down(quota: int) -> None:
    groups = groups_of(1, 1, 1, 14, 2, 1, 9, 5)
    for seed in range(50):
        counts = spread_quota(groups, quota, f"{seed}")
        assert sum(counts) == quota
        for group, count in zip(groups, counts, strict=True):
            assert abs(count - len(group) * quota / 34) < 1


def test_every_group_is_rounded_up_as_often_as_its_share_says() -> None:
    groups = groups_of(1, 3, 1, 1, 4)
    drawn = [0] * 5
    for seed in range(2000):
        for place, count in enumerate(spread_quota(groups, 3, f"{seed}")):
            drawn[place] += count
    # Four standard errors of a share of 0.3 among 2000.
    for group, count in zip(groups, drawn, strict=True):
        assert count / 2000 == pytest.approx(0.3 * len(group), abs=0.045)


def test_neighbours_make_up_for_each_other() -> None:
    # Of 40 patients alone in their strata, any ten neighbours hold three of the twelve drawn.
    for seed in range(50):
        counts = spread_quota(groups_of(*[1] * 40), 12, f"{seed}")
        for start in range(31):
            assert 1 <= sum(counts[start : start + 10]) <= 5


def test_every_beginning_holds_its_share_of_a_group_and_a_group_of_one_is_anywhere() -> None:
    places = Counter[int]()
    for number in range(200):
        groups = groups_of(1, 12, 7, name=f"{number}-")
        order = interleave(groups, "x")
        assert sorted(order) == sorted(patient for group in groups for patient in group)
        places[order.index(groups[0][0]) // 5] += 1
        for length in range(20):
            begun = set(order[:length])
            for group in groups:
                assert abs(len(begun & set(group)) - len(group) * length / 20) <= 1.5
    assert min(places[quarter] for quarter in range(4)) > 25
    assert interleave([], "x") == []
