"""All processes that train one model: how they come together, agree, and end together."""

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins import ClusterEnvironment
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from vismae.core.errors import TimeUpError, TrainingError, VismaeError
from vismae.core.launch import Launch, find_launch, require_launch_fits
from vismae.core.processes import available_cores, stop_signals_held
from vismae.core.sections import TrainerSettings
from vismae.training.accelerator import accelerator
from vismae.training.launched_environment import LaunchedEnvironment
from vismae.training.members import Members
from vismae.training.orphans import end_with_parent
from vismae.training.peers import PeerLostError, Peers
from vismae.training.surroundings import give_back, stop_handlers

logger = logging.getLogger(__name__)

T = TypeVar("T")

# An exchange that failed is explained by what another process tells within this time.
_EXPLAIN_SECONDS = 5.0
_POLL_SECONDS = 0.05
# After an end in good order the first process waits so long for the others to end before it.
_LEAVE_SECONDS = 20.0
# Processes that vismae started are killed when they have not ended after so long.
_END_SECONDS = 60.0
_FAILED_SECONDS = 15.0


class Team:
    """This process among those that train together; one alone is a team too.

    Args:
        settings: How many there are, and how long they wait for each other.
        work: What further processes on this machine run, where vismae starts them.
        argument: Its argument.
    """

    def __init__(
        self, settings: TrainerSettings, work: Callable[[Any], Any], argument: object
    ) -> None:
        self.launch = find_launch()
        require_launch_fits(self.launch, settings)
        self._settings = settings
        self._work = (work, argument)
        self._device = accelerator(settings)
        self._members: Members | None = None
        self._peers: Peers | None = None
        self._joined = False
        if self.launch.world > 1:
            self._join()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.launch.rank == 0

    @property
    def is_started_from_outside(self) -> bool:
        """Whether torchrun or SLURM started the processes."""
        return self._members is None

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do something in the first process, and only when it is done in the others.

        Raises:
            PeerLostError: Another process failed meanwhile.
        """
        if not self.is_first and self._peers is not None:
            self._peers.wait_for_first()
            return work()
        result = work()
        if not self._joined and self._settings.devices > 1:
            self._join()
        if self._peers is not None:
            self._peers.release()
        return result

    def require_same(self, facts: Mapping[str, object]) -> None:
        """Raise in all processes if they are about to train different things.

        Raises:
            TrainingError: Names what differs, and where.
        """
        if self._peers is None:
            return
        everybody: list[Any] = [None] * self.launch.world
        dist.all_gather_object(everybody, dict(facts))
        for rank, theirs in enumerate(everybody):
            for name, value in everybody[0].items():
                if theirs[name] != value:
                    raise TrainingError(
                        f"The processes do not agree: {name} is {value} for the first one and "
                        f"{theirs[name]} for rank {rank}. All machines must see the same run "
                        "folder, store and settings, on a shared disk."
                    )

    def environment(self) -> ClusterEnvironment:
        """Return what Lightning has to know."""
        return LaunchedEnvironment(self.launch)

    def _join(self) -> None:
        """Bring the processes together; each waits for the others."""
        self._joined = True
        wait = timedelta(minutes=self._settings.wait_minutes)
        store = self._store(wait)
        launch = self.launch
        if self._device == "cuda":
            torch.cuda.set_device(launch.local_rank)
        with _loopback_on_one_machine(launch):
            self._await_all(store, wait)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self._device == "cuda" else "gloo",
                store=store,
                rank=launch.rank,
                world_size=launch.world,
                timeout=wait,
            )
        self._peers = Peers(launch, self._settings.silence_seconds, _share)
        if launch.rank == 0 and launch.machines > 1:
            logger.info("%d processes on %d machines", launch.world, launch.machines)

    def _store(self, wait: timedelta) -> Store:
        """Return where the processes find each other, and start them if nobody has."""
        launch = self.launch
        if launch.world == 1:
            world = self._settings.devices
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
                launch.address, 0, world, is_master=True, timeout=wait, wait_for_workers=False
            )
            self.launch = replace(
                launch, engine="torchrun", world=world, per_machine=world, port=store.port
            )
            threads = None
            if self._device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
                threads = max(1, available_cores() // world)
                torch.set_num_threads(threads)
            self._members = Members(self.launch, *self._work, threads)
            return store
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # torchrun itself listens at the port.
            end_with_parent()
            found = rendezvous("env://", launch.rank, launch.world, timeout=wait)
            return next(iter(found))[0]
        return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            launch.address,
            launch.port,
            launch.world,
            is_master=launch.rank == 0,
            timeout=wait,
            wait_for_workers=False,
        )

    def _await_all(self, store: Store, wait: timedelta) -> None:
        """Wait until every process is there."""
        there = store.add("vismae/there", 1)
        end = time.monotonic() + wait.total_seconds()
        while there < self.launch.world:
            if self._members is not None:
                self._members.require_alive()
            if time.monotonic() > end:
                raise TrainingError(
                    f"Only {there} of {self.launch.world} processes came together within "
                    f"{self._settings.wait_minutes:g} minutes (trainer.wait_minutes)."
                )
            time.sleep(_POLL_SECONDS)
            there = store.add("vismae/there", 0)

    def is_spokesman(self) -> bool:
        """Tell whether this process says on its machine's screen why another one failed."""
        cause = self._peers.cause if self._peers is not None else None
        return cause is not None and self._peers is not None and self._peers.is_spokesman(cause)

    def explain(self, error: Exception) -> Exception:
        """Return the reason behind an error: another process's failure, or the error itself."""
        if self._peers is None or isinstance(error, VismaeError):
            return error
        cause = self._peers.explain(_EXPLAIN_SECONDS)
        if cause is not None:
            return PeerLostError(cause.sentence(self.launch.world))
        if isinstance(error, RuntimeError) and "timed out" in str(error).lower():
            return TrainingError(
                "All processes live, but they waited for each other longer than "
                f"trainer.wait_minutes ({self._settings.wait_minutes:g}). One of them is stuck or "
                "has long work of its own, such as a validation: then raise trainer.wait_minutes. "
                "--resume goes on from the last resume point."
            )
        return error

    def end(self, error: BaseException | None) -> None:
        """Take leave of the others, after a failure by telling them."""
        failed = error is not None and not (isinstance(error, SystemExit) and error.code == 0)
        if self._peers is not None and failed and not isinstance(error, PeerLostError):
            self._peers.tell(_in_words(error))
        if dist.is_initialized() and self._joined:
            dist.destroy_process_group()
        if self._peers is not None:
            agreed = not failed or isinstance(error, (KeyboardInterrupt, TimeUpError))
            self._peers.close(_LEAVE_SECONDS if agreed else 0.0)
        if self._members is not None:
            self._members.end(_FAILED_SECONDS if failed else _END_SECONDS)


@contextmanager
def together(
    settings: TrainerSettings, work: Callable[[Any], Any], argument: object
) -> Generator[Team]:
    """Hold the team of a training; a failure of one process ends all, each with the cause.

    Args:
        settings: Devices and machines.
        work: The training itself, run in further processes where vismae starts them.
        argument: Its argument.

    Raises:
        SettingError: Other processes were started than the settings say.
        PeerLostError: Another process failed or was lost.
        SystemExit: The same in processes that torchrun or SLURM started, once it was said.
    """
    threads, handlers = torch.get_num_threads(), stop_handlers()
    team: Team | None = None
    try:
        team = Team(settings, work, argument)
        yield team
    except Exception as error:
        # torchrun and SLURM send SIGTERM at once, which must not come before the explanation.
        with stop_signals_held():
            reason = team.explain(error) if team is not None else error
            is_lost = isinstance(reason, PeerLostError)
            if is_lost and team is not None and team.is_started_from_outside and _says(team):
                logger.error("%s", reason)
            _end(team, reason)
        if is_lost and team is not None and (team.is_started_from_outside or not team.is_first):
            raise SystemExit(1) from error
        if reason is error:
            raise
        raise reason from error
    except BaseException as error:
        _end(team, error)
        raise
    else:
        _end(team, None)
    finally:
        torch.set_num_threads(threads)
        give_back(handlers)


def _end(team: Team | None, error: BaseException | None) -> None:
    if team is not None:
        team.end(error)


def _says(team: Team | None) -> bool:
    """Tell whether this process says on its machine's screen why the training ends."""
    return team is None or team.is_first or team.is_spokesman()


def _in_words(error: BaseException | None) -> str:
    """Say to the others what became of this process."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return "was stopped."
    if isinstance(error, VismaeError):
        return f"failed: {error}"
    return f"failed: {type(error).__name__}: {error}."


def _share(value: Any) -> Any:
    """Return what the first process passes in."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def _loopback_on_one_machine(launch: Launch) -> Generator[None]:
    """Keep processes of one machine from looking for each other by the machine's name.

    Its name may lead to no address, or to one behind a firewall.
    """
    name = "GLOO_SOCKET_IFNAME"
    loopback = next((each for _, each in socket.if_nameindex() if each in ("lo", "lo0")), None)
    if launch.machines > 1 or loopback is None or name in os.environ:
        yield
        return
    os.environ[name] = loopback
    try:
        yield
    finally:
        os.environ.pop(name, None)
