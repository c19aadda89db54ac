"""TensorBoard's file of a run; a disk that is full for a while is no reason to stop a training."""

import logging
import threading
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Board:
    """Writes numbers and pictures for TensorBoard, as long as that can be done.

    Args:
        folder: Of the event files.
        purge_step: What an earlier try has shown from this step on is taken back.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=purge_step)
        # Its thread keeps an error for the next call, and would print a traceback beside.
        self._hook, threading.excepthook = threading.excepthook, self._without_traceback

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add numbers to the record of a step."""
        try:
            for name, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._give_up(error)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Show a picture, (H, W, 3) uint8."""
        try:
            if self._writer is not None:
                self._writer.add_image(name, pixels, step, dataformats="HWC")
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Bring all to the disk and end."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)
        threading.excepthook = self._hook

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.warning(
            "%s: nothing more is shown in TensorBoard (%s); metrics.csv has the numbers",
            self._folder,
            error.strerror or error,
        )

    def _without_traceback(self, failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and "AsyncWriter" in repr(failed.thread)):
            self._hook(failed)
