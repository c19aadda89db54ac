"""Processes that train together learn at once of a failure and its cause; here they are threads."""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import vismae.training.peers as module
from vismae.core.launch import Launch
from vismae.training.peers import Cause, PeerLostError, Peers


@contextmanager
def team(
    world: int, silence: float = 30.0, per_machine: int | None = None
) -> Iterator[list[Peers]]:
    """Peers of all ranks, closed at the end."""
    boxes = [queue.Queue[Any]() for _ in range(world)]

    def share_of(rank: int) -> Callable[[Any], Any]:
        def share(value: Any) -> Any:
            for box in boxes[1:] if rank == 0 else []:
                box.put(value)
            return value if rank == 0 else boxes[rank].get(timeout=10)

        return share

    made: dict[int, Peers] = {}

    def start(rank: int) -> None:
        launch = Launch("torchrun", rank, rank, world, per_machine or world)
        made[rank] = Peers(launch, silence, share_of(rank))

    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    peers = [made[rank] for rank in range(world)]
    with ExitStack() as after:
        for each in peers:
            after.callback(each.close)
        yield peers


def test_a_failure_is_told_to_all_in_its_own_words():
    with team(3) as peers:
        peers[2].tell("failed: the disk is full.")
        for each in peers:
            cause = each.explain(10)
            assert cause is not None
            assert (cause.rank, cause.why) == (2, "failed: the disk is full.")
            assert "Process 3 of 3 (rank 2 on " in cause.sentence(3)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_connection_that_breaks_is_a_process_that_was_lost(rank: int):
    with team(3) as peers:
        # As for a process that is killed: its thread is no more, then the system closes its
        # connections. A thread that still listened would take the others for lost and say so.
        peers[rank]._closed = True
        peers[rank]._thread.join(20)
        for line in peers[rank]._lines:
            line.connection.shutdown(socket.SHUT_RDWR)
        for each in peers:
            if each is not peers[rank]:
                cause = each.explain(10)
                assert cause is not None
                assert cause.rank == rank
                assert "ended without a word" in cause.why


def test_silence_is_a_process_that_was_lost(monkeypatch: pytest.MonkeyPatch):
    with team(3, silence=2.0) as peers:
        monkeypatch.setattr(peers[1], "_send_all", lambda message: None)
        for each in (peers[0], peers[2]):
            cause = each.explain(20)
            assert cause is not None
            assert cause.rank == 1
            assert "no sign of life for 2 s" in cause.why


def test_signs_of_life_keep_the_silence_away():
    with team(2, silence=2.5) as peers:
        time.sleep(4)
        assert [each.cause for each in peers] == [None, None]


def test_a_process_that_ends_in_good_order_is_not_missed():
    with team(3) as peers:
        peers[2].close()
        for connection in module._open_to_the_end:
            connection.close()
        assert peers[0].explain(1.0) is None
        peers[1].tell("failed: later.")
        cause = peers[0].explain(10)
        assert cause is not None
        assert cause.rank == 1


def test_the_first_process_waits_until_the_others_have_ended():
    with team(3) as peers:
        before = len(module._open_to_the_end)
        for each in peers[1:]:
            each.close()
        waiting = threading.Thread(target=peers[0].close, args=(60.0,))
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        for connection in module._open_to_the_end[before:]:
            connection.close()
        waiting.join(20)
        assert not waiting.is_alive()


def test_others_go_on_when_the_first_has_let_them():
    with team(3) as peers:
        order: list[str] = []

        def wait(each: Peers) -> None:
            each.wait_for_first()
            order.append("other")

        threads = [threading.Thread(target=wait, args=(each,)) for each in peers[1:]]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        order.append("first")
        peers[0].release()
        for thread in threads:
            thread.join(10)
        assert order == ["first", "other", "other"]


def test_those_who_wait_for_the_first_learn_that_it_failed():
    with team(2) as peers:
        peers[0].tell("failed: runs/a is not empty.")
        with pytest.raises(
            PeerLostError, match=r"rank 0 on .* runs/a is not empty\. All processes"
        ):
            peers[1].wait_for_first()


def test_strangers_are_not_let_in(monkeypatch: pytest.MonkeyPatch):
    def strange(port: int) -> None:
        for content in (b"hello\n", json.dumps({"token": "x", "rank": 1, "host": "a"}).encode()):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
                caller.sendall(content + b"\n")
                # Closed from the other side without an answer.
                assert caller.recv(10) == b""

    reach = Peers._reach

    def reach_after_strangers(self: Peers, port: int, token: str, host: str) -> None:
        strange(port)
        reach(self, port, token, host)

    monkeypatch.setattr(Peers, "_reach", reach_after_strangers)
    with team(2) as peers:
        peers[1].tell("failed: known.")
        cause = peers[0].explain(10)
        assert cause is not None
        assert cause.why == "failed: known."


def test_one_process_of_each_machine_says_the_cause():
    with team(4, per_machine=2) as peers:
        sayers = {
            rank: [n for n, each in enumerate(peers) if each.is_spokesman(Cause(rank, "a", "."))]
            for rank in range(4)
        }
    assert sayers == {0: [1, 2], 1: [0, 2], 2: [0, 3], 3: [0, 2]}


def test_a_process_that_cannot_end_by_itself_is_ended(monkeypatch: pytest.MonkeyPatch):
    ended = threading.Event()

    monkeypatch.setattr(module, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(Peers, "_end", lambda self: ended.set())
    with team(2) as peers:
        peers[1].tell("failed: at once.")
        assert ended.wait(10)
