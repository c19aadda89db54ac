"""What is to be predicted: files put into groups, each with a name for its results."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vismae.core.errors import SettingError
from vismae.core.types import Spacing
from vismae.files.dicom_identifiers import group_series
from vismae.files.discover import Group, RejectedFile, SourceFile, discover, find_file, inode
from vismae.files.nifti_pair import header_beside
from vismae.files.reasons import Reason

# Found in a folder these are no inputs that went wrong, only no images to predict.
_NO_INPUT = {
    *(Reason.UNKNOWN_FORMAT, Reason.NOT_AN_IMAGE, Reason.LOCALIZER, Reason.SECONDARY_CAPTURE),
    *(Reason.BURNED_IN, Reason.ULTRASOUND_TRACE, Reason.COPY),
}
_SUFFIXES = (
    *(".nii.gz", ".nii", ".hdr.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr"),
    *(".dcm", ".dicom", ".ima", ".png", ".jpeg", ".jpg", ".tiff", ".tif", ".bmp", ".gz"),
)
_RESERVED = {"records"}
_LONGEST_NAME_BYTES = 200


@dataclass(frozen=True)
class Told:
    """What a manifest says of an input.

    Attributes:
        modality: Word that counts whatever the files say, as in ingest; None leaves it to them.
        spacing: Of files that say none.
        volume: Name of the volume whose slices the files are, in their order; None where they
            form none, or say themselves how they lie.
        channel: Which volume of a file of several is meant, counted from 0.
    """

    modality: str | None
    spacing: Spacing
    volume: str | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Input:
    """Files that are predicted together: a DICOM series, a volume of a table, or one file.

    Attributes:
        group: The files.
        wanted_name: What its results would best be called: a relative path without suffix.
        named: The user named this very file, rather than a folder or archive that holds it.
        told: What a manifest says of it.
        beside: The further sequences of its case, in the order of the channels after its own.
    """

    group: Group
    wanted_name: str
    named: bool
    told: Told | None = field(default=None, kw_only=True)
    beside: tuple["Input", ...] = field(default=(), kw_only=True)

    @property
    def source(self) -> str:
        """Name of the first file, which stands for all."""
        return self.group.files[0].name

    @property
    def identity(self) -> str:
        """Tell this input from every other, whatever its files hold."""
        first = self.group.files[0]
        text = f"{len(self.group.files)}|{first.path.resolve()}|{first.member}"
        if self.told is not None and (self.told.volume, self.told.channel) != (None, None):
            text += f"|{self.told.volume}|{self.told.channel}"
        text += "".join(f"|{other.identity}" for other in self.beside)
        return hashlib.sha256(_as_bytes(text)).hexdigest()

    def fingerprint(self) -> str:
        """Return a hash over sizes and times of change (of archive members, checksums).

        What a manifest says counts too.

        Raises:
            UnreadableFileError: One is gone.
        """
        digest = hashlib.sha256(b"" if self.told is None else _as_bytes(repr(self.told)))
        for file in self.group.files:
            found = find_file(file.path, file.member)
            digest.update(_as_bytes(f"{file.name}|{found.size}|{found.change_mark}\n"))
        for other in self.beside:
            digest.update(_as_bytes(other.fingerprint()))
        return digest.hexdigest()


def _as_bytes(text: str) -> bytes:
    # File names need not be in the encoding of the system.
    return text.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Failure:
    """An input without a result.

    Attributes:
        source: Its file.
        reason: Why, as a code.
        message: Why, as a sentence.
        left_out: It was never an image to predict: a report or a scout view in a folder.
    """

    source: str
    reason: str
    message: str
    left_out: bool = False


def find_inputs(
    sources: Sequence[Path], out: Path | None = None
) -> tuple[list[Input], list[Failure]]:
    """Look through files, folders and archives for images; DICOM files become series.

    Files that were named one by one are a series too, as where a shell wrote out ``scans/*``.

    Args:
        sources: As the user named them.
        out: Folder of the results. Where it lies in a source, what an earlier run wrote there is
            no input.

    Raises:
        SettingError: A source is ``out`` itself, in which nothing would be looked for.
        UnreadableFileError: A source does not exist.
    """
    failures: list[Failure] = []
    own = None if out is None else inode(out)
    for source in sources:
        if own is not None and inode(source) == own:
            raise SettingError(
                f"out: {out} is the input {source} itself, and results never go among the images "
                "of their input. Name another folder; one inside the input will do."
            )
    apart = frozenset[tuple[int, int]]() if own is None else frozenset([own])
    single: dict[Path, tuple[int, SourceFile]] = {}
    found: list[tuple[int, Input]] = []
    files_named = {source.resolve() for source in sources}
    for place, source in enumerate(sources):
        header = header_beside(source, None)
        if header is not None and header[0].resolve() in files_named:
            continue  # as where a shell wrote out a folder with pairs
        named = not source.is_dir()
        files: list[SourceFile] = []
        for file in discover(source, apart):
            if isinstance(file, RejectedFile):
                failures.append(failure_of(file, named and file.path == str(source)))
            else:
                files.append(file)
        if named and len(files) == 1 and files[0].member is None:
            single.setdefault(source.resolve(), (place, files[0]))
            continue
        found += [
            (place, Input(group, _wanted_name(group, source), False))
            for group in group_series(files)
        ]
    places = {file: place for place, file in single.values()}
    for group in group_series(places):
        place = places[group.files[0]]
        found.append((place, Input(group, _wanted_name(group, sources[place]), True)))
    inputs: dict[str, Input] = {}
    for _, item in sorted(found, key=lambda pair: pair[0]):
        inputs.setdefault(item.identity, item)
    return list(inputs.values()), failures


def failure_of(found: RejectedFile, named: bool) -> Failure:
    """Return a file that no reader takes as a failure, or as no input at all."""
    left_out = is_no_input(str(found.reason), named)
    return Failure(found.path, str(found.reason), found.message, left_out)


def is_no_input(reason: str, named: bool) -> bool:
    """Tell whether a file met in a folder was never an image to predict."""
    return not named and reason in _NO_INPUT


def allot_names(inputs: Iterable[Input], taken: Mapping[str, str]) -> dict[str, str]:
    """Give every input a name of its own; earlier runs' names stay with their inputs.

    Args:
        inputs: In order.
        taken: Identity -> name, of earlier runs in the same folder.

    Returns:
        Identity -> name. A name that is taken gets a number: ``scan``, ``scan-2``.
    """
    names = dict(taken)
    used = {name.lower() for name in taken.values()} | _RESERVED
    for item in inputs:
        if item.identity in names:
            continue
        name, number = item.wanted_name, 1
        while name.lower() in used:
            number += 1
            name = f"{item.wanted_name}-{number}"
        names[item.identity] = name
        used.add(name.lower())
    return names


def _wanted_name(group: Group, source: Path) -> str:
    first = group.files[0]
    inside = PurePosixPath(first.path.stem) if source.is_file() else _below(first.path, source)
    if first.member is not None:
        home = inside if source.is_file() else inside.with_name(_without_suffix(inside.name))
        inside = home / first.member.replace("\\", "/")
    elif source.is_file():
        inside = PurePosixPath(first.path.name)
    if len(group.files) > 1:
        # The files of a series are slices; its folder is what people call it by.
        alone = source.is_file() and first.member is None
        home = source.resolve().parent if alone else source.resolve()
        inside = inside.parent if inside.parent.name else PurePosixPath(home.name)
    return result_name(inside, source.resolve().name or "image")


def result_name(path: PurePosixPath, otherwise: str) -> str:
    """Return what results of a path may be called: below their folder, without its suffix.

    Args:
        path: Of the image.
        otherwise: The name where nothing of the path can be used.
    """
    parts = [part for part in path.parts if part not in ("..", ".", "/") and ":" not in part]
    parts = parts or [otherwise]
    return "/".join([*parts[:-1], _short(_without_suffix(parts[-1]))])


def _short(name: str) -> str:
    """Leave room for what results add to a name; those cut to the same get numbers."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME_BYTES:
        return name
    return encoded[:_LONGEST_NAME_BYTES].decode(errors="ignore")


def _below(path: Path, folder: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(folder).as_posix())


def _without_suffix(name: str) -> str:
    lower = name.lower()
    end = next((suffix for suffix in (*_SUFFIXES, ".zip") if lower.endswith(suffix)), "")
    return name[: len(name) - len(end)] or name
