"""Names, numbers and dates planted wherever a file can hold them, and looked for afterwards."""

import csv
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.sequence import Sequence as DicomSequence

from factories import write_dicom_slice
from vismae.data.store import Store

NAME = "QUASTELBERG"
NUMBER = "7391845062"
DATE = "19420317"
PLANTED = (NAME, NUMBER, DATE, "1942-03-17")
_TEXTS = {"SH": 16, "LO": 64, "ST": 200, "LT": 200, "UT": 200, "UC": 64, "PN": 64, "AE": 16}
# What decides how pixels are decoded must stay true.
_NEEDED = {
    *("Modality", "PhotometricInterpretation", "SOPClassUID", "PixelData", "TransferSyntaxUID"),
    *("SpecificCharacterSet", "PixelPresentation", "Units", "DecayCorrection", "RescaleType"),
    *("BurnedInAnnotation", "LossyImageCompression", "ConversionType", "ModalityLUTType"),
    *("ImageType", "PresentationLUTShape", "VOILUTFunction", "NumberOfFrames"),
}


def plant(path: Path) -> None:
    """Fill every text, date and identifier of PS3.6 that can stand in an image with the tokens."""
    dataset = dcmread(path)
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if not keyword or keyword in _NEEDED or retired or tag >> 16 in (0x0000, 0x0002, 0x7FE0):
            continue
        if vr in _TEXTS:
            value: object = f"{NAME} {NUMBER}"[: _TEXTS[vr]]
        elif vr == "DA":
            value = DATE
        elif vr == "DT":
            value = f"{DATE}101500"
        elif vr == "CS":
            value = NAME
        elif vr == "UI" and keyword not in dataset:
            value = f"1.2.3.{NUMBER}"
        else:
            continue
        setattr(dataset, keyword, value)
    dataset.PatientName = f"{NAME}^Erna"
    dataset.PatientID = NUMBER
    dataset.ImageType = ["ORIGINAL", "PRIMARY", NAME]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, f"1.2.826.{NUMBER}")
    inner = Dataset()
    inner.PatientName, inner.PatientBirthDate = NAME, DATE
    inner.RequestedProcedureDescription = NAME
    dataset.RequestAttributesSequence = DicomSequence([inner])
    for group in (0x0009, 0x0019, 0x7053):
        block = dataset.private_block(group, f"{NAME} 1.0", create=True)
        block.add_new(0x01, "LO", f"{NAME} {NUMBER}")
        block.add_new(0x02, "UN", f"{NAME} {DATE}".encode())
    overlay = dataset.private_block(0x0011, "SPARE", create=True)
    overlay.add_new(0x10, "SQ", DicomSequence([inner]))
    dataset.add_new(0x60000022, "LO", NAME)
    dataset.save_as(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "archive"
    person = root / f"{NAME}_Erna_{NUMBER}"
    for modality in ("CT", "MR", "CR", "US"):
        for number in range(2):
            pixels = rng.integers(0, 200, (20, 24)).astype(np.uint16)
            tags = {"Modality": modality, "InstanceNumber": number}
            if modality in ("CT", "MR"):
                tags["ImagePositionPatient"] = [0.0, 0.0, 3.0 * number]
            path = write_dicom_slice(
                person / modality / f"{DATE}_{NAME}_{number}.dcm", pixels, **tags
            )
            plant(path)
    report = write_dicom_slice(person / f"{NAME}_report.dcm", np.ones((4, 4), np.uint8))
    plant(report)
    dataset = dcmread(report)
    dataset.Modality, dataset.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    dataset.save_as(report)
    broken = person / f"{NAME}_broken.dcm"
    broken.write_bytes(report.read_bytes()[:600])
    picture = rng.integers(0, 255, (16, 16)).astype(np.uint8)
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", f"{NAME} {NUMBER} {DATE}")
    Image.fromarray(picture).save(person / f"{NAME}.png", pnginfo=info)
    Image.fromarray(picture.T).save(
        person / f"{NAME}.jpg", comment=f"{NAME} {NUMBER}".encode(), quality=95
    )
    Image.fromarray(picture[::-1]).save(person / f"{NAME}.tif", description=f"{NAME} {DATE}")
    volume = nib.Nifti1Image(rng.integers(0, 99, (8, 9, 3)).astype(np.int16), np.eye(4))
    volume.header["descrip"] = f"{NAME} {DATE}".encode()
    volume.header["aux_file"] = NAME.encode()
    volume.header["intent_name"] = NAME.encode()
    nib.save(volume, person / f"sub-{NAME}_T1w.nii.gz")
    with zipfile.ZipFile(person / f"{NAME}.zip", "w") as packed:
        packed.comment = NAME.encode()
        Image.fromarray(picture[:, ::-1]).save(person / "x.png")
        packed.write(person / "x.png", f"{NAME}/{NUMBER}.png")
        packed.writestr(f"{NAME}/{NUMBER}.dat", b"nothing that is known")
    (person / "x.png").unlink()
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient_id", "volume_id", "name", "born", "label"])
        writer.writerow(
            [f"{person.name}/{NAME}.png", NUMBER, f"{NAME}_1", f"{NAME} Erna", DATE, "normal"]
        )
    return root


def command(*arguments: str | Path) -> list[str]:
    start = [sys.executable, "-c", "from vismae.cli import main; main()", "ingest"]
    return [*start, *map(str, arguments)]


def words_of(store: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield everything a store's files hold, unpacked."""
    for path in sorted(store.rglob("*")):
        yield path, str(path.relative_to(store)).encode()
        if path.is_dir():
            continue
        yield path, path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path, repr(table.to_pydict()).encode() + repr(table.schema.metadata).encode()
        if path.suffix == ".arrow":
            with pa.memory_map(str(path)) as source:
                yield path, repr(pa.ipc.open_file(source).schema.metadata).encode()
    opened = Store(store)
    for row in range(len(opened)):
        yield store, opened.read(row).pixels.tobytes()


def test_nothing_that_names_a_person_gets_into_the_store_or_onto_the_screen(
    archive: Path, tmp_path: Path
) -> None:
    planted = sum(path.is_file() for path in archive.rglob("*"))
    store = tmp_path / "store"
    command = [
        sys.executable,
        "-c",
        "from vismae.cli import main; main()",
        "ingest",
        str(archive / "table.csv"),
    ]
    done = subprocess.run(
        [*command, str(archive), "--store", str(store), "--verbose"], capture_output=True
    )

    assert done.returncode == 0, done.stderr.decode()
    # Slices, pictures, slices of the volume, and what the archive holds.
    assert len(Store(store)) == 8 + 3 + 3 + 1
    assert planted > 15
    everything = [*words_of(store), (Path("screen"), done.stdout), (Path("screen"), done.stderr)]
    for path, content in everything:
        for token in PLANTED:
            for form in (token, token.lower(), token.title()):
                assert form.encode() not in content, f"{form} in {path}: {content[:200]!r}"
                assert form.encode("utf-16-le") not in content, f"{form} in {path}"


def test_the_private_folder_leads_back_to_every_file(archive: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [
        sys.executable,
        "-c",
        "from vismae.cli import main; main()",
        "ingest",
        str(archive),
        "--store",
        str(store),
    ]
    subprocess.run(command, check=True, capture_output=True)

    private = tmp_path / "store.private"
    with (store / "rejected.csv").open() as file:
        public = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    with (private / "rejected.csv").open() as file:
        secret = {row["file"]: row for row in csv.DictReader(file)}
    assert public == {name: row["reason"] for name, row in secret.items()}
    assert {Path(row["path"].partition("!")[0]).is_file() for row in secret.values()} == {True}
    with (private / "sources.csv").open() as file:
        sources = {row["image_id"]: row["source"] for row in csv.DictReader(file)}
    assert set(sources) == set(Store(store).index["image_id"])
    assert all(Path(path.partition("!")[0]).is_file() for path in sources.values())
