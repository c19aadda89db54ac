"""The progress bar of an ingest, on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """How far the reading is, in bytes of pixels."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("finding files", total=None)

    def begin(self, description: str, total_bytes: int | None = None) -> None:
        """Begin another part of the work."""
        self._progress.update(
            self._task, description=description, total=total_bytes, completed=0, refresh=True
        )

    def advance(self, count: int) -> None:
        """Go on by some bytes."""
        self._progress.update(self._task, advance=count, refresh=True)


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """Show a bar while inside; nothing where standard error is no terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    ) as progress:
        yield ProgressBar(progress)
