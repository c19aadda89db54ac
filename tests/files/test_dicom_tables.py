"""Look-up tables, against pydicom where it knows them and by hand where it does not."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi
from pydicom.sequence import Sequence as DicomSequence

from vismae.files.dicom_tables import look_up


def table(entries: list[int], first: int, bits: int, as_bytes: str | None = None) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first, bits]
    item.LUTData = entries if as_bytes is None else np.array(entries, as_bytes).tobytes()
    item["LUTData"].VR = "US" if as_bytes is None else "OW"
    return item


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 5])
def test_a_table_maps_as_pydicom_does(bits: int, first: int) -> None:
    entries = [(7 * n) % 2**bits for n in range(20)]
    item = table(entries, first, bits)
    values = np.arange(30, dtype=np.uint16)
    dataset = Dataset()
    dataset.PixelRepresentation, dataset.BitsStored, dataset.BitsAllocated = 0, 16, 16
    dataset.VOILUTSequence = DicomSequence([item])

    found, found_bits = look_up(values, item, little_endian=True)

    np.testing.assert_array_equal(found, apply_voi(values, dataset))
    assert found_bits == bits


@pytest.mark.parametrize(
    ("as_bytes", "little_endian"), [("<u2", True), (">u2", False), ("u1", True)]
)
def test_entries_may_be_bytes(as_bytes: str, little_endian: bool) -> None:
    item = table([1, 2, 3, 250], 0, 8, as_bytes)

    found, _ = look_up(np.array([0, 3]), item, little_endian)

    assert found.tolist() == [1, 250]


def test_the_first_value_is_signed_as_the_pixels_are() -> None:
    item = table([10, 20, 30], 2**16 - 2, 16)

    found, _ = look_up(np.array([-3, -2, -1, 0, 1], np.int16), item, little_endian=True)

    assert found.tolist() == [10, 10, 20, 30, 30]


def test_no_entries_means_65536() -> None:
    item = table(list(range(2**16)), 0, 16, "<u2")

    assert look_up(np.array([65535], np.uint16), item, True)[0].tolist() == [65535]


@pytest.mark.parametrize(("count", "bits"), [(5, 16), (4, 40), (4, 0)])
def test_a_table_that_is_too_short_or_too_wide_is_refused(count: int, bits: int) -> None:
    item = table([1, 2, 3, 4], 0, bits)
    item.LUTDescriptor = [count, 0, bits]

    with pytest.raises(ValueError, match="entries"):
        look_up(np.array([0]), item, little_endian=True)
