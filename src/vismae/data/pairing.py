"""Folders in which images and their label maps lie in a known order.

* twin folders: ``imagesTr`` and ``labelsTr`` (also Val, Ts) as in the Medical Segmentation
  Decathlon and nnU-Net; ``images`` beside one of ``labels``, ``masks``, ``annotations``,
  ``segmentations``, ``label_maps``;
* ``labels`` (``masks`` ...) beside the images themselves, with label maps of their names, also in
  ``labels/final`` as of MONAI Label; or beside the one image of a case's folder, with one file for
  each structure, as of TotalSegmentator;
* neighbours: ``X.nii.gz`` and ``X_seg.nii.gz``, or in a folder of one case ``imaging.nii.gz`` and
  ``segmentation.nii.gz``;
* ``derivatives`` of the Brain Imaging Data Structure (BIDS): ``_dseg`` belongs to the only image
  with the same entities; other derivatives are passed over.

Names decide (``pairing_names``); of all files only ``dataset.json`` is opened.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vismae.data.dataset_json import DATASET_JSON, DatasetFacts, read_dataset_json
from vismae.data.labels import NOT_ANNOTATED, join_class_names
from vismae.data.manifest import SPLIT_WORDS
from vismae.data.pairing_names import (
    channel_of,
    entities_of,
    match_neighbours,
    match_twins,
    stem_of,
)

logger = logging.getLogger(__name__)

_SPLIT_TWINS = {"tr": "train", "val": "val", "ts": "test"}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_LABEL_FOLDERS = (
    *("labels", "label", "masks", "mask", "annotations", "segmentations", "segmentation"),
    *("label_maps", "labelmaps"),
)
_DERIVATIVES = "derivatives"
_FINAL = "final"
# Beside pairs, what may hold images though its name says nothing of label maps.
_OTHER_IMAGES = {".dcm", ".dicom", ".ima", ".zip", ""}
_TEXTS = {"readme", "license", "licence", "changes", "citation", "version", "dicomdir"}


@dataclass(frozen=True)
class PairedImage:
    """An image with its label map if it has one, or a folder of images without any.

    Attributes:
        image, label_map: Where they are; the label map may be a folder of structures.
        split: ``train``, ``val`` or ``test`` if the name of a folder says so.
        modality: Word of ``dataset.json``, or None.
        group: Name shared by images of one case or subject; None leaves each its own.
        group_kind: ``patient`` or ``group`` where there is a group.
    """

    image: Path
    label_map: Path | None = None
    split: str | None = None
    modality: str | None = None
    group: str | None = None
    group_kind: str | None = None


@dataclass
class Pairing:
    """What a folder holds.

    Attributes:
        images: The images in folders with pairs, those without a label map included.
        unpaired: Label maps that belong to no image, or to none for certain.
        rest: Folders without any pair, and single files of other kinds that may be images.
        class_names: Value -> name, background left out; empty if not known. Where tables differ,
            only values that one of them calls ``NOT_ANNOTATED``.
        channels: Names of the channels of a case, where a ``dataset.json`` says several.
    """

    images: list[PairedImage] = field(default_factory=list)
    unpaired: list[Path] = field(default_factory=list)
    rest: list[PairedImage] = field(default_factory=list)
    class_names: dict[int, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @property
    def pairs(self) -> int:
        """Number of images with a label map."""
        return sum(image.label_map is not None for image in self.images)


def find_pairs(root: Path) -> Pairing | None:
    """Return the images and label maps of a folder, or None if it holds no pair.

    Folders without pairs leave nothing in memory but their own name. What was paired, and what
    was not, is logged.
    """
    search = _Search(root)
    found = search.visit(root, frozenset())
    if not found.pairs:
        return None
    found.unpaired += [path for paths in search.derived.values() for path in paths]
    found.unpaired.sort()
    found.channels = search.channels
    tables = [names for names in search.class_tables if names]
    if all(names == tables[0] for names in tables):
        found.class_names = tables[0] if tables else {}
    else:
        logger.info("%s: its files dataset.json name classes differently; none is taken", root)
        joined = join_class_names(tables)
        found.class_names = {v: name for v, name in joined.items() if name == NOT_ANNOTATED}
    logger.info(
        "%s: %d of %d images paired with label maps by folder and name, %d label maps left alone",
        root,
        found.pairs,
        len(found.images),
        len(found.unpaired),
    )
    return found


class _Search:
    """One walk through a folder.

    Attributes:
        derived: BIDS label maps not yet paired, by the folder and entities of their image.
        class_tables: Class names of every ``dataset.json`` met.
        channels: Names of the channels of the first one that has several.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.derived = _bids_label_maps(root)
        self._bids = bool(self.derived)
        self.class_tables: list[dict[int, str]] = []
        self.channels: tuple[str, ...] = ()

    def visit(self, folder: Path, above: frozenset[tuple[int, int]]) -> Pairing:
        """Return what a folder holds; itself as ``rest`` if it holds no pair."""
        try:
            status = folder.stat()
            folders, files = _listing(folder)
        except OSError:
            return Pairing(rest=[self._lone(folder)])  # whoever reads it will say why
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return Pairing()
        found = Pairing()
        facts = DatasetFacts()
        twins = list(_twins(folder, folders))
        if twins:
            facts = read_dataset_json(folder)
        taken = {name for images, labels, _ in twins for name in (images, labels) if name}
        for images, labels, split in twins:
            label_folder = folder / labels if labels else None
            self._add_twins(found, folder / images, label_folder, split, facts)
        if found.pairs:
            self.class_tables.append(facts.class_names)
            if facts.unclear:
                logger.warning(
                    "%s: labels that stand for no single value give no names: %s",
                    folder / DATASET_JSON,
                    ", ".join(f"'{name}' is {why}" for name, why in facts.unclear.items()),
                )
            if len(facts.channels) > 1:
                self.channels = self.channels or tuple(facts.channels.values())
        beside = [name for name in folders if name.lower() in _LABEL_FOLDERS and name not in taken]
        if not twins and len(beside) == 1:
            with_labels = self._add_labels_below(found, folder, files, folder / beside[0])
            taken.update(beside if with_labels else ())
            files = [name for name in files if name not in with_labels]
        for name in sorted(taken):
            found.rest += [self._lone(path) for path in _others_below(folder / name)]
        self._add_neighbours(found, folder, files)
        if folder == self._root and self._bids:
            taken.add(_DERIVATIVES)
            logger.info("%s: of derivatives only the label maps (_dseg) are used", folder)
        for name in folders:
            if name not in taken:
                inner = self.visit(folder / name, above | {identity})
                found.images += inner.images
                found.unpaired += inner.unpaired
                found.rest += inner.rest
        return found if found.pairs else Pairing(rest=[self._lone(folder)])

    def _add_twins(
        self,
        found: Pairing,
        image_folder: Path,
        label_folder: Path | None,
        split: str | None,
        facts: DatasetFacts,
    ) -> None:
        images = _by_stem(_files_below(image_folder))
        label_maps = {} if label_folder is None else _by_stem(_files_below(label_folder))
        clear = [stem for stem, paths in label_maps.items() if len(paths) == 1]
        pairs, alone = match_twins(images, clear)
        for stem, paths in images.items():
            label_map = pairs.get(stem)
            # Where "img_0001" has a label map of its own name the number is no channel.
            channel = channel_of(stem) if label_map != stem and (split or label_map) else None
            case = image_folder.relative_to(self._root) / channel[0] if channel else None
            for path in paths:
                found.images.append(
                    PairedImage(
                        path,
                        None if label_map is None else label_maps[label_map][0],
                        split or self._split(path),
                        facts.modality(channel[1] if channel else None),
                        None if case is None else case.as_posix(),
                        None if case is None else "group",
                    )
                )
        for stem, paths in label_maps.items():
            if stem in alone or len(paths) > 1:
                found.unpaired += paths

    def _add_labels_below(
        self, found: Pairing, folder: Path, files: list[str], labels: Path
    ) -> set[str]:
        """Pair images of a folder with what a folder in it holds; returns the images' names."""
        images = {stem: name for name in files if (stem := stem_of(name)) is not None}
        everything = [path for _, path in _files_below(labels)]
        here = [path for path in everything if path.parent == labels]
        final = here or [path for path in everything if path.parent == labels / _FINAL]
        label_maps = _by_stem((stem_of(path.name), path) for path in final)
        clear = [stem for stem, paths in label_maps.items() if len(paths) == 1]
        pairs, _ = match_twins(images, clear)
        places = {image: label_maps[label_map][0] for image, label_map in pairs.items()}
        used = set(places.values())
        # Their number alone says so little of pictures that one of them may be an image too.
        volumes = all(map(_is_volume, [*images.values(), *(path.name for path in final)]))
        if not pairs and len(images) == 1 and final and volumes:
            if len(final) == 1:
                places, used = dict.fromkeys(images, final[0]), {final[0]}
            else:
                logger.info("%s: each of its %d files is a structure", labels, len(final))
                places, used = dict.fromkeys(images, final[0].parent), set(final)
        for image, place in places.items():
            path = folder / images[image]
            group, kind = self._group(path, None)
            found.images.append(PairedImage(path, place, self._split(path), None, group, kind))
        if places:
            found.unpaired += [path for path in everything if path not in used]
        return {images[image] for image in places}

    def _add_neighbours(self, found: Pairing, folder: Path, files: list[str]) -> None:
        by_stem = _by_stem((stem_of(name), folder / name) for name in files)
        pairs, cases, alone = match_neighbours(by_stem)
        twice = {name for name in pairs.values() if len(by_stem[name]) > 1}
        alone += twice
        pairs = {image: name for image, name in pairs.items() if name not in twice}
        places = {image: by_stem[label_map][0] for image, label_map in pairs.items()}
        hidden = {*pairs.values(), *alone}
        places |= self._bids_places(folder, [stem for stem in by_stem if stem not in hidden])
        for name in files:
            path, stem = folder / name, stem_of(name)
            if stem is None:
                if _may_be_an_image(path):
                    found.rest.append(self._lone(path))
            elif stem in alone:
                found.unpaired.append(path)
            elif stem not in hidden:
                group, kind = self._group(path, cases.get(stem))
                label_map = places.get(stem)
                found.images.append(
                    PairedImage(path, label_map, self._split(path), None, group, kind)
                )

    def _bids_places(self, folder: Path, stems: list[str]) -> dict[str, Path]:
        """Return the images of a folder that derivatives belong to, and take these off the list."""
        by_entities: defaultdict[frozenset[str], list[str]] = defaultdict(list)
        for stem in stems:
            by_entities[entities_of(stem)].append(stem)
        places: dict[str, Path] = {}
        for entities, images in by_entities.items():
            label_maps = self.derived.get((folder, entities), [])
            if len(images) == len(label_maps) == 1:
                places[images[0]] = label_maps[0]
                del self.derived[folder, entities]
        return places

    def _lone(self, path: Path) -> PairedImage:
        group, kind = self._group(path, None)
        return PairedImage(path, split=self._split(path), group=group, group_kind=kind)

    def _group(self, path: Path, case: str | None) -> tuple[str | None, str | None]:
        below = path.relative_to(self._root)
        folders = below.parts if path.is_dir() else below.parts[:-1]
        subject = next((part for part in folders if part.startswith("sub-")), None)
        if self._bids and subject:
            return subject, "patient"
        return (None, None) if case is None else ((below.parent / case).as_posix(), "group")

    def _split(self, path: Path) -> str | None:
        """Return the split that the nearest folder names."""
        for part in reversed(path.relative_to(self._root).parts):
            if part.lower() in SPLIT_WORDS:
                return SPLIT_WORDS[part.lower()]
        return None


def _twins(folder: Path, folders: list[str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield names of image folder and label folder (None if missing), and the split."""
    known = {name.lower(): name for name in folders}
    for ending, split in _SPLIT_TWINS.items():
        if f"images{ending}" in known:
            yield known[f"images{ending}"], known.get(f"labels{ending}"), split
    images = [known[name] for name in _IMAGE_FOLDERS if name in known]
    label_maps = [known[name] for name in _LABEL_FOLDERS if name in known]
    if len(images) == len(label_maps) == 1:
        yield images[0], label_maps[0], None
    elif images and label_maps:
        logger.info(
            "%s: %s beside %s; which belong together is not clear, so none are paired",
            folder,
            " and ".join(images),
            " and ".join(label_maps),
        )


def _may_be_an_image(path: Path) -> bool:
    """Tell of a file that is no picture or volume by its name."""
    return path.suffix.lower() in _OTHER_IMAGES and path.name.lower() not in _TEXTS


def _others_below(folder: Path) -> Iterator[Path]:
    """Yield what else than pictures and volumes may be an image in a folder of pairs."""
    return (
        path for path in _all_below(folder) if stem_of(path.name) is None and _may_be_an_image(path)
    )


def _is_volume(name: str) -> bool:
    return name.lower().endswith((".nii.gz", ".nii", ".mha", ".nrrd"))


def _by_stem(files: Iterable[tuple[str | None, Path]]) -> dict[str, list[Path]]:
    """Return stem -> paths; two files may differ in their suffix alone."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for stem, path in files:
        if stem is not None:
            found[stem].append(path)
    return dict(found)


def _bids_label_maps(root: Path) -> dict[tuple[Path, frozenset[str]], list[Path]]:
    """Return the ``_dseg`` files of derivatives, by folder and entities of the image to look for.

    A label map in another space has entities that no raw image has, so it stays alone.
    """
    found: defaultdict[tuple[Path, frozenset[str]], list[Path]] = defaultdict(list)
    for relative, path in _files_below(root / _DERIVATIVES):
        parts = relative.split("/")
        start = next((place for place, part in enumerate(parts) if part.startswith("sub-")), None)
        if start is not None and relative.endswith("_dseg"):
            entities = entities_of(parts[-1], derived=True)
            found[root.joinpath(*parts[start:-1]), entities].append(path)
    return dict(found)


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative name without suffix, and path, of all images in a folder and below."""
    for path in _all_below(folder):
        stem = stem_of(path.name)
        if stem is not None:
            yield path.relative_to(folder).with_name(stem).as_posix(), path


def _all_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield the files of a folder and below; a link to a folder above is not followed."""
    try:
        status = folder.stat()
        folders, files = _listing(folder)
    except OSError:
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for name in files:
        yield folder / name
    for name in folders:
        yield from _all_below(folder / name, above | {identity})


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of folders and of files; hidden ones are left out."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith((".", "__")):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)
