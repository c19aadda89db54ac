"""How Lightning learns which process this is: from our own view of the launch, not by guessing."""

from lightning.fabric.plugins import ClusterEnvironment

from vismae.core.launch import Launch


class LaunchedEnvironment(ClusterEnvironment):
    """Answers what Lightning asks of a cluster.

    Lightning's own detection takes the shell of a SLURM allocation for one of its tasks, and then
    waits for the others.
    """

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self._launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        """All processes run already."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process listens."""
        return self._launch.address

    @property
    def main_port(self) -> int:
        """Its port."""
        return self._launch.port

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._launch.world

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self._launch.rank

    def set_global_rank(self, rank: int) -> None:
        """Known already."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._launch.local_rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._launch.machine
