"""The weights with the best validation score so far, kept on disk so that a kill loses nothing."""

import io
import math
from pathlib import Path

import torch
from torch import nn

from vismae.core.rundir import write_bytes


class BestModel:
    """Keeps the best weights of a run in one file.

    Args:
        path: ``best.pt``; what an earlier part of the run left there is taken up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.step = 0
        self.value = float("nan")
        if path.is_file():
            kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            self.step, self.value = int(kept["step"]), float(kept["value"])

    def offer(self, step: int, value: float, model: nn.Module) -> None:
        """Keep the weights if they are better than what is kept.

        Without a validation score (NaN) the latest weights are kept. After a resume the same step
        gives the same score, so what was kept from beyond the resume point stays right.

        Raises:
            OSError: It cannot be written, as on a full disk; names the file, which stays as it was.
        """
        scoreless = math.isnan(value) and math.isnan(self.value)
        if not (scoreless or value > self.value or (math.isnan(self.value) and value == value)):
            return
        self.step, self.value = step, value
        # Not straight into the file: torch makes a RuntimeError of a full disk.
        content = io.BytesIO()
        torch.save({"step": step, "value": value, "model": model.state_dict()}, content)
        write_bytes(self._path, content.getbuffer())

    def load_into(self, model: nn.Module) -> None:
        """Put the kept weights into a model; does nothing where none were kept."""
        if self._path.is_file():
            kept = torch.load(self._path, map_location="cpu", weights_only=True)
            model.load_state_dict(kept["model"])
