"""Fifty clients at once: no wrong answer, busy where the queue is full, memory bounded."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from factories import write_png
from web_server import RunningServer

CLIENTS, ROUNDS = 50, 2
UPLOAD_BYTES = 800_000


def private_bytes(server: RunningServer) -> int:
    """Memory of the server and of the process that computes, without what they share."""
    own = server.process.pid
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    # The child belongs to the thread that works on jobs.
    for task in Path(f"/proc/{own}/task").iterdir():
        children += (task / "children").read_text().split()
    total = 0
    for number in {str(own), *children}:
        rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if "Private_" in line)
    return total * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_fifty_clients_get_right_answers_or_are_told_to_wait(
    server: RunningServer, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    sent: list[Path] = []
    expected: list[object] = []
    for number in range(CLIENTS):
        # Noise does not compress, so that every upload is large.
        pixels = rng.integers(0, 255, (700 + number, 1000), np.uint8)
        sent.append(write_png(tmp_path / f"{number}.png", pixels))
        assert UPLOAD_BYTES > sent[-1].stat().st_size > UPLOAD_BYTES / 2
    client = server.client(limits=httpx.Limits(max_connections=CLIENTS))

    def ask(number: int) -> tuple[object, int]:
        """Ask until there is an answer; return it and how often the server was busy."""
        busy = 0
        while True:
            with sent[number].open("rb") as content:
                answer = client.post("/v1/predict", files={"file": ("a.png", content)})
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                busy += 1
                time.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            return answer.json()["images"], busy

    expected = [ask(number)[0] for number in range(CLIENTS)]
    assert len({str(found) for found in expected}) == CLIENTS
    before = private_bytes(server)
    most, uploads, ended = [before], [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            most.append(private_bytes(server))
            uploads.append(len(server.uploads()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(ask, [k % CLIENTS for k in range(CLIENTS * ROUNDS)]))
    finally:
        ended.set()
        watcher.join()
    assert [found for found, _ in answers] == expected * ROUNDS
    assert sum(busy for _, busy in answers) > 0
    # What waits is on the disk: a few uploads' worth of memory, however many clients there are.
    assert max(uploads) <= 8
    assert max(most) - before < 100 * 2**20
    assert server.uploads() == []
