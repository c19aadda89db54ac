"""A SLURM of one machine, started by the tests on loopback in a folder of their own."""

import os
import platform
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Slurm:
    """A running SLURM; commands are run with its configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's commands and return what it says."""
        done = subprocess.run(
            command,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def state(self, job: str) -> str:
        """Return a job's state, as in RUNNING."""
        return self._fact(job, "JobState")

    def restarts(self, job: str) -> int:
        """Return how often a job was put back in the queue."""
        return int(self._fact(job, "Restarts"))

    def _fact(self, job: str, name: str) -> str:
        words = self.run("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def wait(self, job: str, states: Sequence[str], seconds: float) -> str:
        """Wait until a job is in one of these states, and return which."""
        end = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < end, self.run("scontrol", "show", "job", job)
            time.sleep(0.5)
        return state


@contextmanager
def started(command: Sequence[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in the foreground of a process group of its own; end it by its number."""
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start munged, slurmctld and slurmd; skips the test where that cannot be."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs SLURM (Debian: slurm-wlm); {', '.join(missing)} not found")
    if os.geteuid() != 0:
        pytest.skip("needs root to start SLURM's daemons")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    text = _CONFIGURATION.format(
        host=platform.node().split(".")[0],
        folder=folder,
        controller=_free_port(),
        daemon=_free_port(),
    )
    (folder / "slurm.conf").write_text(text)
    made = Slurm(folder)
    files = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed"))
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    with ExitStack() as daemons:
        daemons.enter_context(started(munged, made.variables))
        _wait_for(folder / "munge.socket")
        daemons.enter_context(started(["slurmctld", "-D", "-i"], made.variables))
        daemons.enter_context(started(["slurmd", "-D"], made.variables))
        end = time.monotonic() + 60
        while "idle" not in made.run("sinfo", "-h", "-o", "%T", check=False):
            if time.monotonic() > end:
                logs = [path.read_text()[-2000:] for path in sorted(folder.glob("*.log"))]
                pytest.fail("SLURM did not start:\n" + "\n".join(logs))
            time.sleep(0.5)
        yield made
        made.run("scancel", "--user", pwd.getpwuid(os.geteuid()).pw_name, check=False)
        time.sleep(1)


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.1)
