"""What surrounds a command: log lines, the summary at the end, errors in plain sentences.

Exit status: 0 done; 1 the command could not do its work (the message says why); 2 a setting or
option is wrong; 70 a defect in vismae (the traceback is kept in a file); 75 the time of a job is
nearly up, --resume goes on; 130 interrupted.
"""

import errno
import logging
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import typer

from vismae.core.errors import VismaeError
from vismae.core.launch import is_main_process
from vismae.core.processes import let_children_outlive_time_up

INCOMPLETE_STATUS = 1
DEFECT_STATUS = 70
INTERRUPTED_STATUS = 130

_NO_ROOM = "Free some space or write to another disk; what is done stays there"
_NO_RIGHT = "Name a place that may be written, or ask for the right to this one"
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _NO_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_RIGHT),
}


class Result(Protocol):
    """What every workflow returns."""

    def summary(self) -> str:
        """Return what was made, in one or a few lines."""
        ...


ResultT = TypeVar("ResultT", bound=Result)


def run_command(work: Callable[[], ResultT], verbose: bool, quiet: bool) -> ResultT:
    """Do a command's work, print its summary and return its result.

    Raises:
        typer.Exit: The work could not be done; a sentence on standard error says why.
    """
    let_children_outlive_time_up()
    try:
        _set_up_logging(verbose, quiet)
        result = work()
    except KeyboardInterrupt:
        _complain(
            "interrupted. ingest goes on where it stopped with the same command, pretrain and "
            "finetune from the last checkpoint with --resume, predict, embed and study after what "
            "is done with --resume."
        )
        raise typer.Exit(INTERRUPTED_STATUS) from None
    except VismaeError as error:
        _complain(str(error), show_traceback=verbose)
        raise typer.Exit(error.exit_status) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        cure = f" {_CURES[error.errno]}." if error.errno in _CURES else ""
        _complain(f"{place}{error.strerror or error}.{cure}", show_traceback=verbose)
        raise typer.Exit(1) from None
    except Exception as error:
        raise typer.Exit(_report_unforeseen(error, verbose)) from None
    if is_main_process():
        typer.echo(_printable(result.summary()))
    return result


def _complain(message: str, *, show_traceback: bool = False) -> None:
    if show_traceback:
        typer.echo(traceback.format_exc(), err=True)
    typer.echo(_printable(f"vismae: {message}"), err=True)


def _printable(text: str) -> str:
    """Return a text that can be written; file names need not be in the system's encoding."""
    return text.encode(errors="backslashreplace").decode()


def _report_unforeseen(error: Exception, verbose: bool) -> int:
    """Say what happened, keep the traceback of a defect in a file, return the exit status."""
    if type(error).__name__ == "OutOfMemoryError":
        _complain(
            "the device ran out of memory. Use a smaller data.batch_size (trainer.accumulate "
            "keeps the number of images a step), a smaller data.image_size or --device cpu.",
            show_traceback=verbose,
        )
        return 1
    if verbose:
        _complain("this is a defect in vismae; please report it.", show_traceback=True)
        return DEFECT_STATUS
    with tempfile.NamedTemporaryFile(
        "w", prefix="vismae-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(traceback.format_exc())
    _complain(
        f"{type(error).__name__}: {error}. This is a defect in vismae; please report it with "
        f"{file.name}, or run again with --verbose."
    )
    return DEFECT_STATUS


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what ``sys.stderr`` is at that moment, so that progress bars are not torn."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _set_up_logging(verbose: bool, quiet: bool) -> None:
    """Show vismae's own news, and only warnings of the libraries below it."""
    handler = _StderrHandler()
    handler.setFormatter(_Formatter())
    # Of processes that train together the first one tells the news.
    quiet = quiet or not is_main_process()
    handler.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    handler.addFilter(lambda record: _concerns_user(record, verbose))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("vismae").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    if not verbose:
        # Lightning's own news (devices found, an advertisement, why it stopped) goes to a handler
        # of its own; what matters of it is in our lines. Its warnings still come through.
        for name in ("pytorch.utilities", "fabric.utilities"):
            logging.getLogger(f"lightning.{name}.rank_zero").setLevel(logging.WARNING)


def _concerns_user(record: logging.LogRecord, verbose: bool) -> bool:
    """Tell our own news, and warnings of libraries that somebody can act on."""
    if record.name.startswith("vismae") or verbose:
        return True
    # Every file that cannot be read gets a line of ours; the reader's tracebacks and warnings
    # about it would bury that line.
    is_reader = record.name.startswith(("pydicom", "py.warnings"))
    return record.levelno >= logging.WARNING and not is_reader


class _Formatter(logging.Formatter):
    """Time and message; the level's name only where it matters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)
