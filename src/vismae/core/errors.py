"""Errors a user can meet. Each message says what was found, what was expected and what to do.

The command line shows them without a traceback; each class has a stable ``code``.
"""


class VismaeError(Exception):
    """Base of every error that vismae raises on purpose."""

    code = "vismae"
    exit_status = 1


class SettingError(VismaeError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another."""

    code = "setting"
    exit_status = 2


class DataError(VismaeError, ValueError):
    """A manifest, store, split or label does not hold what the command needs."""

    code = "data"


class UnreadableFileError(VismaeError, ValueError):
    """One input file cannot be used; long jobs record it in ``rejected.csv`` and go on.

    Args:
        reason: Stable reason code in lower case with hyphens, such as ``no-pixels``.
        message: The sentence for a person, naming the path.

    Attributes:
        of_each: Where several files were to be read together, what is wrong with each: name,
            reason and message. Empty for one file.
    """

    code = "unreadable-file"
    of_each: tuple[tuple[str, str, str], ...] = ()

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Survive pickling between processes, which would otherwise lose ``reason``."""
        return type(self), (self.reason, str(self))


class DamagedImageError(DataError):
    """An image in a store is no longer what was written; a long training goes on without it."""

    code = "damaged-image"


class ModelError(VismaeError, ValueError):
    """A checkpoint or model folder does not fit what it is wanted for."""

    code = "model"


class PreprocessingError(VismaeError, ValueError):
    """Images were prepared in another way than the model expects; names the field."""

    code = "preprocessing"


class RunFolderError(VismaeError, ValueError):
    """An output folder is not empty, is locked, or holds another kind of run."""

    code = "run-folder"


class TrainingError(VismaeError, RuntimeError):
    """Training cannot go on, such as after a loss that is not finite."""

    code = "training"


class TimeUpError(TrainingError):
    """A run was told that its time is up (SIGUSR1) and stopped at a resume point.

    Its exit status is that of a passing failure (``EX_TEMPFAIL``): the same command goes on.
    """

    code = "time-up"
    exit_status = 75
