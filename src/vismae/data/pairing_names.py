"""Which label map belongs to which image, told from names alone; no file is looked at."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

_PAIRABLE = re.compile(
    r"\.((nii|hdr)(\.gz)?|mha|mhd|nrrd|nhdr|png|jpe?g|tiff?|bmp)$", re.IGNORECASE
)
_LABEL_WORDS = "seg|segmentation|dseg|label|labels|labelmap|mask|gt"
_SEQUENCE_WORDS = "t1|t1w|t1n|t1c|t1ce|t1gd|t2|t2w|t2f|flair|pd|pdw|adc|dwi|swi|ct|pet"
_LABEL_ENDING = re.compile(rf"^(.+?)[_.-]({_LABEL_WORDS})$", re.IGNORECASE)
_SEQUENCE_ENDING = re.compile(rf"^(.+)[_-]({_SEQUENCE_WORDS})$", re.IGNORECASE)
# Where each case has a folder of its own, as in KiTS: imaging.nii.gz and segmentation.nii.gz.
# 3D Slicer calls it Segmentation.seg.nrrd, or Segmentation-label.nrrd.
_LABEL_ALONE = re.compile(rf"^({_LABEL_WORDS})([_.-]({_LABEL_WORDS}|\d{{1,2}}))*$", re.IGNORECASE)
_SEQUENCE_ALONE = re.compile(rf"^({_SEQUENCE_WORDS})$", re.IGNORECASE)
# Second label maps of one image have a number; some folders hold nothing else.
_LABEL_NAME = re.compile(rf"^(.*[_.-])?({_LABEL_WORDS}|masks)([_-]?\d{{1,2}})?$", re.IGNORECASE)
_LABEL_FOLDER = re.compile(
    r"^(labels?|masks?|annotations|segmentations?|label_?maps)(Tr|Ts|Val)?$", re.IGNORECASE
)
_CHANNEL_ENDING = re.compile(r"^(.+)_(\d{4})$")
# BIDS entities that tell a derivative from the image it came from.
_DERIVED_ENTITIES = ("desc-", "label-", "res-", "den-", "space-orig")


def stem_of(name: str) -> str | None:
    """Return a file's name without suffix (``.nii.gz`` is one); None if it cannot be paired."""
    found = _PAIRABLE.search(name)
    return None if found is None else name[: found.start()]


def named_as_label_map(path: PurePosixPath) -> bool:
    """Tell whether an image file is called what label maps are called, or lies in their folder."""
    stem = stem_of(path.name)
    if stem is None:
        return False
    in_folder = _LABEL_FOLDER.match(path.parent.name) is not None
    return in_folder or _LABEL_NAME.match(stem) is not None


def channel_of(stem: str) -> tuple[str, int] | None:
    """Return case and channel of an nnU-Net image, ``("case", 0)`` for ``case_0000``."""
    found = _CHANNEL_ENDING.match(stem)
    return None if found is None else (found[1], int(found[2]))


def match_twins(
    images: Iterable[str], label_maps: Iterable[str]
) -> tuple[dict[str, str], list[str]]:
    """Pair the names of two folders.

    Names are without suffix, and may begin with a subfolder. A label map ``case`` (or
    ``case_mask``) belongs to the image of the same name, else to the channels ``case_0000``,
    ``case_0001`` and so on. A second label map of one image stays alone.

    Returns:
        Image -> label map, and the label maps that belong to no image.
    """
    known = set(images)
    channels: defaultdict[str, list[str]] = defaultdict(list)
    for image in sorted(known):
        found = channel_of(image)
        if found:
            channels[found[0]].append(image)
    pairs: dict[str, str] = {}
    alone: list[str] = []
    for label_map in sorted(label_maps):
        ending = _LABEL_ENDING.match(label_map)
        names = (label_map, ending[1]) if ending else (label_map,)
        candidates = [[name] for name in names if name in known]
        candidates += [channels[name] for name in names if name in channels]
        if candidates and not any(image in pairs for image in candidates[0]):
            pairs.update(dict.fromkeys(candidates[0], label_map))
        else:
            alone.append(label_map)
    return pairs, alone


def match_neighbours(names: Iterable[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Pair the files of one folder, named without suffix.

    ``X_seg`` (``X.seg``, ``X-label`` ...) belongs to ``X``; where there is no ``X``, to the
    sequences ``X_t1``, ``X_flair`` and so on of one case. A file that is called ``segmentation``
    (``mask`` ...) and no more belongs to the only other image of its folder, or to sequences of
    which each is called so. Between two label maps of one image nothing is chosen: both stay
    alone.

    Returns:
        Image -> label map; image -> case, for sequences; label maps that belong to no image.
    """
    stems = set(names)
    alone_by_name = set(filter(_LABEL_ALONE.match, stems))
    owners = {
        name: found[1]
        for name in sorted(stems - alone_by_name)
        if (found := _LABEL_ENDING.match(name))
    }
    sequences: defaultdict[str, list[str]] = defaultdict(list)
    for image in sorted(stems - set(owners)):
        found = _SEQUENCE_ENDING.match(image)
        if found:
            sequences[found[1]].append(image)
    count = Counter(owners.values())
    pairs, cases, alone = _match_by_folder(stems - set(owners), alone_by_name)
    if owners and pairs:  # which of them it belongs to is not clear
        pairs, cases, alone = {}, {}, sorted(set(pairs.values()))
    for label_map, owner in owners.items():
        direct = owner in stems and owner not in owners
        drawn_on = [owner] if direct else sequences.get(owner, [])
        if not drawn_on or count[owner] > 1:
            alone.append(label_map)
            continue
        pairs.update(dict.fromkeys(drawn_on, label_map))
        if not direct:
            cases.update(dict.fromkeys(drawn_on, owner))
    return pairs, cases, alone


def _match_by_folder(
    stems: set[str], alone: set[str]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Pair the files of a case's folder, as ``match_neighbours`` does and returns them."""
    label_maps = sorted(alone)
    images = sorted(stems - set(label_maps))
    together = all(map(_SEQUENCE_ALONE.match, images))
    if len(label_maps) != 1 or not (len(images) == 1 or (images and together)):
        return {}, {}, label_maps
    cases = dict.fromkeys(images, "") if len(images) > 1 else {}
    return dict.fromkeys(images, label_maps[0]), cases, []


def entities_of(stem: str, derived: bool = False) -> frozenset[str]:
    """Return the BIDS entities of a name (``sub-01``, ``ses-1`` ...), its suffix left out.

    Args:
        stem: Such as ``sub-01_ses-1_T1w``.
        derived: Leave out those that tell a derivative from its source (``desc-`` and the like).
    """
    parts = stem.split("_")[:-1]
    return frozenset(part for part in parts if not (derived and part.startswith(_DERIVED_ENTITIES)))
