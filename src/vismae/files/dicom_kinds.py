"""What tells the measurements apart that scanners put into one series, or into one object.

Echo, heart phase, inversion, flip angle, diffusion, energy, reconstruction, time: a classic header
has an element for each, an enhanced object has them in functional groups of its frames, and one
that was converted keeps the classic ones in a sequence. Standard: PS3.3 C.8.3.1 (MR), C.8.13.5 (its
functional groups), C.8.15.3 (those of CT), C.7.6.16.2 (those of all), C.7.6.17 (dimensions). Of
diffusion many scanners know only elements of their own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

from vismae.files.dicom_geometry import functional_group
from vismae.files.dicom_numbers import number, readable, whole_number
from vismae.files.dicom_objects import image_type_words

_FRAME_TYPES = (
    *(f"{kind}FrameTypeSequence" for kind in ("MRImage", "CTImage", "PET", "XRay3D")),
    "USImageDescriptionSequence",
)
_HOLDERS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_CONVERTED = "UnassignedPerFrameConvertedAttributesSequence"
# A functional group with its element, and the element of a classic header; some have one of both.
_MEASURED = (
    ("ImageDataTypeSequence", *("DataType",) * 2),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"),
    ("MRModifierSequence", "InversionTimes", "InversionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
    ("", "", "SequenceName"),
    ("CTXRayDetailsSequence", "KVP", "KVP"),
    ("CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
    ("PixelMeasuresSequence", "SliceThickness", "SliceThickness"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "FrameReferenceTime"),
    ("CardiacSynchronizationSequence", *("NominalPercentageOfCardiacPhase",) * 2),
    ("RespiratorySynchronizationSequence", *("NominalPercentageOfRespiratoryPhase",) * 2),
    ("", "", "DiffusionGradientOrientation"),
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionTime"),
    ("MRVelocityEncodingSequence", *("VelocityEncodingDirection",) * 2),
    ("MRArterialSpinLabelingSequence", *("ASLContext",) * 2),
    # Free text, which is compared and not handed on: WATER or FAT, 75 %, 40 keV.
    ("FrameContentSequence", "FrameComments", "ImageComments"),
    ("DerivationImageSequence", *("DerivationDescription",) * 2),
)
# b-value and direction, and whether GE shows magnitude, phase, real or imaginary part. Who wrote
# them is not asked: an element that does not tell stacks apart divides nothing.
_OF_MAKERS = (
    *((0x0043, 0x1039), (0x0019, 0x10BB), (0x0019, 0x10BC), (0x0019, 0x10BD)),  # GE
    *((0x0019, 0x100C), (0x0019, 0x100E)),  # Siemens
    *((0x2001, 0x1003), (0x2005, 0x10B0), (0x2005, 0x10B1), (0x2005, 0x10B2)),  # Philips
    (0x0065, 0x1009),  # United Imaging
    (0x0043, 0x102F),  # GE
)
_MEASURED_TAGS = tuple((group, own, Tag(classic)) for group, own, classic in _MEASURED)
_MAKERS_TAGS = tuple(Tag(place) for place in _OF_MAKERS)
# Stands in for groups that a header does not have; making one takes longer than looking into it.
_NOTHING = Dataset()


def volume_kinds(dataset: Dataset, frame: int) -> tuple[Any, ...]:
    """Return what may tell apart volumes at the same positions, the surest first.

    Of an enhanced object's dimensions some count positions; ``order_volumes`` finds that out.

    Args:
        dataset: The header.
        frame: Counted from 0.
    """
    group_of = _groups(dataset, frame)
    content = group_of("FrameContentSequence") or _NOTHING
    converted = group_of(_CONVERTED) or _NOTHING
    diffusion = group_of("MRDiffusionSequence")
    of_type = next(filter(None, map(group_of, _FRAME_TYPES)), _NOTHING)
    return (
        "/".join(image_type_words(dataset)),
        str(of_type.get("FrameType") or ""),
        str(of_type.get("ComplexImageComponent") or ""),
        str(content.get("StackID") or ""),
        whole_number(content, "TemporalPositionIndex"),
        *(_plain(holder) for holder in (converted, dataset)),
        number(diffusion or dataset, "DiffusionBValue") or 0.0,
        _direction(diffusion),
        *(
            _measured(None if group == "" else group_of(group), own, tag, converted, dataset)
            for group, own, tag in _MEASURED_TAGS
        ),
        *(written_value(dataset, tag) for tag in _MAKERS_TAGS),
        *_indices(content),
    )


def frame_dimensions(dataset: Dataset, frame: int) -> tuple[int, ...]:
    """Return the indices of an enhanced object's frame along its dimensions; empty without any."""
    return _indices(_groups(dataset, frame)("FrameContentSequence") or _NOTHING)


def written_value(dataset: Dataset, tag: BaseTag) -> str:
    """Return an element as the file has it: what is only compared need not be converted."""
    if tag not in dataset.keys():  # noqa: SIM118 (pydicom would make a tag of the tag)
        return ""
    value = cast(RawDataElement | DataElement, dataset.get_item(tag)).value
    if isinstance(value, bytes):
        # Zeros in front belong to a number: those of a direction tell its axis.
        return value.decode("latin-1").rstrip("\0 ").lstrip(" ")
    return "" if value is None else str(value)


def _groups(dataset: Dataset, frame: int) -> Callable[[str], Dataset | None]:
    """Return what looks a functional group of a frame up; classic headers have none."""
    if dataset.get(_HOLDERS[0]) or dataset.get(_HOLDERS[1]):
        return partial(functional_group, dataset, frame)
    return lambda _: None


def _plain(holder: Dataset) -> tuple[int, str]:
    """Return the numbers of time and echo."""
    return (
        whole_number(holder, "TemporalPositionIdentifier"),
        str(readable(holder, "EchoNumbers") or ""),
    )


def _measured(
    group: Dataset | None, own: str, tag: BaseTag, converted: Dataset, dataset: Dataset
) -> str:
    value = None if group is None else readable(group, own)
    if value is not None:
        return str(value)
    return written_value(converted, tag) or written_value(dataset, tag)


def _direction(diffusion: Dataset | None) -> str:
    directions = None if diffusion is None else diffusion.get("DiffusionGradientDirectionSequence")
    return str(readable(directions[0], "DiffusionGradientOrientation")) if directions else ""


def _indices(content: Dataset) -> tuple[int, ...]:
    values = readable(content, "DimensionIndexValues") or ()
    return tuple(map(int, values if not isinstance(values, int) else (values,)))
