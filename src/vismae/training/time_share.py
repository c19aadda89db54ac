"""Keeping what is done beside training within a share of the running time."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class TimeShare:
    """Adds up the time spent beside training and says what still fits.

    The running time begins when this object is made.

    Args:
        most: Largest share, above 0 and at most 1.
        clock: Seconds from any start.
    """

    def __init__(self, most: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most
        self._clock = clock
        self._begin = clock()
        self._spent = 0.0

    @contextmanager
    def timed(self) -> Generator[None]:
        """Count the time inside as spent beside training."""
        begin = self._clock()
        try:
            yield
        finally:
            self._spent += self._clock() - begin

    def fits(self, seconds: float) -> bool:
        """Tell whether work of so many seconds would stay within the share at its end."""
        running = self._clock() - self._begin
        return self._spent + seconds <= self.most * (running + seconds)

    @property
    def share(self) -> float:
        """Share of the running time spent so far, 0 to 1."""
        return self._spent / max(self._clock() - self._begin, 1e-9)
