"""The progress bar of a command on files, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(total: int, doing: str = "predicting") -> Iterator[Callable[..., None]]:
    """Show how many inputs are done; calling what is given counts one more, or a share of one."""
    console = Console(stderr=True)
    done = 0.0
    with Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(doing, total=total)

        def count(share: float = 1.0) -> None:
            nonlocal done
            done += share
            # The column shows whole inputs and rounds down: three thirds must be one.
            progress.update(task, completed=round(done, 6))

        yield count
