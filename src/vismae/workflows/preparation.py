"""What training commands do before they train: the start model and the preprocessing contract."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vismae.core.errors import DataError, ModelError, SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import PreprocessingSettings
from vismae.core.types import Modality, PixelUnit
from vismae.data.manifest import SEQUENCE_COLUMN
from vismae.data.sources import Task
from vismae.data.store import Store
from vismae.data.store_files import is_remote
from vismae.models.backbone import SwinConfig, config_for_size
from vismae.models.foreign import ForeignAccount
from vismae.models.reference import load_checkpoint
from vismae.models.weights import Model, network_of
from vismae.workflows.ingest import open_or_ingest

DEFAULT_IMAGE_SIZE = (224, 224)


def open_images(
    sources: Sequence[Path],
    into: Path,
    task: Task | None = None,
    fold: int | None = None,
    sequences: Sequence[str] = (),
) -> Store:
    """Return the store that ``sources`` is, or one made from them in ``into``.

    Of processes that train together the first one does so before the others.

    Args:
        sources: Of images.
        into: Folder for a store made on the way.
        task, fold: As for ``open_or_ingest``.
        sequences: That are seen together; the store must say which an image is.

    Raises:
        DataError: As for ``open_or_ingest``.
    """
    if len(sources) == 1 and is_remote(sources[0]):
        return Store(sources[0])
    kept = (SEQUENCE_COLUMN,) if sequences else ()
    return open_or_ingest(sources, into, task=task, fold=fold, keep_column=kept)


def load_start(init: Path | None) -> tuple[Model | None, Preprocessing | None]:
    """Load the model that training starts from and the contract it was trained under."""
    if init is None:
        return None, None
    start = load_checkpoint(init)
    return start, start.preprocessing


def network_config(start: Model | None, size: str, **changes: Any) -> SwinConfig:
    """Return the network to build: the start model's own, or a named size.

    Args:
        start: Model whose weights will be moved in.
        size: Name of the size when there is none.
        changes: Fields that the run decides itself.

    Raises:
        SettingError: The size is unknown.
        ModelError: The start model is no Swin network.
    """
    if start is None:
        return config_for_size(size, **changes)
    if not isinstance(start.config, SwinConfig):
        raise ModelError(
            f"The start model is a {network_of(start)}, which has no Swin encoder. Start from a "
            "model of vismae or from Swin weights."
        )
    return SwinConfig.from_dict({**start.config.to_dict(), **changes})


def resolve_preprocessing(
    wishes: PreprocessingSettings,
    image_size: tuple[int, int] | None,
    in_channels: int | None,
    start: Preprocessing | None,
    neighbours: int | None = None,
    source: Model | None = None,
    sequences: tuple[str, ...] | None = None,
) -> Preprocessing:
    """Return the contract of a run: the start model's, or ours with the user's wishes.

    Args:
        wishes: The user's.
        image_size, in_channels: The same; None leaves them open.
        start: The start model's contract.
        neighbours: As in the contract.
        source: The start model. Weights of another project have no contract, but images are
            normalised as in its training unless the user wishes otherwise.
        sequences: As in the contract; None leaves them as they are.

    Raises:
        PreprocessingError: A wish contradicts the start model; names the field.
        SettingError: Neighbouring slices are asked for with colour.
    """
    base = start or _without_contract(source)
    given = wishes.model_dump(exclude_none=True)
    if image_size is not None:
        given["image_size"] = image_size
    if in_channels is not None and start is None:
        given["in_channels"] = in_channels
    wanted = base.model_copy(update=given)
    if start is not None:
        start.require_same(wanted, "the configuration")
    # A network for another number of channels is a matter of its stem, which transfer adapts.
    if in_channels is not None:
        wanted = wanted.model_copy(update={"in_channels": in_channels})
    if neighbours is not None:
        wanted = wanted.model_copy(update={"neighbours": neighbours})
    if sequences is not None:
        wanted = wanted.model_copy(update={"sequences": sequences})
    if wanted.neighbours and wanted.in_channels != 1:
        raise SettingError(
            f"model.neighbours is {wanted.neighbours}, which is for grey images, but "
            f"model.in_channels is {wanted.in_channels}. Set one of them to 0 or 1."
        )
    return wanted


def _without_contract(source: Model | None) -> Preprocessing:
    ours = Preprocessing(image_size=DEFAULT_IMAGE_SIZE, in_channels=1)
    origin = getattr(source, "origin", None)
    if not isinstance(origin, ForeignAccount):
        return ours
    mean, std = origin.normalisation
    return ours.model_copy(update={"mean": mean, "std": std})


def with_units(
    preprocessing: Preprocessing, index: pd.DataFrame, where: str
) -> tuple[Preprocessing, tuple[Modality, ...]]:
    """Check the data's pixel units against the contract, and add those it did not know.

    Returns:
        The contract with the units of the data, and the modalities of the data.

    Raises:
        PreprocessingError: A physical unit contradicts the contract.
    """
    pairs = index[["modality", "unit"]].drop_duplicates().itertuples(index=False)
    found = [(Modality(modality), PixelUnit(unit)) for modality, unit in pairs]
    preprocessing.require_units(found, where)
    units = {modality: set(known) for modality, known in preprocessing.pixel_units.items()}
    for modality, unit in found:
        units.setdefault(modality, set()).add(unit)
    merged = {modality: tuple(sorted(units[modality])) for modality in sorted(units)}
    return (
        preprocessing.model_copy(update={"pixel_units": merged}),
        tuple(sorted({modality for modality, _ in found})),
    )


def of_modality(index: pd.DataFrame, wanted: tuple[Modality, ...], where: str) -> pd.DataFrame:
    """Return the rows of the wanted modalities (all when none is named).

    Raises:
        DataError: No row is left; names what is there.
    """
    if not wanted:
        return index
    chosen = index[index["modality"].isin([modality.value for modality in wanted])]
    if chosen.empty:
        found = index["modality"].value_counts()
        raise DataError(
            f"{where} holds no image of modality {', '.join(wanted)}; it holds "
            + ", ".join(f"{count} {name}" for name, count in found.items())
            + ". Change data.modality, or ingest with --modality for files that do not say."
        )
    return chosen
