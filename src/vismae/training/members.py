"""Further processes of a training on this machine, started without torchrun or SLURM.

Each runs the same function on the same settings, handed over through its standard input. That stays
open for as long as the first process lives: where it ends, the others end too.
"""

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vismae.core.errors import TrainingError, VismaeError
from vismae.core.launch import Launch

_STDIN = 0
_END_SECONDS = 30.0
_RUN = "from vismae.training.members import run_member; run_member()"


class Members:
    """Processes 1 to ``world`` - 1 of a training whose first process is this one.

    Args:
        launch: This process's place.
        work: A function of an importable module.
        argument: Its argument, which can be pickled.
        threads: Threads of each process's arithmetic; None leaves it to torch.
    """

    def __init__(
        self, launch: Launch, work: Callable[[Any], Any], argument: object, threads: int | None
    ) -> None:
        self._world = launch.world
        self._processes: list[subprocess.Popen[bytes]] = []
        given = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        for rank in range(1, launch.world):
            place = replace(launch, rank=rank, local_rank=rank).variables()
            process = subprocess.Popen(
                [sys.executable, "-c", _RUN],
                env={**given, **os.environ, **place},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            self._processes.append(process)
            self._hand_over(process, pickle.dumps((sys.path, work, argument)))

    def _hand_over(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        if process.stdin is None:
            return
        try:
            process.stdin.write(len(content).to_bytes(8, "little") + content)
            process.stdin.flush()
        except BrokenPipeError:
            self.require_alive()

    def require_alive(self) -> None:
        """Raise if one has ended before the training began.

        Raises:
            TrainingError: Names the process and its exit status.
        """
        for rank, process in enumerate(self._processes, start=1):
            status = process.poll()
            if status is not None:
                raise TrainingError(
                    f"Process {rank + 1} of {self._world} (rank {rank}) ended with status "
                    f"{status} before the training began; what it wrote above says why."
                )

    def end(self, seconds: float) -> None:
        """Wait for them to end, and kill those that have not after so long."""
        end = time.monotonic() + seconds
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_member() -> None:
    """Do what the first process handed over; the whole life of a further process.

    A failure is told to the first process, which says it; only what nobody foresaw also shows its
    traceback here.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with os.fdopen(_STDIN, "rb", buffering=0, closefd=False) as source:
        length = int.from_bytes(source.read(8) or b"", "little")
        content = b""
        while len(content) < length and (more := source.read(length - len(content))):
            content += more
    sys.path[:], work, argument = pickle.loads(content)
    threading.Thread(target=_end_with_first, daemon=True).start()
    try:
        work(argument)
    except KeyboardInterrupt:
        sys.exit(130)
    except VismaeError as error:
        sys.exit(error.exit_status)


def _end_with_first() -> None:
    """Wait for the first process's end."""
    os.read(_STDIN, 1)
    # Time to end in good order, as after a training.
    threading.Event().wait(_END_SECONDS)
    os._exit(1)
