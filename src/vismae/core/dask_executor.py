"""Tasks on a Dask cluster that is already there, each in a guarded process of a Dask worker.

Every thread of a Dask worker hands its calls to a child of its own, so a file that hangs or crashes
costs neither the worker nor its other tasks. When a whole worker is lost, Dask runs its tasks again
elsewhere. Tasks that were there when worker after worker died
(``distributed.scheduler.allowed-failures``) are tried once more, each alone on the cluster: the one
that takes workers down by itself comes back as lost. Imported only when a cluster is asked for.
"""

import logging
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

from distributed import Client
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

from vismae.core.errors import SettingError, VismaeError
from vismae.core.executor import CLUSTER_PREFIX, TASKS_PER_WORKER, QueuedExecutor
from vismae.core.guarded_child import Failure
from vismae.core.guarded_process import Guards, Limits, Loss

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
# What Dask raises when its scheduler is gone, besides what a client that gave up makes of it.
_UNREACHABLE = (OSError, CancelledError, ClosedClientError)

# In a Dask worker: the processes of each client, by its ticket. Stopped ones stay here, so that
# calls that were still queued end at once.
_GUARDS: dict[str, Guards] = {}


@dataclass(eq=False)
class _Call:
    """A call that was handed over: what it is, and Dask's future of it."""

    pickled: bytes
    future: Any


class DaskExecutor(QueuedExecutor[_Call]):
    """All workers of a Dask cluster; those that join later are used too.

    Args:
        address: Of the scheduler, ``host:port`` or with a protocol such as ``tls://``.
        workers: The fewest tasks to keep going for, so that an adaptive cluster grows.
        limits: Of each call.
        preload: Modules that calls need.

    Raises:
        SettingError: No scheduler answers, or vismae is not the same on its machines.
    """

    def __init__(
        self, address: str, workers: int, limits: Limits, preload: Sequence[str] = ()
    ) -> None:
        self._place = CLUSTER_PREFIX + address
        self._workers = workers
        self._limits = limits
        self._preload = tuple(preload)
        self._ticket = uuid4().hex
        self._under_way: list[_Call] = []
        # Dask types its clients and futures only in part.
        self._client: Any = self._connect(address if "://" in address else f"tcp://{address}")
        try:
            self._require_vismae()
        except BaseException:
            self._client.close()
            raise

    def room(self) -> int:
        """Return twice the threads of the cluster as it is now."""
        with self._answering():
            threads = sum(self._client.nthreads().values())
        return TASKS_PER_WORKER * max(self._workers, threads)

    def submit(self, pickled: bytes) -> _Call:
        """Hand a call to the scheduler."""
        call = _Call(pickled, self._future(pickled))
        self._under_way.append(call)
        return call

    def take(self, call: _Call) -> bytes | Loss | Failure:
        """Fetch what became of a call, and let the cluster forget it."""
        try:
            with self._answering():
                try:
                    return call.future.result()
                except KilledWorker:
                    return self._take_alone(call)
        except KilledWorker as error:
            return Loss(None, "died", f"{error.allowed_failures + 1} Dask workers died of it")
        finally:
            self._under_way.remove(call)
            call.future.release()

    def _take_alone(self, call: _Call) -> bytes | Loss | Failure:
        """Run a call again while no other of ours runs, so that it answers for itself alone."""
        for other in self._under_way:
            if other is not call:
                other.future.exception()  # Waits for its end, whatever it is.
        call.future.release()
        call.future = self._future(call.pickled)
        return call.future.result()

    def _future(self, pickled: bytes) -> Any:
        return self._client.submit(
            call_guarded, self._ticket, self._limits, self._preload, pickled, pure=False
        )

    def abort(self, calls: list[_Call]) -> None:
        """Stop calls on all workers."""
        # A scheduler that is gone runs nothing more.
        with suppress(VismaeError), self._answering():
            self._client.cancel([call.future for call in calls])
            self._stop_guards()
        self._under_way.clear()
        self._ticket = uuid4().hex

    def end(self) -> None:
        """End our processes on all workers; the cluster stays."""
        with suppress(VismaeError), self._answering():
            self._stop_guards()
        self._client.close()

    def _stop_guards(self) -> None:
        self._client.run(stop_guards, self._ticket, on_error="ignore")

    def _connect(self, address: str) -> Any:
        try:
            return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise SettingError(
                f"No Dask scheduler answers at {self._place} within {_CONNECT_SECONDS:g} s "
                f"({error}). Start one with dask scheduler and give its address, or use the "
                "executor processes."
            ) from error

    def _require_vismae(self) -> None:
        # Without this look, Dask workers that cannot read our calls would leave one by one.
        own = version("vismae")
        try:
            there: dict[str, str] = {"scheduler": self._client.run_on_scheduler(version, "vismae")}
            there |= self._client.run(version, "vismae")
        except PackageNotFoundError as error:
            raise SettingError(
                f"The scheduler or a worker of {self._place} has no vismae. Install vismae {own} "
                "on all machines of the cluster."
            ) from error
        other = {place: found for place, found in there.items() if found != own}
        if other:
            raise SettingError(
                f"The cluster {self._place} has other versions of vismae ({other}), this machine "
                f"has {own}. Install the same everywhere."
            )
        logger.info("cluster %s has %d workers", self._place, len(there) - 1)

    @contextmanager
    def _answering(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            if not self._is_gone(error):
                raise
            raise VismaeError(
                f"The Dask scheduler at {self._place} is gone ({type(error).__name__}). Start it "
                "again and run the same command."
            ) from error

    def _is_gone(self, error: Exception) -> bool:
        # A client that has given up closes itself, whatever call is on its way meanwhile, and what
        # that call then raises is of no certain class.
        return isinstance(error, _UNREACHABLE) or self._client.status in ("closing", "closed")


def call_guarded(
    ticket: str, limits: Limits, preload: tuple[str, ...], pickled: bytes
) -> bytes | Loss | Failure:
    """Run a call in the guarded process of this thread, inside a Dask worker."""
    return _GUARDS.setdefault(ticket, Guards(limits, preload)).call(pickled)


def stop_guards(ticket: str) -> None:
    """End the guarded processes of a client, and all that it still sends under this ticket."""
    _GUARDS.setdefault(ticket, Guards(Limits())).stop()
