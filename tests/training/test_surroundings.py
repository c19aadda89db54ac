"""A training leaves its process as it found it."""

import logging
import signal
import subprocess
import sys

import pytest

from vismae.core.errors import TimeUpError, VismaeError
from vismae.training.surroundings import StopRequest, quiet_lightning, signals_given_back


def test_lightnings_news_is_silenced_only_while_inside(caplog: pytest.LogCaptureFixture):
    news = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logging.getLogger("lightning.pytorch").level
    with quiet_lightning():
        assert not news.isEnabledFor(logging.INFO)
        assert news.isEnabledFor(logging.WARNING)
    assert logging.getLogger("lightning.pytorch").level == level


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_given_back_and_a_stop_becomes_an_interruption(number: int):
    before = signal.getsignal(number)

    def train() -> None:
        with signals_given_back():
            signal.signal(number, signal.SIG_IGN)
            raise StopRequest(number)

    is_time_up = number == signal.SIGUSR1
    with pytest.raises(TimeUpError if is_time_up else KeyboardInterrupt) as raised:
        train()
    assert signal.getsignal(number) is before
    # A scheduler tells by the status whether the same command is to be run again.
    assert not is_time_up or (
        isinstance(raised.value, VismaeError) and raised.value.exit_status == 75
    )


# A process of a team that failed, and is asked to stop before it could say why.
FAILED = """
import os, signal, sys
from vismae.core.sections import TrainerSettings
from vismae.training.surroundings import signals_given_back
from vismae.training.team import together

def train():
    with together(TrainerSettings(device="cpu"), print, None):
        try:
            with signals_given_back():
                signal.signal(signal.SIGTERM, lambda number, frame: print("asked to stop"))
                raise RuntimeError("connection closed by peer")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

before = signal.getsignal(signal.SIGTERM)
try:
    train()
except RuntimeError as error:
    print(error)
print(signal.getsignal(signal.SIGTERM) is before)
"""


def test_a_process_that_failed_is_not_ended_before_it_has_said_why():
    run = [sys.executable, "-c", FAILED]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["asked to stop", "connection closed by peer", "True"]
    assert done.returncode == 0, done.stderr
