"""A model folder as a scikit-learn transformer: paths of images in, rows of numbers out."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from vismae.core.config import Device
from vismae.core.errors import DataError
from vismae.core.types import Flag
from vismae.inference.embedder import embed_slices
from vismae.inference.ensemble import Ensemble, Precision, load_ensemble
from vismae.inference.predictor import choose_device
from vismae.inference.slices import Slice
from vismae.inference.unanswered import require_answers
from vismae.models.features import require_features
from vismae.models.weights import Model
from vismae.workflows.prediction.inputs import find_inputs
from vismae.workflows.prediction.reading import prepared_slices, read_input

_KEEP = frozenset({Flag.BURNED_IN})


class ImageFeatures(TransformerMixin, BaseEstimator):
    """Features of image files, as a step of a scikit-learn pipeline.

    Nothing is learnt in ``fit``. Every path is one image file, or one folder or archive that holds
    one DICOM series; several slices become the mean of their features.

    Args:
        model: Model folder.
        modality: Modality of files that do not say.
        batch_size: Slices at a time.
        device: Where to compute.
        precision: Arithmetic of the network.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        modality: str | None = None,
        batch_size: int = 16,
        device: Device = "auto",
        precision: Precision = "fp32",
    ) -> None:
        self.model = model
        self.modality = modality
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def fit(self, paths: Iterable[str | PathLike[str]], y: Any = None) -> "ImageFeatures":
        """Do nothing but check the model folder.

        Raises:
            ModelError: The folder holds no model, or one without an encoder.
        """
        self._load()
        return self

    def transform(self, paths: Iterable[str | PathLike[str]]) -> np.ndarray:
        """Return one row for each path, (N, C) float32.

        Raises:
            UnreadableFileError: A file cannot be read.
            PreprocessingError: The model was not made for it.
            DataError: A path holds no image, or several that do not belong together.
            ModelError: Features are not finite, or memory ran out for an image.
        """
        ensemble = self._load()
        paths = [Path(path) for path in paths]
        sums: dict[int, np.ndarray] = {}
        counts = np.zeros(len(paths), int)
        stream = (
            Slice(number, image)
            for number, path in enumerate(paths)
            for image in self._images(path, ensemble)
        )
        for number, vector in require_answers(embed_slices(ensemble, stream, self.batch_size)):
            sums[number] = sums.get(number, np.zeros_like(vector)) + vector
            counts[number] += 1
        if not paths:
            raise DataError("There are no paths to compute features of.")
        return np.stack([sums[number] / counts[number] for number in range(len(paths))])

    def _images(self, path: Path, ensemble: Ensemble) -> Iterable[Any]:
        inputs, failures = find_inputs([path])
        if len(inputs) != 1:
            why = failures[0].message if failures else f"it holds {len(inputs)} images or series"
            raise DataError(f"{path} is not one image: {why} Give one path for each image.")
        read = read_input(inputs[0], ensemble.cards, self.modality, _KEEP)
        return (item.image for item in prepared_slices(read, ensemble.preprocessing))

    def _load(self) -> Ensemble:
        # Kept under a name that clone and get_params do not see; other parameters load it anew.
        wanted = (str(self.model), str(self.device), str(self.precision))
        if getattr(self, "_loaded_as", None) != wanted:
            ensemble = load_ensemble(
                [Path(self.model)],
                choose_device(self.device),
                precision=cast(Precision, self.precision),
            )
            require_features(cast(Model, ensemble.models[0]))
            ensemble.preprocessing.refuse_sequences(
                str(self.model), "Use the model it was started from."
            )
            self._ensemble, self._loaded_as = ensemble, wanted
        return self._ensemble

    def __sklearn_is_fitted__(self) -> bool:
        return True
