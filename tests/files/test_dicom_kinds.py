"""What tells measurements of the same places apart; stored values name measurement and place."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, generate_uid

from factories import AXIAL, write_dicom_slice
from vismae.core.types import Spacing
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

FIRST, SECOND = [1000, 1002, 1003], [2000, 2001, 2002, 2003]
# One after the other at each place; the first stack lacks a slice.
VALUES = [1000, 2000, 2001, 1002, 2002, 1003, 2003]


def stored(paths: Sequence[Path]) -> list[list[int]]:
    images = read_dicom([SourceFile(path, None, "dicom") for path in paths])
    return [image.pixels[:, 0, 0].tolist() for image in images]


def nested(path: tuple[str, ...], value: Any) -> Dataset:
    """Make sequences, one in the other, with an element in the last of them."""
    *sequences, keyword = path
    held = Dataset()
    setattr(held, keyword, value)
    for sequence in reversed(sequences):
        outer = Dataset()
        setattr(outer, sequence, DicomSequence([held]))
        held = outer
    return held


@pytest.mark.parametrize(
    ("tag", "vr", "kinds"),
    [
        ((0x0043, 0x39), "IS", ([0, 8, 0, 0], [1000001000, 8, 0, 0])),
        ((0x0043, 0x2F), "SS", (0, 1)),
        ((0x0019, 0xBB), "DS", ("0.1", "-0.7")),
        ((0x0019, 0x0C), "IS", (0, 1000)),
        ((0x0019, 0x0E), "FD", ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])),
        ((0x2001, 0x03), "FL", (0.0, 1000.0)),
        ((0x2005, 0xB0), "FL", (0.5, -0.5)),
        ((0x0065, 0x09), "FD", (50.0, 800.0)),
    ],
)
def test_elements_of_makers_tell_volumes_apart_where_a_slice_is_missing(
    tmp_path: Path, tag: tuple[int, int], vr: str, kinds: tuple[Any, Any]
) -> None:
    series, paths = generate_uid(), []
    for number, value in enumerate(VALUES, 1):
        path = write_dicom_slice(
            tmp_path / f"{number}.dcm",
            np.full((4, 4), value, np.int16),
            Modality="MR",
            SeriesInstanceUID=series,
            InstanceNumber=number,
            ImagePositionPatient=[0.0, 0.0, 3.0 * (value % 1000)],
        )
        dataset = dcmread(path)
        block = dataset.private_block(tag[0], "A MAKER", create=True)
        block.add_new(tag[1], vr, kinds[value // 1000 - 1])
        dataset.save_as(path)
        paths.append(path)

    assert stored(paths) == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        (("MRImageFrameTypeSequence", "ComplexImageComponent"), ("MAGNITUDE", "PHASE")),
        (("MRModifierSequence", "InversionTimes"), ([100.0], [900.0])),
        (("MRTimingAndRelatedParametersSequence", "FlipAngle"), (5.0, 15.0)),
        (("ImageDataTypeSequence", "DataType"), ("FLOW_VELOCITY", "TISSUE_INTENSITY")),
        (("USImageDescriptionSequence", "FrameType"), (["DERIVED"], ["ORIGINAL"])),
        (("CTXRayDetailsSequence", "KVP"), (80.0, 140.0)),
        (("CTReconstructionSequence", "ConvolutionKernel"), ("B30f", "B70f")),
        (("PixelMeasuresSequence", "SliceThickness"), (1.0, 5.0)),
        (("TemporalPositionSequence", "TemporalPositionTimeOffset"), (0.0, 4.5)),
        (("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"), (40.0, 75.0)),
        (
            ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"),
            (0.0, 50.0),
        ),
        (("FrameContentSequence", "FrameAcquisitionNumber"), (1, 2)),
        (
            ("MRVelocityEncodingSequence", "VelocityEncodingDirection"),
            ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        ),
        (("MRArterialSpinLabelingSequence", "ASLContext"), ("CONTROL", "LABEL")),
        (("FrameContentSequence", "FrameComments"), ("40 keV", "70 keV")),
        (("DerivationImageSequence", "DerivationDescription"), ("mean", "minimum")),
        (
            ("FrameContentSequence", "FrameAcquisitionDateTime"),
            ("20240101100000", "20240101100009"),
        ),
        (
            (
                "MRDiffusionSequence",
                "DiffusionGradientDirectionSequence",
                "DiffusionGradientOrientation",
            ),
            ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        ),
        (("UnassignedPerFrameConvertedAttributesSequence", "EchoNumbers"), (1, 2)),
        (("UnassignedPerFrameConvertedAttributesSequence", "EchoTime"), (10.0, 80.0)),
    ],
)
def test_functional_groups_tell_frames_in_any_order_apart(
    tmp_path: Path, path: tuple[str, ...], kinds: tuple[Any, Any]
) -> None:
    places = random.Random(3).sample(VALUES, len(VALUES))
    per_frame, turned = [], Dataset()
    for value in places:
        frame = nested(path, kinds[value // 1000 - 1])
        frame.PlanePositionSequence = DicomSequence([Dataset()])
        frame.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, 3.0 * (value % 1000)]
        per_frame.append(frame)
    turned.ImageOrientationPatient = AXIAL
    shared = Dataset()
    shared.PlaneOrientationSequence = DicomSequence([turned])
    file = write_dicom_slice(
        tmp_path / "enhanced.dcm",
        np.stack([np.full((4, 4), value, np.int16) for value in places]),
        Modality="MR",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.4.1"),
        ImagePositionPatient=None,
        PerFrameFunctionalGroupsSequence=DicomSequence(per_frame),
        SharedFunctionalGroupsSequence=DicomSequence([shared]),
    )

    assert sorted(stored([file])) == [FIRST, SECOND]


def test_planes_of_an_ultrasound_volume_are_put_in_order_and_told_apart(tmp_path: Path) -> None:
    """Its places are its own: no axis of it is known to run to the patient's left or head."""
    places = random.Random(3).sample(VALUES, len(VALUES))
    per_frame = []
    for value in places:
        frame = nested(("ImageDataTypeSequence", "DataType"), f"{value // 1000}")
        frame.PlanePositionVolumeSequence = DicomSequence([Dataset()])
        frame.PlanePositionVolumeSequence[0].ImagePositionVolume = [0.0, 0.0, 0.7 * (value % 1000)]
        per_frame.append(frame)
    shared = nested(("PixelMeasuresSequence", "PixelSpacing"), [0.3, 0.4])
    shared.PlaneOrientationVolumeSequence = DicomSequence([Dataset()])
    shared.PlaneOrientationVolumeSequence[0].ImageOrientationVolume = AXIAL
    file = write_dicom_slice(
        tmp_path / "volume.dcm",
        np.stack([np.full((4, 4), value, np.uint16) for value in places]),
        Modality="US",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.6.2"),
        PerFrameFunctionalGroupsSequence=DicomSequence(per_frame),
        SharedFunctionalGroupsSequence=DicomSequence([shared]),
    )

    images = read_dicom([SourceFile(file, None, "dicom")])

    found = sorted(images, key=lambda image: int(image.pixels[0, 0, 0]))
    assert [image.pixels[:, 0, 0].tolist() for image in found] == [FIRST, SECOND]
    assert found[1].spacing == Spacing(pytest.approx(0.7), 0.3, 0.4)  # pyright: ignore
    assert all(image.affine is None and image.details["slices_in_space"] for image in images)
