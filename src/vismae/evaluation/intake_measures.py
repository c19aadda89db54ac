"""The part of the intake report on what can be measured: sizes, spacing and intensities."""

from collections.abc import Mapping

import numpy as np

from vismae.core.counting import Histogram, Tally
from vismae.core.intake_account import SPACING_BINS_MM, ModalityAccount
from vismae.core.types import Modality
from vismae.evaluation.intake_figures import intensity_figure, sizes_figure, spacing_figure
from vismae.evaluation.intake_words import MODALITY_NAMES
from vismae.evaluation.report import Report, whole_number

_SIZES_SHOWN = 10


def add_measures(report: Report, modalities: Mapping[Modality, ModalityAccount]) -> None:
    """Add sections on sizes and spacing, and on intensities.

    Args:
        report: To be added to.
        modalities: At least one, in the order to be shown.
    """
    report.section("Sizes and spacing")
    _sizes(report, modalities)
    _spacing(report, modalities)
    report.section("Intensities")
    _intensities(report, modalities)


def _sizes(report: Report, modalities: Mapping[Modality, ModalityAccount]) -> None:
    report.figure(
        sizes_figure(modalities),
        "Height and width of the images. Darker cells hold more images; the dotted line marks "
        "square images.",
        "Height against width. "
        + " ".join(
            f"{MODALITY_NAMES[modality]}: mostly {part.sizes.commonest(1)[0][0]} pixels."
            for modality, part in modalities.items()
        ),
    )
    rows = [
        {
            "modality": MODALITY_NAMES[modality],
            "height × width, pixels (images)": _tally_words(part.sizes),
        }
        for modality, part in modalities.items()
    ]
    report.table(rows, f"The {_SIZES_SHOWN} commonest sizes of each modality.")


def _tally_words(sizes: Tally) -> str:
    shown = sizes.commonest(_SIZES_SHOWN)
    words = ", ".join(f"{size}\u00a0({whole_number(number)})" for size, number in shown)
    further = sizes.total - sum(number for _, number in shown)
    return f"{words}, others ({whole_number(further)})" if further else words


def _spacing(report: Report, modalities: Mapping[Modality, ModalityAccount]) -> None:
    known = {
        modality: part
        for modality, part in modalities.items()
        if part.spacing_in_plane_mm.known or part.spacing_slices_mm.known
    }
    rows = [
        {
            "modality": MODALITY_NAMES[modality],
            "pixels, mm": _middle(part.spacing_in_plane_mm),
            "pixels unknown": part.spacing_in_plane_mm.unknown,
            "slices, mm": _middle(part.spacing_slices_mm),
            "slices unknown": part.spacing_slices_mm.unknown,
        }
        for modality, part in modalities.items()
    ]
    if known:
        report.figure(
            spacing_figure(known),
            "Distance between pixel centres in the plane (coloured) and between slices (grey), as "
            "a share of the images where it is known.",
            "Spacing. "
            + " ".join(
                f"{row['modality']}: pixels {row['pixels, mm']} mm, slices {row['slices, mm']} mm."
                for row in rows
            ),
        )
    report.table(
        rows,
        "Distance of pixels and of slices: about where the middle nine tenths of the images lie, "
        "and images where it is unknown.",
    )


def _middle(values: Histogram) -> str:
    """Return about where the middle nine tenths lie, to the width of a bin."""
    if not values.known:
        return "–"
    cumulative = np.cumsum(values.dense(SPACING_BINS_MM))
    places = np.searchsorted(cumulative, [0.05 * cumulative[-1], 0.95 * cumulative[-1]])
    edges = SPACING_BINS_MM.edges
    centres = np.sqrt(edges[:-1] * edges[1:])
    low, high = (f"{centres[min(max(k, 1), len(centres)) - 1]:.2g}" for k in places)
    return low if low == high else f"{low} to {high}"


def _intensities(report: Report, modalities: Mapping[Modality, ModalityAccount]) -> None:
    if not any(v.known for part in modalities.values() for v in part.intensities.values()):
        report.text("No pixel holds a value that differs from all others.")
        return
    report.figure(
        intensity_figure(modalities),
        "Values of pixels, as a share of those looked at (about a thousand of each image). The "
        "axis shows roots, so that small peaks can be seen beside air and black borders; values "
        "beyond the axis count in its last bins. In the volume's range, 0 and 1 are its 0.5 and "
        "99.5 percentile.",
        "Intensities of " + ", ".join(MODALITY_NAMES[modality] for modality in modalities) + ".",
    )
