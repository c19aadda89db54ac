"""What is done beside training stays within its share of the time."""

import pytest

from vismae.training.time_share import TimeShare


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_fits_only_when_enough_time_has_passed():
    clock = Clock()
    share = TimeShare(0.03, clock)
    assert not share.fits(1.0)
    clock.now += 32.0
    assert not share.fits(1.0)
    clock.now += 0.4  # 1 of 33.4 seconds
    assert share.fits(1.0)


def test_time_spent_counts_also_when_the_work_fails():
    clock = Clock()
    share = TimeShare(0.1, clock)
    clock.now += 90.0

    def fail() -> None:
        with share.timed():
            clock.now += 10.0
            raise ValueError("the work failed")

    with pytest.raises(ValueError, match="the work failed"):
        fail()
    assert share.share == pytest.approx(0.1)
    assert not share.fits(0.1)
    clock.now += 100.0
    assert share.fits(10.0)
