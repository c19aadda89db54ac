"""Looking at the features now and then while pre-training runs: do they collapse, do they tell?

Nothing here touches the state of training: the choice of images is made once from the seed, no
global random numbers are drawn, and the encoder gets back the mode it had.
"""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vismae.core.errors import DamagedImageError
from vismae.core.preprocessing import Preprocessing
from vismae.data.geometry import fit_image, fitted_size
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.models.backbone import SwinEncoder
from vismae.training.features import effective_rank, features_of
from vismae.training.metrics_log import MetricsLog
from vismae.training.probes import LabelledHalves, knn_accuracy, linear_accuracy
from vismae.training.time_share import TimeShare

logger = logging.getLogger(__name__)

_BATCH_SIZE = 16
_RESERVE = 1.5  # looks differ in time, and the first batch alone tells little of a whole one


class Monitor:
    """An action between steps: effective rank, and with labels nearest neighbours and a probe.

    A look that does not fit into the share of time left for it is put off to a later turn.

    Args:
        encoder: The encoder that learns.
        store: Where the images are.
        preprocessing: The contract of the run.
        rows: Rows to look at, (N,), without labels; or rows with labels.
        share: The time that is left for this.
    """

    def __init__(
        self,
        encoder: SwinEncoder,
        store: Store,
        preprocessing: Preprocessing,
        rows: np.ndarray | LabelledHalves,
        share: TimeShare,
    ) -> None:
        self._encoder = encoder
        self._reader = SliceReader(store, preprocessing)
        self._halves = rows if isinstance(rows, LabelledHalves) else None
        self._rows = rows.rows if isinstance(rows, LabelledHalves) else rows
        self._share = share
        # Those that can be read; found out at the first look.
        self._whole = np.ones(len(self._rows), bool)
        self._expected_seconds: float | None = None
        self._told = False

    def __call__(self, step: int, log: MetricsLog) -> None:
        """Look at the features and write what is found, if there is time for it."""
        device = next(self._encoder.parameters()).device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what training still has to do is not our time
        with self._share.timed():
            found = self._look()
        if found is None:
            if not self._told:
                self._told = True
                logger.info(
                    "looking at the features takes about %.1f s, more than %.1f %% of the time so "
                    "far: put off",
                    self._expected_seconds,
                    100 * self._share.most,
                )
            return
        log.write(step, {**found, "monitor_time_share": self._share.share})
        logger.info(
            "step %d: %s",
            step,
            ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items()),
        )

    def _look(self) -> dict[str, float] | None:
        """Return what the features tell; None if there is no time for it."""
        if self._expected_seconds is not None and not self._fits(self._expected_seconds):
            return None
        begin = time.perf_counter()
        parts: list[np.ndarray] = []
        for features in features_of(self._encoder, self._batches()):
            parts.append(features)
            if self._expected_seconds is None:
                batches = -(-int(self._whole.sum()) // _BATCH_SIZE)
                self._expected_seconds = batches * (time.perf_counter() - begin)
                if batches > 1 and not self._fits(self._expected_seconds):
                    return None
        if not parts:
            return {"effective_rank": float("nan")}
        found = self._measure(np.concatenate(parts))
        self._expected_seconds = time.perf_counter() - begin
        return found

    def _fits(self, seconds: float) -> bool:
        return self._share.fits(_RESERVE * seconds)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole images, normalised, (B, C, H, W), and what they cover of that, (B, 2)."""
        contract = self._reader.preprocessing
        images: list[Tensor] = []
        extents: list[tuple[int, int]] = []
        for place in np.flatnonzero(self._whole):
            try:
                image, _ = self._reader.read_input(int(self._rows[place]))
            except DamagedImageError as error:
                logger.warning("left out of all looks at the features: %s", error)
                self._whole[place] = False
                continue
            size = (image.shape[1], image.shape[2])
            extents.append(fitted_size(size, contract.image_size, contract.fit))
            images.append(self._reader.normalise(fit_image(image, contract)))
            if len(images) == _BATCH_SIZE:
                yield torch.stack(images), torch.tensor(extents)
                images, extents = [], []
        if images:
            yield torch.stack(images), torch.tensor(extents)

    def _measure(self, features: np.ndarray) -> dict[str, float]:
        found = {"effective_rank": effective_rank(features)}
        if self._halves is None or not np.isfinite(features).all():
            return found
        learns, judges = np.split(self._whole, [len(self._halves.learn_rows)])
        known, unknown = np.split(features, [int(learns.sum())])
        classes = self._halves.learn_classes[learns], self._halves.judge_classes[judges]
        if len(np.unique(classes[0])) < 2 or not len(unknown):
            return found
        return {
            **found,
            "knn_balanced_accuracy": knn_accuracy(known, classes[0], unknown, classes[1]),
            "linear_balanced_accuracy": linear_accuracy(known, classes[0], unknown, classes[1]),
            "judged_images": float(len(unknown)),
        }
