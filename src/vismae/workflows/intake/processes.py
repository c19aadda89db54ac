"""Many pieces of work, read in this process or in several, with results in the order listed."""

import logging
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext

from vismae.workflows.intake.read import ItemResult, ReadSettings, read_item
from vismae.workflows.intake.work import IntakeReason, Rejection, WorkItem

# Small files travel to a worker together; their results must fit in memory several times.
_FILES_PER_CHUNK = 16
_CHUNKS_IN_FLIGHT = 3

logger = logging.getLogger(__name__)


def read_all(
    items: Sequence[WorkItem], settings: ReadSettings, workers: int
) -> Iterator[ItemResult]:
    """Read pieces of work and return their results in the same order.

    Args:
        items: What to read.
        settings: For all of them.
        workers: Processes; 1 reads in this one. A process that dies (such as for lack of memory)
            takes nothing with it but the file it was reading.
    """
    if workers == 1 or len(items) <= workers * _FILES_PER_CHUNK:
        yield from (read_item(item, settings) for item in items)
        return
    chunks = iter(_chunks(items))
    waiting: deque[list[WorkItem]] = deque()
    exhausted = False
    while not exhausted:
        try:
            with _pool(workers) as pool:
                futures: deque[Future[list[ItemResult]]] = deque()
                while True:
                    while len(waiting) < workers * _CHUNKS_IN_FLIGHT:
                        chunk = next(chunks, None)
                        if chunk is None:
                            break
                        waiting.append(chunk)
                        futures.append(pool.submit(_read_chunk, chunk, settings))
                    if not waiting:
                        exhausted = True
                        break
                    results = futures[0].result()
                    futures.popleft()
                    waiting.popleft()
                    yield from results
        except BrokenProcessPool:
            logger.warning("a reading process died; its files are read again one by one")
            while waiting:
                yield from _read_guarded(waiting.popleft(), settings)


def _read_chunk(chunk: list[WorkItem], settings: ReadSettings) -> list[ItemResult]:
    return [read_item(item, settings) for item in chunk]


def _read_guarded(chunk: list[WorkItem], settings: ReadSettings) -> Iterator[ItemResult]:
    """Read each piece in a process of its own, and name the one that dies."""
    for item in chunk:
        try:
            with _pool(1) as pool:
                result = pool.submit(read_item, item, settings).result()
        except BrokenProcessPool:
            result = _reject_item(
                item,
                IntakeReason.READER_DIED,
                "the process that read it died, mostly for lack of memory or because of a fault "
                "in a decoder. Leave the file out, or convert it with another program.",
            )
        yield result


def _chunks(items: Iterable[WorkItem]) -> Iterator[list[WorkItem]]:
    """Put single small files together; volumes and series travel alone."""
    chunk: list[WorkItem] = []
    for item in items:
        if len(item.entries) != 1 or item.entries[0].file.kind != "raster":
            if chunk:
                yield chunk
            chunk = []
            yield [item]
            continue
        chunk.append(item)
        if len(chunk) == _FILES_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _pool(workers: int) -> ProcessPoolExecutor:
    # Ctrl-C reaches the whole process group; only the parent should answer it.
    return ProcessPoolExecutor(
        workers,
        mp_context=_process_context(),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )


def _process_context() -> BaseContext:
    # Forked workers need no "if __name__ == '__main__'" in the user's script; where forking is
    # not safe (macOS) or not there (Windows) they are spawned.
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _reject_item(item: WorkItem, reason: IntakeReason, message: str) -> ItemResult:
    names = [entry.file.name for entry in item.entries]
    rejected = [Rejection(name, reason.value, f"{name}: {message}") for name in names]
    return ItemResult([], rejected, len(names))
