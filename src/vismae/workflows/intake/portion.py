"""One portion of an archive to one part of a store, in a worker."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from vismae.core.executor import Step
from vismae.core.host_memory import keep_freed_memory
from vismae.core.intake_account import IntakeAccount
from vismae.data.account import Accountant
from vismae.data.store_part_writer import Part, PartWriter
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.workflows.intake.read import ReadSettings, read_item
from vismae.workflows.intake.work import Begin, Rejection, WorkItem

# A portion of ordinary slices and what is made of them fits; what a large volume took goes back.
_KEPT_BYTES = 256 * 2**20
_LABEL_MAP = "label_map"


@dataclass(frozen=True)
class PartSettings:
    """How parts are written.

    Attributes:
        store: Folder of the store.
        encoding: ``zstd`` or ``raw``.
        shard_mib: Size at which a shard is closed.
        keep_pixels: False for a trial that only counts.
    """

    store: Path
    encoding: str = "zstd"
    shard_mib: int = 256
    keep_pixels: bool = True


@dataclass(frozen=True)
class PortionTask:
    """What a worker is given.

    Attributes:
        number: Of the portion; names its part.
        items: Number and content of its work items.
        read, write: Settings.
    """

    number: int
    items: tuple[tuple[int, WorkItem], ...]
    read: ReadSettings
    write: PartSettings


@dataclass(frozen=True)
class PortionResult:
    """What became of a portion.

    Attributes:
        number: Of the portion.
        part: Its part of the store; None if no image came of it.
        images: Pseudonym of each image, and its entry in the ledger.
        rejected: What was left out.
        account: What came in.
        labels: Entry of each label file and why it fits none of the volumes of a work item; None
            if it was drawn on one.
        label_maps: Entry of an image and why the label map of its table is not used.
    """

    number: int
    part: Part | None
    images: list[tuple[str, int]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    account: IntakeAccount = field(default_factory=IntakeAccount)
    labels: list[tuple[int, Rejection | None]] = field(default_factory=list)
    label_maps: list[tuple[int, Rejection]] = field(default_factory=list)


def read_portion(task: PortionTask, step: Step) -> PortionResult:
    """Read a portion's items in order and write them as one part.

    A worker that dies half-way leaves nothing that looks like a part.

    Args:
        task: What to do.
        step: Told before each file what is begun; see ``begun``.
    """
    keep_freed_memory(_KEPT_BYTES)
    images: list[tuple[str, int]] = []
    rejected: list[Rejection] = []
    labels: list[tuple[int, Rejection | None]] = []
    label_maps: list[tuple[int, Rejection]] = []
    accountant = Accountant()
    with (
        quiet_pydicom(),
        PartWriter(
            task.write.store,
            part_name(task.number),
            encoding=task.write.encoding,
            shard_mib=task.write.shard_mib,
            extra_columns=task.read.extra_columns,
            keep_pixels=task.write.keep_pixels,
        ) as writer,
    ):
        for number, item in task.items:
            found = read_item(item, task.read, _beginning(step, number))
            rejected.extend(found.rejected)
            labels.extend(found.labels.items())
            label_maps.extend(found.label_maps)
            for piece in found.slices:
                writer.add(piece.record, piece.pixels, piece.label_map)
                accountant.add(piece.record, piece.pixels, piece.label_map)
                images.append((piece.record.image_id, piece.entry))
        part = writer.finish() if images else None
    account = accountant.account
    return PortionResult(task.number, part, images, rejected, account, labels, label_maps)


def part_name(number: int) -> str:
    """Return the name of a portion's part; sorts as the portions do."""
    return f"{number:06d}"


def _beginning(step: Step, item: int) -> Begin:
    def begin(entry: int | None, label_map: bool = False) -> None:
        words = [item] if entry is None else [item, entry]
        step(" ".join(map(str, [*words, _LABEL_MAP] if label_map else words)))

    return begin


def begun(step: str) -> tuple[int, int | None, bool]:
    """Return the work item of a step, the entry of its file, and whether its label map was read.

    There is no one file where all of the item are put together.
    """
    item, *rest = step.split(" ")
    return int(item), int(rest[0]) if rest else None, _LABEL_MAP in rest


def without(task: PortionTask, item: int, entries: Collection[int]) -> PortionTask:
    """Return the task without some files of a work item, or without the item if none is left."""
    items: list[tuple[int, WorkItem]] = []
    for number, content in task.items:
        if number == item:
            kept = tuple(entry for entry in content.entries if entry.number not in entries)
            labels = tuple(label for label in content.labels if label.number not in entries)
            content = replace(content, entries=kept, labels=labels)
        if content.entries:
            items.append((number, content))
    return replace(task, items=tuple(items))


def without_label_maps(task: PortionTask, item: int, entries: Collection[int]) -> PortionTask:
    """Return the task with some images of a work item as if they had no label map."""
    content = dict(task.items)[item]
    kept = tuple(
        replace(entry, row=replace(entry.row, label_map=None)) if entry.number in entries else entry
        for entry in content.entries
    )
    items = [
        (number, replace(other, entries=kept) if number == item else other)
        for number, other in task.items
    ]
    return replace(task, items=tuple(items))
