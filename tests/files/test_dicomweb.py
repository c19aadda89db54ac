"""Finding and fetching series, against a real PACS (Orthanc)."""

import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client.web import DICOMwebClient
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from factories import write_dicom_series
from orthanc import Orthanc, running_orthanc
from vismae.core.errors import SettingError, UnreadableFileError
from vismae.core.types import KEEPABLE, MedicalImage
from vismae.files import dicomweb
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicomweb import DicomWebServer, RemoteSeries, parse_dicomweb
from vismae.files.dicomweb_address import as_written
from vismae.files.dicomweb_failures import DicomWebError
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.files.remote_file import RemoteFile

CT_SERIES, MR_SERIES, LARGE_SERIES = "1.2.840.1.1", "1.2.840.1.2", "1.2.840.1.3"
BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
COMPRESSED = {
    "JPEG2000.dcm": "1.2.840.10008.1.2.4.91",
    "MR_small_jp2klossless.dcm": "1.2.840.10008.1.2.4.90",
    "MR_small_jpeg_ls_lossless.dcm": "1.2.840.10008.1.2.4.80",
    "SC_rgb_rle_2frame.dcm": "1.2.840.10008.1.2.5",
    "SC_rgb_jpeg_gdcm.dcm": "1.2.840.10008.1.2.4.70",
    "JPGExtended.dcm": "1.2.840.10008.1.2.4.51",
    "examples_ybr_color.dcm": "1.2.840.10008.1.2.4.50",
    "image_dfl.dcm": "1.2.840.10008.1.2.1.99",
    "ExplVR_BigEnd.dcm": "1.2.840.10008.1.2.2",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Paths of three series: two of one patient and study, a large one of another."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    small = rng.integers(0, 2000, (12, 16, 20)).astype(np.int16)
    large = rng.integers(0, 2000, (30, 512, 512)).astype(np.int16)
    first = {"PatientID": "P1", "StudyInstanceUID": "1.2.840.1", "StudyDate": "20200105"}
    return {
        CT_SERIES: write_dicom_series(
            folder / "ct", small, SeriesInstanceUID=CT_SERIES, BodyPartExamined="CHEST", **first
        ),
        MR_SERIES: write_dicom_series(
            folder / "mr", small[:3], SeriesInstanceUID=MR_SERIES, Modality="MR", **first
        ),
        LARGE_SERIES: write_dicom_series(
            folder / "large",
            large,
            SeriesInstanceUID=LARGE_SERIES,
            PatientID="P2",
            StudyInstanceUID="1.2.840.2",
            StudyDate="20211231",
        ),
    }


@pytest.fixture(scope="module")
def pacs(
    made: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orthanc]:
    """Return a PACS that holds the made series and compressed files of pydicom."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        for path in [path for paths in made.values() for path in paths]:
            assert server.put(path)
        yield server


@pytest.fixture(scope="module")
def compressed(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return files of every kind of compression, which the PACS holds too."""
    folder = tmp_path_factory.mktemp("compressed")
    copies = {name: own_copy(BUNDLED / name, folder) for name in COMPRESSED}
    assert all(pacs.put(path) for path in copies.values())
    return copies


@pytest.fixture
def server(pacs: Orthanc) -> DicomWebServer:
    return DicomWebServer(pacs.url, timeout_seconds=20.0, retries=2, pause_seconds=0.05)


def own_copy(path: Path, folder: Path) -> Path:
    """Copy a file under identifiers of its own, for some of pydicom's files share theirs."""
    with quiet_pydicom():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = path.stem
        for level in ("Study", "Series", "SOP"):
            setattr(dataset, f"{level}InstanceUID", generate_uid(entropy_srcs=[path.name, level]))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / path.name)
    return folder / path.name


def series_of(path: Path) -> tuple[RemoteSeries, str]:
    """Return the series and SOP instance UID that a file names."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    series = RemoteSeries(
        str(header.PatientID), header.StudyInstanceUID, header.SeriesInstanceUID, "", None
    )
    return series, str(header.SOPInstanceUID)


def facts_of(image: MedicalImage) -> dict[str, object]:
    """Return everything but paths, in a form that numpy can compare."""
    details = {name: value for name, value in image.details.items() if name != "slice_sources"}
    return {**vars(image), "source": "", "details": repr(details)}


def found_by(server: DicomWebServer, **query: str) -> dict[str, RemoteSeries]:
    return {series.series_uid: series for series in server.find_series(query)}


def contents(paths: list[Path]) -> list[bytes]:
    return sorted(path.read_bytes() for path in paths)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("dicomweb+https://pacs.example:8443/dicom-web/", "https://pacs.example:8443/dicom-web"),
        ("DICOMweb+HTTP://pacs", "http://pacs"),
        ("dicomweb+http:/pacs/dicom-web", "http://pacs/dicom-web"),
        ("dicomweb+https://[::1]:8042/a", "https://[::1]:8042/a"),
        ("https://pacs/dicom-web", None),
        ("/data/dicomweb", None),
    ],
)
def test_the_address_of_a_server_is_told_from_paths(text: str, url: str | None) -> None:
    assert parse_dicomweb(text) == url


def test_an_address_is_told_as_it_was_written() -> None:
    for text in ("DICOMweb+https://pacs:8443/dicom-web", "/data/dicomweb", "scans"):
        assert as_written(Path(text)) == text
    server = DicomWebServer("https://pacs/d")
    file = RemoteFile(Path("dicomweb+https://pacs/d"), "1/2/3", "dicom", server)
    assert file.name == "dicomweb+https://pacs/d!1/2/3"


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hidden@pacs/dicom-web",
        "http://hidden@pacs/dicom-web",
        "https://pacs/dicom-web?token=hidden",
        "https://pacs/dicom-web#hidden",
        "https://user:hidden@pacs:no-port/",
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(address: str) -> None:
    for make in (lambda: parse_dicomweb(f"dicomweb+{address}"), lambda: DicomWebServer(address)):
        with pytest.raises(SettingError, match="VISMAE_DICOMWEB") as caught:
            make()
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("address", ["ftp://pacs", "http://", "http://pacs:port", "https://:80/x"])
def test_an_address_without_host_or_with_another_protocol_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match="not the address of a DICOMweb server"):
        parse_dicomweb(f"dicomweb+{address}")


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"timeout_seconds": 0.0}, {"retries": -1}, {"pause_seconds": float("nan")}):
        with pytest.raises(SettingError, match="must be above 0"):
            DicomWebServer("http://pacs", **wrong)  # pyright: ignore[reportArgumentType]


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vismae.files.dicomweb_connection", raising=False)
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(SettingError, match=r"vismae\[pacs\]"):
        list(DicomWebServer("http://not-asked").find_series({}))


def test_keys_of_study_and_series_find_the_same_as_the_files_say(
    server: DicomWebServer, pacs: Orthanc, made: dict[str, list[Path]]
) -> None:
    every = found_by(server)
    reference = DICOMwebClient(pacs.url).search_for_series()
    assert sorted(every) == sorted(item["0020000E"]["Value"][0] for item in reference)
    assert every[CT_SERIES] == RemoteSeries("P1", "1.2.840.1", CT_SERIES, "CT", 12)
    assert every[LARGE_SERIES].instances == len(made[LARGE_SERIES])

    def made_by(**query: str) -> set[str]:
        return set(found_by(server, **query)) & set(made)

    assert made_by(Modality="CT") == {CT_SERIES, LARGE_SERIES}
    assert made_by(PatientID="P1") == {CT_SERIES, MR_SERIES}
    assert made_by(PatientID="P1", Modality="MR") == {MR_SERIES}
    assert made_by(StudyDate="20200101-20201231", Modality="CT") == {CT_SERIES}
    assert made_by(StudyDate="20210101-", Modality="CT") == {LARGE_SERIES}
    assert made_by(StudyInstanceUID="1.2.840.1", BodyPartExamined="CHE*") == {CT_SERIES}
    assert made_by(ModalitiesInStudy="MR", Modality="CT") == {CT_SERIES}
    assert found_by(server, SeriesInstanceUID=MR_SERIES) == {MR_SERIES: every[MR_SERIES]}
    assert made_by(PatientID="P?", Modality="?R") == {MR_SERIES}
    assert made_by(StudyInstanceUID="1.2.840.1,1.2.840.2", Modality="CT") == {
        CT_SERIES,
        LARGE_SERIES,
    }
    assert found_by(server, PatientID="nobody") == {}


def test_pages_of_any_size_give_the_same(
    server: DicomWebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, instances = found_by(server), server.find_instances(found_by(server)[CT_SERIES])
    monkeypatch.setattr(dicomweb, "_PAGE", 2)
    assert found_by(server) == series
    assert server.find_instances(series[CT_SERIES]) == instances
    assert sorted(instance.instance_number or 0 for instance in instances) == list(range(1, 13))


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(SettingError, match=r"query\.Modalty.*Modality") as caught:
        list(DicomWebServer("http://not-asked").find_series({"Modalty": "a-value"}))
    assert "a-value" not in str(caught.value)


def test_frames_of_a_multi_frame_object_are_told(
    server: DicomWebServer, compressed: dict[str, Path]
) -> None:
    series, uid = series_of(compressed["SC_rgb_rle_2frame.dcm"])
    (instance,) = server.find_instances(series)
    assert (instance.sop_uid, instance.frames) == (uid, 2)
    assert instance.sop_class == "1.2.840.10008.5.1.4.1.1.7"


def test_a_series_comes_back_byte_for_byte_in_private_files(
    server: DicomWebServer, made: dict[str, list[Path]], tmp_path: Path
) -> None:
    series = found_by(server)[CT_SERIES]
    paths = server.fetch_series(series, tmp_path / "into")
    assert contents(paths) == contents(made[CT_SERIES])
    assert sorted(paths) == sorted((tmp_path / "into").iterdir())
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert (tmp_path / "into").stat().st_mode & 0o777 == 0o700
    assert not any(series.series_uid in str(path.relative_to(tmp_path)) for path in paths)


@pytest.mark.parametrize("name", COMPRESSED)
def test_nothing_is_transcoded_on_the_way(
    name: str, server: DicomWebServer, compressed: dict[str, Path], tmp_path: Path
) -> None:
    series, uid = series_of(compressed[name])
    path = server.fetch_instance(series, uid, tmp_path)
    assert path.read_bytes() == compressed[name].read_bytes()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == COMPRESSED[name]
    assert contents(server.fetch_series(series, tmp_path / "whole")) == [path.read_bytes()]


def test_a_large_series_is_never_in_memory(
    server: DicomWebServer, made: dict[str, list[Path]], tmp_path: Path
) -> None:
    series = found_by(server)[LARGE_SERIES]
    tracemalloc.start()
    try:
        paths = server.fetch_series(series, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole_bytes = sum(path.stat().st_size for path in paths)
    assert whole_bytes > 15e6
    assert peak_bytes < 3e6


def test_what_came_before_a_crash_of_the_server_is_not_fetched_again(
    pacs: Orthanc,
    server: DicomWebServer,
    made: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    series = found_by(server)[LARGE_SERIES]
    save_parts = dicomweb.save_parts

    def crash_after_three(*arguments: object) -> Iterator[Path]:
        for number, path in enumerate(save_parts(*arguments)):  # pyright: ignore
            if number == 3:
                pacs.kill()
            yield path

    monkeypatch.setattr(dicomweb, "save_parts", crash_after_three)
    try:
        with pytest.raises((DicomWebError, UnreadableFileError)):
            server.fetch_series(series, tmp_path)
    finally:
        monkeypatch.undo()
        pacs.kill()
        pacs.start()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert 3 <= len(kept) < len(made[LARGE_SERIES])
    assert not any(path.name.startswith(".") for path in kept)

    paths = server.fetch_series(series, tmp_path)
    assert contents(paths) == contents(made[LARGE_SERIES])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.iterdir())) == len(paths)


def test_a_series_that_is_not_there_is_said_to_be_missing(
    server: DicomWebServer, tmp_path: Path
) -> None:
    unknown = RemoteSeries("P", "1.2.3", "1.2.4", "CT", None)
    for fetch in (
        lambda: server.fetch_series(unknown, tmp_path),
        lambda: server.fetch_instance(unknown, "1.2.5", tmp_path),
    ):
        with pytest.raises(UnreadableFileError) as caught:
            fetch()
        assert caught.value.reason == "not-found"


def test_identifiers_that_two_patients_share_are_kept_apart_and_not_guessed_at(
    pacs: Orthanc, server: DicomWebServer, tmp_path: Path
) -> None:
    """Anonymisers are known to do so; such a server cannot tell the two apart itself."""
    slices = [
        write_dicom_series(
            tmp_path / patient,
            np.zeros((1, 4, 4), np.int16),
            **{"PatientID": patient, "StudyInstanceUID": "1.2.9"},
            **{"SeriesInstanceUID": "1.2.9.1", "SOPInstanceUID": "1.2.9.1.1"},
        )[0]
        for patient in ("A", "B")
    ]
    for path in slices:
        assert pacs.put(path)
    found = list(server.find_series({"StudyInstanceUID": "1.2.9"}))
    assert {series.patient_id for series in found} == {"A", "B"}
    with pytest.raises(UnreadableFileError, match="under one patient"):
        server.fetch_series(found[0], tmp_path / "into")


ACCOUNTS: dict[str, Callable[[str], dict[str, str]]] = {
    "none": lambda _: {},
    "wrong": lambda secret: {"USER": "reader", "PASSWORD": f"{secret}-not"},
    "token": lambda secret: {"TOKEN": secret},
}


def test_an_account_comes_from_the_environment_and_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = "pass:word-7261"
    with running_orthanc(tmp_path / "orthanc", ("reader", secret)) as pacs:
        made = write_dicom_series(tmp_path / "made", np.ones((2, 8, 8), np.int16))
        assert all(pacs.put(path) for path in made)
        server = DicomWebServer(pacs.url, retries=3, pause_seconds=30.0)
        texts = []
        for variables in (account(secret) for account in ACCOUNTS.values()):
            with monkeypatch.context() as environment:
                for name, value in variables.items():
                    environment.setenv(f"VISMAE_DICOMWEB_{name}", value)
                with pytest.raises((DicomWebError, SettingError), match="VISMAE_DICOMWEB") as error:
                    list(server.find_series({}))
                texts.append(str(error.value))
        monkeypatch.setenv("VISMAE_DICOMWEB_USER", "reader")
        monkeypatch.setenv("VISMAE_DICOMWEB_PASSWORD", secret)
        (series,) = server.find_series({})
        assert contents(server.fetch_series(series, tmp_path / "into")) == contents(made)
    texts += [repr(server), repr(vars(server)), caplog.text, repr(vars(server.connection()))]
    assert pickle.loads(pickle.dumps(server)) == server
    assert secret.encode() not in pickle.dumps(server)
    assert not any("7261" in text for text in texts)


def test_images_from_a_server_are_those_of_the_files(
    pacs: Orthanc, compressed: dict[str, Path], server: DicomWebServer, tmp_path: Path
) -> None:
    """Every file of pydicom's collection that the server takes and the reader reads."""
    compared = 0
    for path in sorted(BUNDLED.glob("*.dcm")):
        try:
            copy = own_copy(path, tmp_path)
            expected = read_image(source_file(copy), keep=KEEPABLE)
        except (UnreadableFileError, InvalidDicomError, AttributeError, TypeError):
            continue  # some are damaged on purpose
        if path.name not in compressed and not pacs.put(copy):
            continue
        series, uid = series_of(copy)
        fetched = server.fetch_instance(series, uid, tmp_path / "into")
        images = read_image(source_file(fetched), keep=KEEPABLE)
        assert len(images) == len(expected)
        for image, other in zip(images, expected, strict=True):
            np.testing.assert_equal(facts_of(image), facts_of(other))
        compared += 1
    assert compared >= 40
