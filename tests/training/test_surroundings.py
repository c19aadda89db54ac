"""A training leaves its process as it found it."""

import logging
import os
import signal

import pytest

from vismae.training.surroundings import (
    StopRequest,
    own_launch,
    quiet_lightning,
    signals_given_back,
)


def test_lightnings_news_is_silenced_only_while_inside(caplog: pytest.LogCaptureFixture):
    news = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logging.getLogger("lightning.pytorch").level
    with quiet_lightning():
        assert not news.isEnabledFor(logging.INFO)
        assert news.isEnabledFor(logging.WARNING)
    assert logging.getLogger("lightning.pytorch").level == level


def test_signals_are_given_back_and_a_stop_becomes_an_interruption():
    before = signal.getsignal(signal.SIGTERM)

    def train() -> None:
        with signals_given_back():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise StopRequest

    with pytest.raises(KeyboardInterrupt):
        train()
    assert signal.getsignal(signal.SIGTERM) is before


def test_variables_of_a_launch_do_not_reach_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with own_launch():
        os.environ["LOCAL_RANK"] = "0"
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    assert "LOCAL_RANK" not in os.environ
    assert os.environ["MASTER_ADDR"] == "node7"
