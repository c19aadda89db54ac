"""The fragments that compressed frames are stored in, whatever the table of their offsets says.

A frame is one fragment or several, and a table may say where each begins (PS3.5 section A.4). Some
writers count its offsets from elsewhere, or leave them 0. Where there are as many fragments as
frames nothing needs to be said, since frames are stored in their order.
"""

from io import BytesIO

from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets, parse_fragments

_EXTENDED_TABLE = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def fragment_count(pixel_data: bytes) -> int | None:
    """Return how many fragments there are; None where the items that hold them are damaged.

    Args:
        pixel_data: Value of an encapsulated PixelData.
    """
    try:
        return parse_fragments(_behind_table(pixel_data))[0]
    except ValueError:
        return None


def without_offsets(dataset: Dataset, frames: int) -> Dataset:
    """Take the tables of offsets out of a dataset in which each frame is one fragment.

    Args:
        dataset: Its pixel data is changed.
        frames: What the header promises.

    Returns:
        The same dataset.

    Raises:
        ValueError: There are not as many fragments as frames, or they are damaged.
    """
    fragments = list(generate_fragments(_behind_table(dataset.PixelData)))
    if len(fragments) != frames:
        raise ValueError(f"{len(fragments)} fragments for {frames} frames")
    dataset.PixelData = encapsulate(fragments, has_bot=False)
    for keyword in _EXTENDED_TABLE:
        dataset.pop(keyword, None)
    return dataset


def _behind_table(pixel_data: bytes) -> BytesIO:
    stream = BytesIO(pixel_data)
    parse_basic_offsets(stream)
    return stream
