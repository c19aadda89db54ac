"""An account of an ingest in words: names, meanings of flags, and what a person should look at."""

from collections.abc import Iterator

from vismae.core.intake_account import IntakeAccount, ModalityAccount, Repeats
from vismae.core.types import Flag, Modality
from vismae.evaluation.report import whole_number

MODALITY_NAMES: dict[Modality, str] = {
    Modality.CT: "CT",
    Modality.MR: "MR",
    Modality.PET: "PET",
    Modality.XR: "X-ray",
    Modality.US: "Ultrasound",
    Modality.OTHER: "Other",
}

FLAG_MEANINGS: dict[Flag, str] = {
    Flag.BLANK: "All pixels have one value.",
    Flag.NEARLY_BLANK: "Nearly all pixels have one value.",
    Flag.BURNED_IN: "The header says that text is burned into the pixels.",
    Flag.SECONDARY_CAPTURE: "A picture of a screen or of film.",
    Flag.LOCALIZER: "A scout view made to plan a scan.",
    Flag.OVERLAY: "The file holds an overlay plane; it is not painted into the pixels.",
    Flag.LOSSY: "Lossy compression was used on the way.",
    Flag.COLOUR_DOPPLER: "Blood flow in colour is painted over the tissue.",
    Flag.REGION_CROPPED: "The frame of an ultrasound screen, with its texts, was cut away.",
    Flag.GANTRY_TILT: "Slices are shifted against one another.",
    Flag.MISSING_SLICES: "Slices are missing; across the gap neighbours lie further apart.",
    Flag.IRREGULAR_SPACING: "Slices are at uneven distances, or not on one straight line.",
    Flag.OVERLAPPING_STRUCTURES: "Structures overlap; the smaller one is on top.",
    Flag.DOWNSCALED: "The image was made smaller to keep within the chosen size.",
}

_FEW_PATIENTS = 10
_FEW_IMAGES = 10
_MANY_LEFT_OUT = 0.10
# Flag -> share of a modality's images from which it is worth a warning, and what to say then.
_FLAG_WARNINGS: dict[Flag, tuple[float, str]] = {
    Flag.BLANK: (0.05, "are blank: there is nothing in them to learn from."),
    Flag.NEARLY_BLANK: (0.05, "are nearly blank: look at the contact sheet."),
    Flag.BURNED_IN: (0.0, "have text in their pixels, which may name patients."),
    Flag.SECONDARY_CAPTURE: (0.0, "are pictures of screens or film, which may show names."),
    Flag.LOSSY: (0.5, "went through lossy compression, which a network may learn to see."),
    Flag.MISSING_SLICES: (0.05, "belong to volumes that lack slices."),
    Flag.IRREGULAR_SPACING: (0.05, "belong to volumes of unevenly spaced slices."),
}
_EXPECTED_UNIT = {
    Modality.CT: ("hu", "Hounsfield units"),
    Modality.PET: ("suv", "SUV"),
}
_MEASURED = (Modality.CT, Modality.MR, Modality.PET)


def warnings_of(account: IntakeAccount) -> list[str]:
    """Return what the owner of the data should know before training on it, one sentence each."""
    if not account.images:
        return ["No image came in."]
    found = [*_left_out(account), *_divided(account), *_repeats(account.exact, "identical")]
    found += _repeats(account.near, "nearly identical")
    for modality, part in account.modalities.items():
        found += _patients(MODALITY_NAMES[modality], part)
        found += _flags(MODALITY_NAMES[modality], part)
        found += _values(modality, part)
    return [*found, *_classes(account)]


def percent(part: int, whole: int) -> str:
    """Return a share in percent with few digits; some is never shown as none or all."""
    share = 100 * part / whole if whole else 0.0
    if share in (0.0, 100.0):
        return f"{share:.0f} %"
    if share < 0.1:
        return "under 0.1 %"
    if share > 99.9:
        return "over 99.9 %"
    return f"{share:.1f} %" if share < 10 or share > 99 else f"{share:.0f} %"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun, as ``1 image`` and ``12 images``."""
    return f"{whole_number(number)} {one if number == 1 else many or one + 's'}"


def _left_out(account: IntakeAccount) -> Iterator[str]:
    left_out = account.files_left_out
    if left_out > _MANY_LEFT_OUT * account.files:
        reason, number = max(account.left_out.items(), key=lambda pair: pair[1])
        yield (
            f"{percent(left_out, account.files)} of the files were left out, most often for "
            f"“{reason}” ({counted(number, 'file')})."
        )


def _divided(account: IntakeAccount) -> Iterator[str]:
    if account.divided_patients:
        has = "has" if account.divided_patients == 1 else "have"
        yield (
            f"{counted(account.divided_patients, 'patient')} {has} images in several splits, as "
            "column split says. Fine-tuning and studies refuse that; correct the table."
        )


def _repeats(found: Repeats | None, alike: str) -> Iterator[str]:
    if found is None:
        return
    for splits, number in found.pairs_across_splits.items():
        lies = "lies" if number == 1 else "lie"
        yield (
            f"{counted(number, 'pair')} of {alike} images {lies} in both {splits}: scores would be "
            "too good."
        )
    if number := found.pairs_across_patients:
        is_shared = "is" if number == 1 else "are"
        yield (
            f"{counted(number, 'pair')} of {alike} images {is_shared} shared by two patients: one "
            "person may have two ids."
        )


def _patients(name: str, part: ModalityAccount) -> Iterator[str]:
    alone = part.grouping.get("image", 0)
    if alone:
        yield (
            f"{name}: no patient is known for {percent(alone, part.images)} of the images. Each of "
            "them counts as a patient of its own, so one person may come into train and test."
        )
    if grouped := part.grouping.get("group", 0):
        yield (
            f"{name}: groups (studies, or those of a table or of names) and no patients are known "
            f"for {percent(grouped, part.images)} of the images. One person with two of them may "
            "come into train and test."
        )
    if 0 < part.patients < _FEW_PATIENTS:
        yield (
            f"{name}: {counted(part.patients, 'patient')} only: too few to learn from and to test "
            "on as well."
        )


def _flags(name: str, part: ModalityAccount) -> Iterator[str]:
    for flag, (least_share, words) in _FLAG_WARNINGS.items():
        number = part.flags.get(flag, 0)
        if number > least_share * part.images:
            yield f"{percent(number, part.images)} of {name} images {words}"


def _values(modality: Modality, part: ModalityAccount) -> Iterator[str]:
    name = MODALITY_NAMES[modality]
    if modality in _EXPECTED_UNIT:
        unit, words = _EXPECTED_UNIT[modality]
        if other := part.images - part.units.get(unit, 0):
            yield f"{name}: {percent(other, part.images)} of the images are not in {words}."
    unknown = part.spacing_in_plane_mm.unknown
    if modality in _MEASURED and 2 * unknown > part.images:
        yield (
            f"{name}: the pixel size is unknown for {percent(unknown, part.images)} of the images; "
            "their distances can only be given in pixels."
        )


def _classes(account: IntakeAccount) -> Iterator[str]:
    rare = [(name, n) for name, n in account.labels.commonest() if n < _FEW_IMAGES]
    if rare:
        examples = ", ".join(f"“{name}” ({n})" for name, n in rare[:-4:-1])
        have = "has" if len(rare) == 1 else "have"
        yield (
            f"{counted(len(rare), 'class', 'classes')} {have} fewer than {_FEW_IMAGES} images: "
            f"{examples}{', …' if len(rare) > 3 else ''}"
        )
