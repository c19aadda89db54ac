"""How this process was started: alone, or as one of several that train together.

torchrun and SLURM tell each process its place by variables; vismae does the same for the
processes it starts itself. Nothing here loads torch.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vismae.core.errors import SettingError
from vismae.core.sections import TrainerSettings

Engine = Literal["alone", "torchrun", "slurm"]

_FROM_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
_STARTERS = "RANK, LOCAL_RANK and SLURM_STEP_NUM_TASKS"
_LOOPBACK = "127.0.0.1"
_FIRST_PORT, _PORTS = 15_000, 15_000


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that train together.

    Attributes:
        engine: What started this process: ``alone`` a person, ``torchrun`` also vismae itself.
        rank: Number of this process, 0 to ``world`` - 1.
        local_rank: Its number on its machine.
        world: Number of processes.
        per_machine: Processes on each machine.
        address, port: Where the first process listens.
    """

    engine: Engine = "alone"
    rank: int = 0
    local_rank: int = 0
    world: int = 1
    per_machine: int = 1
    address: str = _LOOPBACK
    port: int = 0

    @property
    def machines(self) -> int:
        """Number of machines."""
        return self.world // self.per_machine

    @property
    def machine(self) -> int:
        """Number of this process's machine."""
        return self.rank // self.per_machine

    def variables(self) -> dict[str, str]:
        """Return the variables by which torchrun would tell this place."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "GROUP_RANK": str(self.machine),
            "WORLD_SIZE": str(self.world),
            "LOCAL_WORLD_SIZE": str(self.per_machine),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def find_launch(variables: Mapping[str, str] = os.environ) -> Launch:
    """Read the place of this process from its variables.

    torchrun comes first, as it may have been started by SLURM. SLURM counts only inside a step
    (``srun``) of several tasks: in an allocation's shell or a batch script its variables tell how
    many tasks there could be, not that they run.

    Raises:
        SettingError: Variables contradict each other, are no numbers, or some are missing.
    """
    if "RANK" in variables or "LOCAL_RANK" in variables:
        return _require_place(_from_torchrun(variables))
    tasks = variables.get("SLURM_STEP_NUM_TASKS")
    if tasks and "SLURM_PROCID" in variables and _number(variables, "SLURM_STEP_NUM_TASKS") > 1:
        return _require_place(_from_slurm(variables))
    return Launch()


def is_main_process() -> bool:
    """Tell whether this process is the first of those that train together."""
    return find_launch().rank == 0


def require_launch_fits(launch: Launch, settings: TrainerSettings) -> None:
    """Raise if other processes were started than the settings count on.

    Batch, learning rate and schedule follow from the settings, so these must say what is.

    Raises:
        SettingError: Names both numbers and what to give.
    """
    wanted = (settings.nodes, settings.devices)
    if launch.engine != "alone" and wanted != (launch.machines, launch.per_machine):
        raise SettingError(
            f"{launch.engine} started {launch.world} processes, {launch.per_machine} on each of "
            f"{launch.machines} machines, but the settings say trainer.nodes={settings.nodes} and "
            f"trainer.devices={settings.devices}. Give --set trainer.nodes={launch.machines} --set "
            f"trainer.devices={launch.per_machine}, or start as many processes as the settings say."
        )
    if launch.engine == "alone" and settings.nodes > 1:
        count = settings.devices
        raise SettingError(
            f"trainer.nodes is {settings.nodes}, but this process was started alone. vismae starts "
            "processes on its own machine only. On each machine run 'torchrun --nnodes "
            f"{settings.nodes} --nproc-per-node {count} --rdzv-backend c10d --rdzv-endpoint "
            f"HOST:29500 -m vismae ...', or in a SLURM job 'srun --ntasks-per-node {count} vismae "
            "...' (docs/cluster.md)."
        )


def _from_torchrun(variables: Mapping[str, str]) -> Launch:
    missing = [name for name in (*_FROM_TORCHRUN, "MASTER_PORT") if not variables.get(name)]
    if missing:
        raise SettingError(
            f"The variables say that this process is one of several, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set. Start with torchrun, which sets "
            "all of them, or unset RANK and LOCAL_RANK to train in one process."
        )
    rank, local_rank, world, per_machine = (_number(variables, n) for n in _FROM_TORCHRUN[:4])
    if per_machine and world % per_machine:
        raise SettingError(
            f"torchrun started {world} processes, {per_machine} of them here. Every machine needs "
            "the same number: give all the same --nproc-per-node."
        )
    return Launch(
        "torchrun",
        rank,
        local_rank,
        world,
        per_machine,
        variables["MASTER_ADDR"],
        _number(variables, "MASTER_PORT"),
    )


def _from_slurm(variables: Mapping[str, str]) -> Launch:
    world = _number(variables, "SLURM_STEP_NUM_TASKS")
    layout = variables.get("SLURM_STEP_TASKS_PER_NODE") or str(world)
    try:
        per_machine = {int(tasks) for tasks in re.sub(r"\(x\d+\)", "", layout).split(",")}
    except ValueError:
        raise _no_number("SLURM_STEP_TASKS_PER_NODE", layout, "tasks such as 4(x2)") from None
    if len(per_machine) > 1:
        raise SettingError(
            f"SLURM started {world} tasks, {layout} on the machines. Every machine needs the same "
            "number: give srun --ntasks-per-node."
        )
    nodes = variables.get("SLURM_STEP_NODELIST") or _LOOPBACK
    # Steps of one job, and jobs of one machine, must not meet at the same port.
    job, step = (_number(variables, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return Launch(
        "slurm",
        _number(variables, "SLURM_PROCID"),
        _number(variables, "SLURM_LOCALID"),
        world,
        per_machine.pop(),
        variables.get("MASTER_ADDR") or _first_host(nodes),
        _number(variables, "MASTER_PORT", _FIRST_PORT + (7 * job + step) % _PORTS),
    )


def _number(variables: Mapping[str, str], name: str, unset: int | None = None) -> int:
    """Return what a variable says; an empty one counts as not set.

    Raises:
        SettingError: It is no whole number, or not set and nothing stands for that.
    """
    text = variables.get(name, "")
    if not text and unset is not None:
        return unset
    if not text.isdecimal():
        raise _no_number(name, text, "a whole number")
    return int(text)


def _no_number(name: str, text: str, expected: str) -> SettingError:
    return SettingError(
        f"The variables say that this process is one of several, but {name} is "
        f"{repr(text) if text else 'not set'}; expected {expected}. Start with torchrun or srun, "
        f"which set it, or unset {_STARTERS} to train in one process."
    )


def _require_place(launch: Launch) -> Launch:
    """Return a launch whose numbers go together.

    Raises:
        SettingError: They do not.
    """
    if launch.rank >= launch.world or not 0 < launch.per_machine <= launch.world:
        raise SettingError(
            f"The variables say that this is process {launch.rank} (counted from 0) of "
            f"{launch.world}, with {launch.per_machine} on each machine, which cannot be. Start "
            f"with torchrun or srun, or unset {_STARTERS} to train in one process."
        )
    return launch


def _first_host(nodes: str) -> str:
    """Return the first of SLURM's host names, as in ``gpu[03-05,9]-x,login``."""
    found = re.match(r"([^\[,]*)(?:\[([^\]\-,]+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
