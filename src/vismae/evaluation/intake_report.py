"""The account of an ingest as one HTML page, and as a few lines for a terminal.

Both hold what ``IntakeAccount`` holds: counts and words from closed lists, and names of classes.
The pictures of the contact sheets are the caller's choice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vismae.core.intake_account import IntakeAccount, ModalityAccount, Repeats
from vismae.core.types import Flag, Modality
from vismae.evaluation.intake_measures import add_measures
from vismae.evaluation.intake_words import (
    FLAG_MEANINGS,
    MODALITY_NAMES,
    counted,
    percent,
    warnings_of,
)
from vismae.evaluation.overlay import contact_sheet
from vismae.evaluation.report import Report, whole_number

_UNIT_WORDS = {
    "hu": "HU",
    "suv": "SUV",
    "arbitrary": "scanner's own scale",
    "display": "grey levels",
}
_CLASSES_SHOWN = 100
_SHEET_COLUMNS = 6
_SHEET_CELL_PX = 160


@dataclass(frozen=True)
class SheetImage:
    """One image of a contact sheet.

    Attributes:
        pixels: (H, W) or (H, W, 3), 0 to 1 or uint8, as ``overlay.contact_sheet`` takes it.
        caption: A few words below it.
    """

    pixels: np.ndarray
    caption: str = ""


def intake_report(
    account: IntakeAccount,
    meanings: Mapping[str, str],
    sheets: Mapping[Modality, Sequence[SheetImage]] | None = None,
    class_names: Mapping[int, str] | None = None,
    title: str = "Intake of images",
) -> str:
    """Return the report as one HTML page that needs no other file and no network.

    Args:
        account: Of the whole store.
        meanings: Reason code -> what it means; at least those of ``account.left_out``.
        sheets: Some images of each modality; a modality without any has no sheet.
        class_names: Value in label maps -> name.
        title: Of the page.
    """
    report = Report(title, _in_one_sentence(account))
    for name, value in _facts(account):
        report.fact(name, value)
    for warning in warnings_of(account):
        report.warn(warning)
    modalities = _by_size(account)
    if modalities:
        report.section("What came in")
        _overview(report, modalities)
        _contact_sheets(report, {name: (sheets or {}).get(name, ()) for name in modalities})
    if account.left_out:
        report.section("What was left out")
        _left_out(report, account, meanings)
    if modalities:
        add_measures(report, modalities)
        report.section("What was noticed")
        _flags(report, account, modalities)
        report.section("Duplicates")
        _duplicates(report, account)
    if account.labels.counts or account.label_map_images.counts:
        report.section("Classes")
        _classes(report, account, class_names or {})
    return report.html()


def account_lines(account: IntakeAccount) -> list[str]:
    """Return the account in a few plain lines: modalities, reasons, flags, duplicates, warnings."""
    lines = [_in_one_sentence(account)]
    for modality, part in _by_size(account).items():
        groups = [counted(part.images, "image")]
        groups += [counted(part.volumes, "volume")] if part.volumes else []
        groups += [counted(part.patients, "patient")] if part.patients else []
        sizes = ", ".join(size for size, _ in part.sizes.commonest(2))
        units = ", ".join(_UNIT_WORDS.get(unit, unit) for unit in part.units)
        lines.append(f"{MODALITY_NAMES[modality]}: {', '.join(groups)}; mostly {sizes}; {units}")
    for words, counts in (
        ("left out", account.left_out),
        ("noticed", account.flagged()),
        ("classes", dict(account.labels.commonest(5))),
    ):
        if counts:
            ordered = sorted(counts.items(), key=lambda pair: -pair[1])
            lines.append(f"{words}: " + ", ".join(f"{k} {whole_number(n)}" for k, n in ordered))
    for words, found in (("equal to another", account.exact), ("nearly equal", account.near)):
        if found is not None and found.images:
            lines.append(f"{words}: {counted(found.images, 'image')}")
    return [*lines, *(f"Note: {warning}" for warning in warnings_of(account))]


def _in_one_sentence(account: IntakeAccount) -> str:
    kinds = counted(len(account.modalities), "modality", "modalities")
    text = f"{counted(account.images, 'image')} of {kinds}"
    if account.files:
        text += f" from {counted(account.files_read, 'file')}"
    if account.files_left_out:
        text += f"; {counted(account.files_left_out, 'further file')} left out"
    return f"{text}."


def _facts(account: IntakeAccount) -> Iterator[tuple[str, str]]:
    counts = {
        "images": account.images,
        "volumes": account.volumes,
        "patients": account.patients,
        "files left out": account.files_left_out,
    }
    for name, number in counts.items():
        if number or name in ("images", "files left out"):
            yield name, whole_number(number)
    if account.bytes_read:
        yield "read", _byte_words(account.bytes_read)
    if account.bytes_stored:
        yield "stored", _byte_words(account.bytes_stored)
    if account.seconds:
        yield "taken", _time_words(account.seconds)


def _byte_words(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _time_words(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _by_size(account: IntakeAccount) -> dict[Modality, ModalityAccount]:
    return {Modality(name): account.modalities[Modality(name)] for name in account.by_modality()}


def _overview(report: Report, modalities: Mapping[Modality, ModalityAccount]) -> None:
    rows = [
        {
            "modality": MODALITY_NAMES[modality],
            "images": part.images,
            "volumes": part.volumes or None,
            "patients": part.patients or None,
            "values": _listed(part.units, _UNIT_WORDS),
            "stored as": _listed(part.dtypes),
            "channels": _listed(part.channels, {"1": "grey", "3": "colour"}),
        }
        for modality, part in modalities.items()
    ]
    report.table(
        rows,
        "Images, volumes and patients of each modality. A patient with images of two modalities "
        "counts in both rows. Where no patient is known, groups or images stand for patients.",
    )


def _listed(counts: Mapping[str, int], words: Mapping[str, str] | None = None) -> str:
    """Return words, the commonest first, with their counts where there are several."""
    named = [((words or {}).get(word, word), n) for word, n in counts.items()]
    if len(named) == 1:
        return named[0][0]
    named.sort(key=lambda pair: -pair[1])
    return ", ".join(f"{word} ({whole_number(number)})" for word, number in named)


def _contact_sheets(report: Report, sheets: Mapping[Modality, Sequence[SheetImage]]) -> None:
    for modality, images in sheets.items():
        if not images:
            continue
        # The sheet's font has no multiplication sign.
        captions = [image.caption.replace("×", "x") for image in images]
        sheet = contact_sheet(
            [image.pixels for image in images],
            captions if any(captions) else None,
            columns=_SHEET_COLUMNS,
            cell_px=_SHEET_CELL_PX,
        )
        name = MODALITY_NAMES[modality]
        report.figure(
            sheet,
            f"{name}: {counted(len(images), 'image')} of the store.",
            f"Contact sheet of {counted(len(images), f'{name} image')}.",
        )


def _left_out(report: Report, account: IntakeAccount, meanings: Mapping[str, str]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "reason": reason,
            "files": number,
            "of all files": percent(number, account.files) if account.files else None,
            "meaning": meanings.get(reason, ""),
        }
        for reason, number in sorted(account.left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    report.table(
        rows,
        f"Files that were not used: {whole_number(account.files_left_out)} of "
        f"{whole_number(account.files)}. The private folder says which.",
    )


def _flags(
    report: Report, account: IntakeAccount, modalities: Mapping[Modality, ModalityAccount]
) -> None:
    found = account.flagged()
    if not found:
        report.text("Nothing out of the ordinary was noticed.")
        return
    rows: list[dict[str, Any]] = [
        {
            "flag": flag,
            **{
                MODALITY_NAMES[modality]: part.flags.get(flag, 0)
                for modality, part in modalities.items()
            },
            "meaning": FLAG_MEANINGS[Flag(flag)],
        }
        for flag in sorted(found, key=lambda flag: (-found[flag], flag))
    ]
    report.table(rows, "Images with each flag; an image may have several.")


def _duplicates(report: Report, account: IntakeAccount) -> None:
    kinds = {"equal pixels": account.exact, "nearly equal pictures": account.near}
    rows = [_repeat_row(words, kind) for words, kind in kinds.items() if kind is not None]
    if not rows:
        report.text("Duplicates were not looked for.")
        return
    report.table(
        rows,
        "Images that repeat an earlier one, and pairs of alike images that two patients or two "
        "splits share.",
    )


def _repeat_row(words: str, found: Repeats) -> dict[str, Any]:
    return {
        "alike in": words,
        "images": found.images,
        "pairs across patients": found.pairs_across_patients,
        "pairs across splits": sum(found.pairs_across_splits.values()),
    }


def _classes(report: Report, account: IntakeAccount, class_names: Mapping[int, str]) -> None:
    if account.labels.counts:
        shown = account.labels.commonest(_CLASSES_SHOWN)
        rows: list[dict[str, Any]] = [{"class": name, "images": number} for name, number in shown]
        further = account.labels.total - sum(number for _, number in shown)
        if further:
            rows.append({"class": "further classes", "images": further})
        report.table(rows, "Images of each class; an image with two classes counts in both.")
    if account.label_map_images.counts:
        pixels = account.label_map_pixels
        rows = [
            {
                "value": int(value),
                "class": class_names.get(int(value)),
                "images": number,
                "pixels": pixels.counts.get(value),
                "of marked pixels": percent(pixels.counts.get(value, 0), pixels.total),
            }
            for value, number in account.label_map_images.commonest(_CLASSES_SHOWN)
        ]
        report.table(rows, "Classes of label maps: images that hold them, and their pixels.")
