"""Settings of the commands on data: ingest, inspect, convert, select."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from vismae.core.sections import Settings
from vismae.core.setting_types import Device, Keepable, Modalities, Paths, Words


class IngestConfig(Settings):
    """Settings of ``vismae ingest``."""

    sources: Paths
    """Folders, files, zip archives, csv manifests, or ``dicomweb+https://host/path``."""
    store: Path
    """Folder of the store to make, to go on with, or to add to."""
    modality: str | None = None
    """Modality of files that do not say: ct, mr, pet, xr, us, other."""
    keep: tuple[Keepable, ...] = ()
    """DICOM images to read although they are left out as a rule: burned-in,
    secondary-capture, localizer."""
    max_side: int | None = Field(default=None, ge=16)
    """Cap on height and width in pixels; larger images are averaged down, and marked."""
    keep_column: Words = ()
    """Further manifest columns to keep in the index."""
    keep_ids: bool = False
    """Patient and volume ids of csv manifests are pseudonyms already: keep them as written."""
    salt: Path | None = None
    """File of the secret behind all pseudonyms, made if missing; ``STORE.private/salt`` when
    unset. The private folder then lies beside this file."""
    query: dict[str, str] = Field(default_factory=dict)
    """What to ask a DICOMweb server for: DICOM keyword -> value."""
    encoding: Literal["zstd", "raw"] = "zstd"
    """Lossless encoding of pixels in the shards."""
    shard_mib: int = Field(default=256, ge=1)
    """Size at which a shard is closed, in MiB."""
    max_rejected_fraction: float | None = Field(default=None, ge=0.0, le=1.0)
    """Fail if more than this share of the files could not be read."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that read files; one per processor core when unset."""
    executor: str = "processes"
    """Where files are read: ``processes`` on this machine, ``dask://host:port`` on a cluster, or
    ``here`` in this very process (without limits per file)."""
    file_seconds: float = Field(default=300.0, gt=0.0)
    """A file that takes longer to read is left out."""
    file_memory_gib: float = Field(default=8.0, gt=0.0)
    """A file that needs more memory is left out."""
    check_space: bool = True
    """Refuse to begin where the images are unlikely to fit on the disk."""
    dry_run: bool = False
    """Read everything and give the whole account, but write no store."""
    report: Path | None = None
    """HTML report to write; ``STORE/report.html`` when unset (none for a dry run)."""
    overwrite: bool = False
    """Begin anew in place of a store that is there."""


class InspectConfig(Settings):
    """Settings of ``vismae inspect``."""

    store: Path
    """Folder of the store."""
    out: Path | None = None
    """Contact sheet to write (PNG); STORE/contact_sheet.png when unset."""
    images: int = Field(default=25, ge=1)
    """Images on the contact sheet."""
    verify: bool = False
    """Check every shard against its checksum and read every row."""


class SelectConfig(Settings):
    """Settings of ``vismae select``."""

    model: Path
    """Model folder; a fine-tuned one for entropy and hybrid."""
    store: Path
    """Store with the patients to choose from."""
    out: Path
    """Folder for the list and the pictures."""
    n: int = Field(default=20, ge=1)
    """Patients to choose."""
    strategy: Literal["random", "entropy", "core-set", "hybrid"] | None = None
    """How: random, entropy (the most uncertain), core-set (the most unlike any labelled one), or
    hybrid (core-set among the uncertain); when unset hybrid, or core-set for a masked
    autoencoder."""
    labelled: Path | None = None
    """csv with a column patient_id: further patients whose labels are there."""
    ignore_labels: bool = False
    """Choose also among patients with labels in the store or known to the model."""
    among: Path | None = None
    """csv with a column patient_id: choose only among these, whatever their split."""
    split: Words = ()
    """Choose only among these splits of the store; when empty all but val and test."""
    modality: Modalities = ()
    """Modalities to look at; the model's when empty."""
    images_per_patient: int = Field(default=8, ge=1)
    """Most images of a patient to look at, evenly spread."""
    batch_size: int = Field(default=16, ge=1)
    """Images at a time."""
    device: Device = "auto"
    """Where to compute."""
    seed: int = Field(default=0, ge=0)
    """Seed of chance, which decides between equals."""
    overwrite: bool = False
    """Empty ``out`` first."""


PublicLayout = Literal[
    "acdc", "amos22", "btcv", "synapse", "busi", "isic2018", "medmnist", "nnunet"
]


class ConvertConfig(Settings):
    """Settings of ``vismae convert``."""

    layout: PublicLayout
    """Layout of the data set: acdc, amos22, btcv, synapse (btcv with eight organs and the published
    test patients), busi, isic2018, medmnist (one .npz) or nnunet (dataset.json)."""
    source: Path
    """Folder or file of the data set, as its publishers hand it out."""
    out: Path
    """Folder for the manifest and the settings of each task."""
    fold: int | None = Field(default=None, ge=0)
    """Fold of splits_final.json that validates, counted from 0 (nnunet)."""
    channel: int | str | None = None
    """Channel of several that becomes the image, by name or number from 0; when unset all of them
    are seen together, as sequences of a case (nnunet)."""
    overwrite: bool = False
    """Empty ``out`` first."""
