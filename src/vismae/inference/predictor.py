"""A model answers: label maps in an image's own size, class probabilities.

A plain torch loop; nothing of Lightning. Images come from a store, prepared by the contract.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vismae.core.errors import SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.data.geometry import unfit_logits
from vismae.data.loaders import LabelledImages, evaluation_loader
from vismae.data.store import Store
from vismae.models.arithmetic import resolve_precision


def choose_device(name: str) -> torch.device:
    """Return the device of a setting; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        SettingError: The device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in available.items() if there), "cpu"))
    if not available.get(name, name == "cpu"):
        raise SettingError(
            f"The device {name} was asked for, but torch finds none here. Use auto or cpu, or "
            "install a torch build for it."
        )
    return torch.device(name)


class Predictor:
    """A segmenter or classifier with its preprocessing contract.

    Args:
        model: Gives logits (B, K, H, W) or (B, K).
        preprocessing: The contract the model was trained under.
        batch_size: Images at a time.
        workers: Loader processes.
        precision: Arithmetic of the forward pass; logits are float32.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        batch_size: int = 16,
        workers: int = 0,
        precision: Literal["auto", "fp32", "bf16"] = "fp32",
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.workers = workers
        self.precision: Literal["auto", "fp32", "bf16"] = precision

    def label_maps(self, store: Store, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row number and predicted classes, (h, w) int64 in the image's own size."""
        sizes = store.columns(["height", "width"]).to_numpy()
        for row_numbers, logits in self._logits(store, rows):
            for row, image_logits in zip(row_numbers, logits, strict=True):
                native = (int(sizes[row][0]), int(sizes[row][1]))
                scores = unfit_logits(image_logits, native, self.preprocessing.fit)
                # A tenth of the time of argmax on a CPU.
                yield row, scores.max(dim=0).indices.cpu().numpy()

    def probabilities(
        self, store: Store, rows: np.ndarray, multi_label: bool = False
    ) -> np.ndarray:
        """Return class probabilities of each row, (N, K): of one class, or of each class."""
        parts = [
            (logits.sigmoid() if multi_label else logits.softmax(dim=1)).cpu().numpy()
            for _, logits in self._logits(store, rows)
        ]
        return np.concatenate(parts)

    def _logits(self, store: Store, rows: np.ndarray) -> Iterator[tuple[list[int], Tensor]]:
        """Yield batches of row numbers and logits, float32, in the order of ``rows``."""
        images = LabelledImages(store, self.preprocessing)
        device = next(self.model.parameters()).device
        in_bf16 = resolve_precision(self.precision, device.type) == "bf16"
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in evaluation_loader(images, rows, self.batch_size, self.workers):
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, torch.bfloat16, enabled=in_bf16),
                ):
                    logits = self.model(batch["image"].to(device)).float()
                yield [int(row) for row in batch["row"]], logits
        finally:
            self.model.train(was_training)
