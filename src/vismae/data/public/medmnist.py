"""MedMNIST: ``pneumoniamnist.npz``, ``pathmnist_224.npz``, ``organmnist3d_64.npz`` and so on.

Arrays ``train_images`` (N, H, W), (N, H, W, 3) or, for volumes, (N, D, H, W), and ``train_labels``
(N, 1) or (N, K); also ``val`` and ``test``. Yang et al., Scientific Data 2023;10:41. The files name
neither classes nor patients: class names are listed here, and every image or volume is a group.

Arrays are read image by image from inside the archive, so that the large ones need no memory.
"""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from vismae.core.errors import DataError
from vismae.data.labels import LABEL_SEPARATOR
from vismae.data.public.tasks import PublicTask, TaskRow

_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver"),
    *("lung-left", "lung-right", "pancreas", "spleen"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
        *("normal colon mucosa", "cancer-associated stroma"),
        "colorectal adenocarcinoma epithelium",
    ),
    "chestmnist": (
        *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule"),
        *("pneumonia", "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis"),
        *("pleural", "hernia"),
    ),
    "dermamnist": (
        *("actinic keratoses", "basal cell carcinoma", "benign keratosis", "dermatofibroma"),
        *("melanoma", "melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte"),
        *("monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("collecting duct, connecting tubule", "distal convoluted tubule"),
        *("glomerular endothelial cells", "interstitial endothelial cells", "leukocytes"),
        *("podocytes", "proximal tubule segments", "thick ascending limb"),
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}
"""Class names by data set, in the order of their numbers; others are called by number."""

_MODALITIES = {
    **dict.fromkeys(("chestmnist", "pneumoniamnist"), "xr"),
    "breastmnist": "us",
    **dict.fromkeys(("organamnist", "organcmnist", "organsmnist", "organmnist3d"), "ct"),
    # adrenalmnist3d and vesselmnist3d are outlines drawn on scans, and no scans themselves.
    **dict.fromkeys(("nodulemnist3d", "fracturemnist3d"), "ct"),
}
# What a damaged archive raises: its directory, its compressed bytes, the head of an array.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, SyntaxError, tokenize.TokenError)
# The largest volumes have 64 × 64 × 64 voxels; a header may declare anything.
_MOST_ENTRY_BYTES = 256 * 1024**2
_SPLITS = ("train", "val", "test")


def read_medmnist(path: Path) -> list[PublicTask]:
    """Return the classification task of one ``.npz``.

    Raises:
        DataError: Not such an archive, or its arrays do not fit.
    """
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive. Give one file, such as pneumoniamnist.npz.")
    name = path.stem.split("_")[0].lower()
    labels = {split: _labels(path, split) for split in _SPLITS}
    if not len(labels["train"]):
        raise DataError(f"{path}: train_labels is empty. Give a data set with training images.")
    multi_label = labels["train"].shape[1] > 1
    count = labels["train"].shape[1]
    if not multi_label:
        count = 1 + max(int(values.max()) for values in labels.values() if len(values))
    classes = CLASSES.get(name, tuple(str(number) for number in range(count)))
    if len(classes) != count:
        raise DataError(
            f"{path}: {count} classes, {name} has {len(classes)}. Give the file its own name."
        )
    with _StoredArray(path, "train_images") as array:
        colour = array.shape[-1] == 3 and len(array.shape) == 4
    return [
        PublicTask(
            "classify",
            _rows(path, labels, classes, _MODALITIES.get(name)),
            classes,
            in_channels=3 if colour else 1,
            multi_label=multi_label,
        )
    ]


def _labels(path: Path, split: str) -> np.ndarray:
    """Return the labels of a split, (N, 1) or (N, K)."""
    with _StoredArray(path, f"{split}_labels") as array:
        values = np.stack(list(array)) if array.shape[0] else np.zeros((0, 1), dtype=np.int64)
    values = values.reshape(len(values), int(np.prod(values.shape[1:])))
    if not np.issubdtype(values.dtype, np.integer) or (values < 0).any():
        raise DataError(f"{path}: {split}_labels are no class numbers ({values.dtype}).")
    return values


def _rows(
    path: Path, labels: dict[str, np.ndarray], classes: tuple[str, ...], modality: str | None
) -> Iterator[TaskRow]:
    for split in _SPLITS:
        with _StoredArray(path, f"{split}_images") as array:
            if array.shape[0] != len(labels[split]):
                raise DataError(
                    f"{path}: {array.shape[0]} {split}_images, {len(labels[split])} labels."
                )
            volumes = len(array.shape) == 4 and array.shape[-1] != 3
            for number, pixels in enumerate(array):
                key = f"{split}-{number:06d}"
                # Every file counts from 0: the number alone would mean an image of each.
                group = f"{path.stem}-{key}"
                label = _names(labels[split][number], classes)
                slices = pixels if volumes else pixels[None]
                for place, image in enumerate(slices):
                    yield TaskRow(
                        (f"{key}-{place:03d}.png" if volumes else f"{key}.png", image),
                        label=label,
                        group_id=group,
                        volume_id=group if volumes else None,
                        slice_index=place if volumes else None,
                        split=split,
                        modality=modality,
                    )


def _names(numbers: np.ndarray, classes: tuple[str, ...]) -> str:
    if len(numbers) == 1:
        return classes[int(numbers[0])]
    return LABEL_SEPARATOR.join(classes[place] for place in np.flatnonzero(numbers))


class _StoredArray:
    """An array inside the archive, gone through along its first axis without loading it.

    Attributes:
        shape: Of the whole array.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._where = f"{path}: {name}"
        self._archive = zipfile.ZipFile(path)
        try:
            self._file: IO[bytes] = self._archive.open(f"{name}.npy")
            self.shape, fortran, self._dtype = _header(self._file)
        except (KeyError, ValueError, *_DAMAGE) as error:
            self._archive.close()
            raise DataError(
                f"{self._where} cannot be read ({error}). Expected the arrays train_images, "
                "train_labels, and the same of val and test."
            ) from error
        if fortran or self._dtype.hasobject or not self.shape:
            self._archive.close()
            raise DataError(
                f"{self._where} is stored as {self._dtype}{' by columns' if fortran else ''}; "
                "expected an array of numbers by rows. Objects are never loaded."
            )
        self._entry_bytes = prod(self.shape[1:]) * self._dtype.itemsize
        if min(self.shape[1:], default=1) < 1 or self._entry_bytes > _MOST_ENTRY_BYTES:
            self._archive.close()
            raise DataError(
                f"{self._where} has the shape {self.shape}; expected entries of at least one and "
                f"at most {_MOST_ENTRY_BYTES} bytes."
            )

    def __enter__(self) -> "_StoredArray":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._archive.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.shape[0]):
            try:
                data = self._file.read(self._entry_bytes)
            except _DAMAGE as error:
                raise DataError(
                    f"{self._where} is damaged ({error}). Fetch the archive again."
                ) from error
            if len(data) != self._entry_bytes:
                raise DataError(f"{self._where} ends after {number} of {self.shape[0]} entries.")
            yield np.frombuffer(data, self._dtype).reshape(self.shape[1:])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order and type at the beginning of an ``.npy``."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the npy format")
