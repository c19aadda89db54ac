"""MetaImage and NRRD volumes and label maps through SimpleITK, in one orientation.

An image and its label map share ``slice_orientation`` and ``label_place``, as in NIfTI;
directions of these formats count to left, posterior and superior (LPS) and become RAS here.
"""

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vismae.core.advice import advice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, Spacing
from vismae.files.discover import SourceFile
from vismae.files.itk_header import HEADER_BYTES, ItkHeader, Segment, parse_itk_header
from vismae.files.label_place import ImageBlock, lay_on_image
from vismae.files.orientation import SliceOrientation, slice_orientation
from vismae.files.pixels import as_class_numbers, grey_if_equal, native_numbers, require_size
from vismae.files.reasons import Reason
from vismae.files.volume_customs import (
    customary_unit,
    modality_from_name,
    wanted_volumes,
    with_believable_unit,
)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(
    file: SourceFile, modality: Modality | None = None, channel: int | None = None
) -> list[MedicalImage]:
    """Read an image, a volume, or each volume of a 4-D file (``MAX_VOLUMES``, evenly spread).

    With ``channel`` only that volume is read, counted from 0.

    The modality is the given one, else the header's, else that of the name as for NIfTI; CT is
    taken to hold Hounsfield units, PET to hold SUV, where the values may be that. Floats become
    float32; 8-bit colours are kept.

    ``details`` holds ``orientation_known``, ``file_orientation`` (how the voxels were turned),
    ``label_intent`` (a segmentation by its header), ``volume_index`` and ``volumes_in_file``.

    Raises:
        UnreadableFileError: ``needs-extra`` without SimpleITK, ``not-found`` if the file of a
            detached header is missing, ``truncated``, ``undecodable``, ``too-large``,
            ``unsupported-pixels``, ``not-finite`` or ``no-channel``.
    """
    header, volumes, orientation, colour = _read(file)
    made = modality or header.modality
    if made is Modality.OTHER and modality is None:
        made = modality_from_name(file.name)
    images = []
    for index in wanted_volumes(len(volumes), channel, file.name):
        pixels = orientation.to_slices(native_numbers(volumes[index], file.name))
        if colour:
            pixels = grey_if_equal(pixels)
        images.append(
            MedicalImage(
                pixels=pixels,
                modality=made,
                unit=customary_unit(made, pixels.dtype.itemsize == 1),
                source=file.name,
                spacing=orientation.spacing,
                affine=orientation.affine,
                details={
                    "orientation_known": header.orientation_known,
                    "file_orientation": orientation,
                    "label_intent": bool(header.segments),
                    "volume_index": index,
                    "volumes_in_file": len(volumes),
                },
            )
        )
    return with_believable_unit(images)


def read_segments(file: SourceFile) -> tuple[Segment, ...]:
    """Return the structures that the header of a segmentation names; none of any other file.

    Raises:
        UnreadableFileError: As for ``parse_itk_header``.
    """
    return parse_itk_header(file.head(HEADER_BYTES), file.name).segments


def read_itk_labels(
    file: SourceFile, block: ImageBlock | None = None, classes: Sequence[int] | None = None
) -> tuple[np.ndarray, Spacing]:
    """Read a label map, oriented exactly as ``read_itk`` orients the image.

    A segmentation whose header names its segments may be a part of its image's grid.

    Args:
        file: The label map.
        block: The slices it describes; where given, the label map must lie on them.
        classes: Class number of each of ``read_segments``; their own values when None.

    Returns:
        Class numbers, int32 (S, H, W), and the spacing.

    Raises:
        UnreadableFileError: As for ``read_itk``; ``label-not-integer`` names the first values
            that are not whole numbers, ``label-format`` refuses colours and several volumes;
            ``label-geometry`` as ``lay_on_image``.
    """
    header, volumes, orientation, colour = _read(file)
    known = header.orientation_known
    if header.segments and not colour:
        numbers = _paint_segments(volumes, header.segments, classes, file.name)
        laid = lay_on_image(numbers, orientation, known, file.name, block, is_part=True)
        return laid, orientation.spacing
    if len(volumes) > 1 or colour:
        found = "colours" if colour else f"{len(volumes)} volumes"
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{file.name}: holds {found} where one volume of class numbers was expected. "
            f"Merge it into one label map.",
        )
    numbers = as_class_numbers(volumes[0], file.name)
    return lay_on_image(numbers, orientation, known, file.name, block), orientation.spacing


def _paint_segments(
    layers: np.ndarray, segments: Sequence[Segment], classes: Sequence[int] | None, name: str
) -> np.ndarray:
    """Return class numbers (I, J, K); a small segment stays visible on a large one."""
    wanted = [segment.value for segment in segments] if classes is None else classes
    numbers = {
        (segment.layer, segment.value): number
        for segment, number in zip(segments, wanted, strict=True)
    }
    if max(layer for layer, _ in numbers) >= len(layers):
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{name}: a segment lies in a layer that is not there; the file has {len(layers)}. "
            "Save the segmentation again.",
        )
    sizes: dict[tuple[int, int], int] = {}
    for layer, volume in enumerate(layers):
        found = np.unique(as_class_numbers(volume, name), return_counts=True)
        for value, count in zip(*(part.tolist() for part in found), strict=True):
            sizes[layer, value] = count
            if value and (layer, value) not in numbers:
                raise UnreadableFileError(
                    Reason.LABEL_FORMAT,
                    f"{name}: voxels hold the value {value}, which its header gives to no "
                    "segment. Save the segmentation again.",
                )
    painted = np.zeros(layers.shape[1:], dtype=np.int32)
    # One after the other: those of a whole body would not fit into the memory together.
    for layer, value in sorted(numbers, key=lambda key: -sizes.get(key, 0)):
        if (layer, value) in sizes:
            painted[layers[layer] == value] = numbers[layer, value]
    return painted


def _read(file: SourceFile) -> tuple[ItkHeader, np.ndarray, SliceOrientation, bool]:
    """Return volumes (V, I, J, K) or, for colour, (V, I, J, K, 3), and how to turn them."""
    with file.open() as stream:
        header = parse_itk_header(stream.read(HEADER_BYTES), file.name)
    sitk = simple_itk(file.name, "MetaImage and NRRD files")
    with _on_disk(file, header) as path:
        reader = sitk.ImageFileReader()
        reader.SetImageIO(header.reader)
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(Reason.UNDECODABLE, file.name, "the header is damaged") from error
        sizes, channels = reader.GetSize(), reader.GetNumberOfComponents()
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
        stored, colour = _require_usable(kind, len(sizes), channels, header, file.name)
        require_size((*sizes, channels), stored.itemsize, file.name)
        try:
            image = reader.Execute()
        except RuntimeError as error:
            # ITK has one error for pixels that end early and for damaged compression.
            why = "the pixels cannot be read to the end"
            raise _unreadable(Reason.TRUNCATED, file.name, why) from error
        pixels = np.array(sitk.GetArrayViewFromImage(image))
    space = min(len(sizes), 3)
    affine = _affine(image, space)
    volumes = _volumes_first(pixels, len(sizes), channels, colour)
    columns, rows, slices = (*sizes, 1)[:3]
    return header, volumes, slice_orientation((columns, rows, slices), affine), colour


def simple_itk(name: str, kind: str) -> Any:
    """Return the library, silenced.

    Args:
        name: Of the file to read.
        kind: What files like it are.

    Raises:
        UnreadableFileError: ``needs-extra`` where it is not installed.
    """
    try:
        sitk = importlib.import_module("SimpleITK")
    except ImportError as error:
        raise UnreadableFileError(
            Reason.NEEDS_EXTRA,
            f"{name}: {kind} are read by SimpleITK, which is not installed. "
            + advice(
                "Run: pip install 'vismae[itk]'",
                "Convert it to NIfTI, or ask who runs the server for the extra 'itk'.",
            ),
        ) from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


@contextmanager
def _on_disk(file: SourceFile, header: ItkHeader) -> Iterator[Path]:
    """Give the library a path: the file itself, or a private copy of an archive's members."""
    parts = [file]
    if header.pixel_file is not None:
        parts.append(_beside(file, header.pixel_file))
    if file.member is None:
        if not all(part.path.is_file() for part in parts):
            raise _no_pixel_file(file.name, header)
        yield file.path
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / PurePosixPath(part.member or "").name for part in parts]
        for part, path in zip(parts, paths, strict=True):
            try:
                path.write_bytes(part.read_bytes())
            except UnreadableFileError as error:
                if part is not file and error.reason == Reason.NOT_FOUND:
                    raise _no_pixel_file(file.name, header) from error
                raise
        yield paths[0]


def _beside(file: SourceFile, name: str) -> SourceFile:
    if file.member is None:
        return SourceFile(file.path.with_name(name), None, file.kind)
    return SourceFile(file.path, str(PurePosixPath(file.member).with_name(name)), file.kind)


def _no_pixel_file(name: str, header: ItkHeader) -> UnreadableFileError:
    return UnreadableFileError(
        Reason.NOT_FOUND,
        f"{name}: its pixels are in '{header.pixel_file}', which is not in the same folder. Copy "
        f"it there.",
    )


def _require_usable(
    kind: str, axes: int, channels: int, header: ItkHeader, name: str
) -> tuple[np.dtype, bool]:
    """Return the type of the stored values, and whether they are colours."""
    dtype = _DTYPES.get(kind.removeprefix("vector of "))
    run = axes == 3 and header.components_are_volumes
    colour = dtype == np.uint8 and channels in (3, 4) and axes <= 3 and not run
    if dtype is None or axes > 4 or not (channels == 1 or colour or run):
        raise UnreadableFileError(
            Reason.UNSUPPORTED_PIXELS,
            f"{name}: {axes} axes of {channels} × {kind}. Grey images of two to four axes and "
            f"8-bit colours are read; save each component as a file of its own.",
        )
    return dtype, colour


_DTYPES = {
    f"{bits}-bit {sign} integer": np.dtype(f"{letter}{bits // 8}")
    for bits in (8, 16, 32, 64)
    for sign, letter in (("signed", "i"), ("unsigned", "u"))
} | {"32-bit float": np.dtype("f4"), "64-bit float": np.dtype("f8")}


def _volumes_first(pixels: np.ndarray, axes: int, channels: int, colour: bool) -> np.ndarray:
    """Turn (T, K, J, I) with channels last, as the library gives it, into (V, I, J, K[, 3])."""
    if channels == 1:
        pixels = pixels[..., None]
    turned = pixels.reshape(*(1,) * (4 - axes), *pixels.shape).transpose(0, 3, 2, 1, 4)
    if colour:
        return turned[..., :3]
    return turned[..., 0] if channels == 1 else np.moveaxis(turned[0], -1, 0)


def _affine(image: Any, axes: int) -> np.ndarray:
    """Return voxel to RAS mm, (4, 4)."""
    count = image.GetDimension()
    directions = np.reshape(image.GetDirection(), (count, count))
    affine = np.eye(4)
    affine[:axes, :axes] = (directions * image.GetSpacing())[:axes, :axes]
    affine[:axes, 3] = image.GetOrigin()[:axes]
    return _LPS_TO_RAS @ affine


def _unreadable(reason: Reason, name: str, why: str) -> UnreadableFileError:
    return UnreadableFileError(reason, f"{name}: {why}. Copy the file again.")
