"""The same store from a PACS as from the same files on disk; a real Orthanc answers on loopback."""

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.data import get_testdata_file

from factories import write_concatenation, write_dicom_series, write_dicom_slice
from factories_labels import write_labelled_series, write_seg
from orthanc import Orthanc, running_orthanc
from vismae.core.config import IngestConfig
from vismae.core.errors import DataError
from vismae.data.store import Store
from vismae.files.dicomweb import RemoteInstance
from vismae.workflows.ingest import ingest
from vismae.workflows.intake.remote import _perhaps_parts

_BUNDLED = (
    "CT_small.dcm",
    "MR_small.dcm",
    "examples_rgb_color.dcm",
    "US1_J2KR.dcm",
    "emri_small.dcm",
)


def fill(folder: Path) -> list[Path]:
    """Write series of two patients, one with a segmentation, a report, and pydicom's own files."""
    rng = np.random.default_rng(0)
    for number in range(3):
        write_dicom_series(
            folder / f"mr{number}",
            rng.integers(0, 900, (5, 20, 24)).astype(np.uint16),
            Modality="MR",
            PatientID=f"P{number % 2}",
            StudyInstanceUID=f"1.2.{number % 2}",
            SeriesInstanceUID=f"1.2.{number % 2}.{number}",
        )
    volume = rng.integers(0, 900, (4, 16, 18)).astype(np.int16)
    series = write_labelled_series(folder / "ct", volume)
    write_seg(folder / "seg.dcm", series, {"Liver": volume > 600})
    write_dicom_slice(
        folder / "report.dcm",
        np.ones((4, 4), np.uint8),
        Modality="SR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
    )
    divided = rng.integers(-900, 900, (6, 16, 14)).astype(np.int16)
    places = [[0.0, 0.0, 2.0 * number] for number in range(6)]
    write_concatenation(folder / "divided", divided, places, [3, 2, 1])
    for name in _BUNDLED:
        found = get_testdata_file(name, download=False)
        if found is not None:
            dataset = pydicom.dcmread(str(found))
            dataset.save_as(folder / name)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def pacs(files: Path, tmp_path_factory: pytest.TempPathFactory):
    with running_orthanc(tmp_path_factory.mktemp("pacs")) as server:
        for path in sorted(files.rglob("*.dcm")):
            assert server.put(path), path
        yield server


def address(pacs: Orthanc) -> Path:
    return Path(f"dicomweb+{pacs.url}")


def content(store: Store) -> pd.DataFrame:
    places = [name for name in store.index.columns if "offset" in name or "bytes" in name]
    return store.index.drop(columns=["shard", "position", *places])


def test_a_pacs_gives_the_store_that_the_files_give(
    files: Path, pacs: Orthanc, tmp_path: Path
) -> None:
    salt = tmp_path / "salt"
    from_disk = ingest(
        IngestConfig(sources=(files,), store=tmp_path / "disk", salt=salt, executor="here")
    )
    from_pacs = ingest(
        IngestConfig(sources=(address(pacs),), store=tmp_path / "pacs", salt=salt, workers=2)
    )

    pd.testing.assert_frame_equal(content(from_pacs.store), content(from_disk.store))
    assert from_pacs.reasons == from_disk.reasons
    depths = from_disk.store.index.groupby("volume_id")["slice_index"].max()
    assert 5 in set(depths), "the parts of the divided image are one volume of six slices"
    assert from_pacs.store.classes == from_disk.store.classes == {1: "Liver"}
    for row in range(len(from_disk.store)):
        found, expected = from_pacs.store.read(row), from_disk.store.read(row)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        if expected.label_map is not None:
            np.testing.assert_array_equal(found.label_map, expected.label_map)


def test_a_query_narrows_what_comes_and_new_studies_are_added(
    files: Path, pacs: Orthanc, tmp_path: Path
) -> None:
    def run(**settings: object) -> int:
        config = IngestConfig(
            sources=(address(pacs),),
            store=tmp_path / "s",
            executor="here",
            **settings,  # type: ignore[arg-type]
        )
        return ingest(config).stored

    first = run(query={"PatientID": "P0"})
    again = run(query={"PatientID": "P0"})
    both = run(query={"Modality": "MR", "PatientID": "P*"})

    assert (first, again, both) == (10, 10, 15)


def test_a_server_that_does_not_answer_is_an_error_that_keeps_what_is_there(
    files: Path, tmp_path: Path
) -> None:
    config = IngestConfig(
        sources=(Path("dicomweb+http://127.0.0.1:9/dicom-web"),),
        store=tmp_path / "s",
        executor="here",
    )
    ingest(config.model_copy(update={"sources": (files / "mr0",)}))

    with pytest.raises(DataError, match=r"127\.0\.0\.1:9"):
        ingest(config)
    assert Store(tmp_path / "s").verify() == []


def test_parts_of_a_divided_image_are_looked_for_where_a_server_does_not_tell_of_them() -> None:
    enhanced_ct, ct = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2"

    def unsure(*objects: tuple[str, str]) -> set[str]:
        instances = [
            RemoteInstance(str(number), sop_class, 1, None, uid)
            for number, (sop_class, uid) in enumerate(objects)
        ]
        return _perhaps_parts(instances)

    assert unsure((enhanced_ct, ""), (enhanced_ct, ""), (ct, "")) == {"0", "1"}
    assert unsure((enhanced_ct, "1.2"), (enhanced_ct, "1.2"), (enhanced_ct, "")) == set()
    assert unsure((enhanced_ct, ""), (ct, "")) == set()
    assert unsure((ct, ""), (ct, "")) == set()
