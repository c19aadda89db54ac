"""Resume points as plain files, written into their own folder and nowhere else.

Lightning writes a checkpoint into the system's temporary folder first. That is often small, or part
of the memory, and keeps a copy of everything that was being written when a process was killed.
"""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO


class ResumeFile(CheckpointIO):
    """Writes and reads resume points by path; not atomic, which is left to ``ResumePoint``."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write a file that is on the disk when this returns; its folder is made if missing.

        Raises:
            OSError: It cannot be written, as on a full disk.
        """
        # Not straight into the file: torch makes a RuntimeError of a full disk.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a file; tensors come on the CPU, and nothing that is pickled is run."""
        return torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a file, if it is there."""
        Path(path).unlink(missing_ok=True)
