"""A folder as nnU-Net (version 2) and the Medical Segmentation Decathlon want it.

``dataset.json``, ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``, perhaps ``imagesTs`` with
``labelsTs``; the Decathlon has all channels of a case in one file of four dimensions, and a colour
image (PNG, BMP, TIFF) its three in one file of the number 0000.
``splits_final.json`` beside it gives the folds of a published cross-validation. Whose
case it is the folder does not say, so a case is a group of images and no patient.
Isensee et al., Nature Methods 2021;18:203-211.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vismae.core.errors import DataError
from vismae.data.dataset_json import DATASET_JSON, DatasetFacts, read_dataset_json
from vismae.data.labels import refuse_not_annotated
from vismae.data.manifest import SEQUENCE_COLUMN
from vismae.data.pairing import PairedImage, find_pairs
from vismae.data.pairing_names import channel_of, stem_of
from vismae.data.public.tasks import PublicTask, TaskRow, require_file

SPLITS = "splits_final.json"
_RASTER = (".png", ".bmp", ".tif", ".tiff")


def read_nnunet(
    root: Path, fold: int | None = None, channel: int | str | None = None
) -> list[PublicTask]:
    """Return the segmentation task.

    Args:
        root: The folder with ``dataset.json``.
        fold: Fold of ``splits_final.json`` that validates, counted from 0 as nnU-Net does; None
            leaves train and val to be divided.
        channel: Which of several channels (sequences) becomes the image, by number or name; None
            takes all, as sequences that are seen together.

    Raises:
        DataError: The folder does not fit; says why.
    """
    table = _json(require_file(root / DATASET_JSON, "the description of the data set"), dict)
    labels = table.get("labels", {})
    if not isinstance(labels, dict):
        raise DataError(f"{root / DATASET_JSON}: labels is no table of names and values.")
    facts = read_dataset_json(root)
    if facts.unclear:
        found = "; ".join(f"'{name}' is {why}" for name, why in facts.unclear.items())
        raise DataError(
            f"{root / DATASET_JSON}: labels that stand for no single value of the label maps: "
            f'{found}. List each value as a class of its own, such as "labels": {{"background": 0, '
            '"liver": 1}; regions (unions of classes) are not trained on.'
        )
    refuse_not_annotated(facts.class_names, str(root / DATASET_JSON))
    pairing = find_pairs(root)
    if pairing is None:
        raise DataError(f"{root}: imagesTr and labelsTr hold no pair of the same name.")
    splits = None if fold is None else _fold(root, fold)
    numbers = sorted(facts.class_names)
    values = {0: 0, **{value: place for place, value in enumerate(numbers, start=1)}}
    in_colour = channel is None and _in_colour(pairing.images, facts)
    wanted = {0: "RGB"} if in_colour else _channels(root, pairing.images, facts, channel)
    together = len(wanted) > 1
    rows = tuple(_rows(pairing.images, facts, splits, wanted))
    seen = {row.more.get(SEQUENCE_COLUMN) for row in rows}
    for number, name in wanted.items():
        if not rows or (together and name not in seen):
            raise DataError(
                f"{root}: no image of channel {number} ({name}) has a label map. "
                + ("Choose one of the channels with --channel." if together else "Check --channel.")
            )
    names = tuple(facts.class_names[value] for value in numbers)
    sequences = tuple(wanted.values()) if together else ()
    return [
        PublicTask(
            "segment",
            rows,
            names,
            values if numbers else None,
            in_channels=3 if in_colour else 1,
            sequences=sequences,
        )
    ]


def _in_colour(images: list[PairedImage], facts: DatasetFacts) -> bool:
    """Tell whether every file holds three channels: those of a colour image are named singly."""
    labelled = [found for found in images if found.label_map is not None]
    return len(facts.channels) == 3 and all(
        _case_of(found)[1] == 0 and found.image.suffix.lower() in _RASTER for found in labelled
    )


def _channels(
    root: Path, images: list[PairedImage], facts: DatasetFacts, wanted: int | str | None
) -> dict[int, str]:
    """Return number and name of the channels to take, in order."""
    if wanted is not None:
        number = facts.number_of(wanted, str(root / DATASET_JSON))
        return {number: facts.channels.get(number, str(number))}
    numbers = {_case_of(found)[1] or 0 for found in images if found.label_map is not None}
    named = facts.channels or {number: f"channel_{number}" for number in numbers or {0}}
    unknown = sorted(numbers - set(named))
    if unknown:
        listed = ", ".join(f"{number} {name}" for number, name in sorted(named.items()))
        raise DataError(
            f"{root / DATASET_JSON}: names the channels {listed}, but imagesTr also has files of "
            f"number {', '.join(map(str, unknown))}. Name them too, or take one with --channel."
        )
    words = [name.casefold() for name in named.values()]
    # Names say how nnU-Net scales a channel, so two may have the same.
    return {
        number: f"{name}_{number}" if words.count(name.casefold()) > 1 or not name else name
        for number, name in sorted(named.items())
    }


def _rows(
    images: list[PairedImage],
    facts: DatasetFacts,
    splits: dict[str, str] | None,
    channels: dict[int, str],
) -> Iterator[TaskRow]:
    tested = any(found.split == "test" and found.label_map is not None for found in images)
    for found in images:
        if found.label_map is None:
            continue
        case, number = _case_of(found)
        split = found.split
        if split != "test":
            split = "train" if tested else None
            if splits is not None:
                split = splits.get(case)
                if split is None:
                    continue
        # The Decathlon's way: no channel in the name, since the file holds all of them.
        holds_all = number is None and len(facts.channels) > 1
        for channel, name in channels.items():
            if not holds_all and (number or 0) != channel:
                continue
            yield TaskRow(
                found.image,
                found.label_map,
                group_id=case,
                channel=channel if holds_all else None,
                split=split,
                modality=facts.modality(channel),
                more={SEQUENCE_COLUMN: name} if len(channels) > 1 else {},
            )


def _case_of(found: PairedImage) -> tuple[str, int | None]:
    """Return the case of an image, and its channel if the name says one."""
    stem = stem_of(found.image.name) or found.image.name
    # Where "word_0002" has a label map of its own name the number is no channel.
    own_name = found.label_map is not None and stem_of(found.label_map.name) == stem
    return (None if own_name else channel_of(stem)) or (stem, None)


def _fold(root: Path, fold: int) -> dict[str, str]:
    """Return case -> train or val."""
    path = require_file(root / SPLITS, "the list of folds that --fold asks for")
    folds = _json(path, list)
    if not 0 <= fold < len(folds):
        raise DataError(f"{path}: fold {fold} of {len(folds)}, counted from 0. Choose another.")
    if not isinstance(folds[fold], dict):
        raise DataError(f"{path}: fold {fold} is no table of train and val. Copy the file again.")
    return {str(case): split for split in ("train", "val") for case in folds[fold].get(split, ())}


def _json(path: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, kind):
            raise ValueError(f"not a {kind.__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON that can be read ({error}).") from error
    return found
