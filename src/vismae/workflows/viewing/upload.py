"""An uploaded file, read once: its images on the disk for the page and for the models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vismae.core.errors import DataError, PreprocessingError, UnreadableFileError
from vismae.core.types import Flag
from vismae.files.archive import close_archives, require_archive_size
from vismae.files.discover import RejectedFile, identify
from vismae.files.pixels import image_limit
from vismae.files.reasons import Reason
from vismae.workflows.prediction.inputs import Failure, Input, allot_names, find_inputs
from vismae.workflows.prediction.reading import ReadInput, Volume, read_input
from vismae.workflows.viewing.images import ShownImage, show_volume

_MOST_MEMBERS = 20_000
_MOST_IMAGES = 500


@dataclass(frozen=True)
class UploadInput:
    """Files of an upload that were read together, and what was shown of them.

    Attributes:
        read: The input; its volumes hold no pixels.
        name: What its results are called.
        shown: Of each volume.
    """

    read: ReadInput
    name: str
    shown: tuple[ShownImage, ...]

    def with_pixels(self, folder: Path) -> ReadInput:
        """Return the input as if it had just been read; pixels come from the disk as needed."""
        volumes = [
            Volume(volume.image, volume.shape, list(shown.stored_slices(folder)))
            for volume, shown in zip(self.read.volumes, self.shown, strict=True)
        ]
        return replace(self.read, volumes=volumes)


@dataclass(frozen=True)
class Upload:
    """What was found in an uploaded file.

    Attributes:
        folder: Holds the files of pixels.
        inputs: What could be read.
        failures: What could not.
    """

    folder: Path
    inputs: tuple[UploadInput, ...]
    failures: tuple[Failure, ...]

    @property
    def images(self) -> tuple[ShownImage, ...]:
        """All images, in order."""
        return tuple(shown for item in self.inputs for shown in item.shown)


def read_upload(
    file: Path, folder: Path, modality: str | None, most_bytes: int, keep: Sequence[Flag] = ()
) -> Upload:
    """Read every image in a file, and write it as the page shows it.

    Args:
        file: An image or a zip archive. Messages name it as it is named here.
        folder: Where the pixels go.
        modality: Word for files that do not say theirs.
        most_bytes: That may come of it, unpacked or decoded.
        keep: DICOM images to read although they are left out as a rule.

    Raises:
        UnreadableFileError: Nothing in it could be read; carries the first reason.
        DataError: It is an archive without any image.
    """
    if identify(file) == "archive":
        require_archive_size(file, most_bytes, _MOST_MEMBERS)
    found, failures = find_inputs([file])
    names = allot_names(found, {})
    inputs: list[UploadInput] = []
    written = images = 0
    try:
        for item in found:
            with image_limit(most_bytes - written):
                read = _read_or_note(item, modality, frozenset(keep), failures)
            if read is None:
                continue
            shown: list[ShownImage] = []
            for volume in read.volumes:
                written += sum(pixels.nbytes for pixels in volume.stored)
                if written > most_bytes or images >= _MOST_IMAGES:
                    raise UnreadableFileError(
                        Reason.TOO_LARGE,
                        f"{file}: decodes to more than {most_bytes} bytes or {_MOST_IMAGES} "
                        "images. Divide it.",
                    )
                shown.append(show_volume(volume, folder, images))
                images += 1
            inputs.append(UploadInput(read, names[item.identity], tuple(shown)))
    finally:
        close_archives()
    if not inputs:
        raise _nothing(file, failures)
    return Upload(folder, tuple(inputs), tuple(failures))


def _read_or_note(
    item: Input, modality: str | None, keep: frozenset[Flag], failures: list[Failure]
) -> ReadInput | None:
    try:
        read = read_input(item, (), modality, keep)
    except UnreadableFileError as error:
        failures.append(Failure(item.source, str(error.reason), str(error)))
        return None
    except (PreprocessingError, DataError) as error:
        failures.append(Failure(item.source, error.code, str(error)))
        return None
    failures.extend(_of(rejected) for rejected in read.rejected)
    return read


def _of(rejected: RejectedFile) -> Failure:
    return Failure(rejected.path, str(rejected.reason), rejected.message)


def _nothing(file: Path, failures: list[Failure]) -> DataError | UnreadableFileError:
    if not failures:
        return DataError(
            f"{file}: an archive without any image. Put DICOM, NIfTI or picture files into it."
        )
    first = failures[0]
    more = f" {len(failures) - 1} further files could not be read either." if failures[1:] else ""
    return UnreadableFileError(first.reason, first.message + more)
