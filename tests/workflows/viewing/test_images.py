"""What the page is given to draw: turned once, described in words, windowed as the file says."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from factories import SAGITTAL, write_dicom_series, write_enhanced_ct, write_nifti, write_png
from vismae.core.errors import UnreadableFileError
from vismae.workflows.viewing.upload import Upload, read_upload

BYTES = 2**26
CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


def upload(file: Path, folder: Path, most_bytes: int = BYTES) -> Upload:
    folder.mkdir(exist_ok=True)
    return read_upload(file, folder, None, most_bytes)


def pixels(found: Upload, number: int = 0) -> np.ndarray:
    shown = found.images[number]
    return np.fromfile(found.folder / f"{number}.pixels", shown.dtype).reshape(
        *shown.shape, *([3] if shown.colour else [])
    )


def steps(shape: tuple[int, int, int]) -> np.ndarray:
    """A volume (head, back, left) whose value tells where a voxel is."""
    head, back, left = np.indices(shape)
    return (400 * head + 20 * back + left).astype(np.int16)


@pytest.mark.parametrize(
    ("orientation", "plane"), [(SAGITTAL, "sagittal"), (CORONAL, "coronal"), (None, "axial")]
)
def test_series_of_every_plane_give_the_same_volume(
    orientation: list[float] | None, plane: str, tmp_path: Path
) -> None:
    volume = steps((6, 7, 8))
    # As a scanner gives them: rows and columns of the plane, slices along its normal.
    slices = {
        "axial": volume,
        "sagittal": volume.transpose(2, 0, 1)[::-1, ::-1],
        "coronal": volume.transpose(1, 0, 2)[:, ::-1],
    }[plane]
    if orientation is not None:
        normal = np.cross(orientation[:3], orientation[3:])
        axis = int(np.abs(normal).argmax())
        # LPS: the volume rises to the left and back, so slices along a falling normal are reversed.
        if plane == "sagittal":
            slices = slices if normal[axis] < 0 else slices[::-1]
        if plane == "coronal":
            slices = slices if normal[axis] > 0 else slices[::-1]
    extra = {} if orientation is None else {"orientation": orientation}
    paths = write_dicom_series(tmp_path / "in", slices + 1024, (1.5, 1.0, 1.0), **extra)
    archive = tmp_path / "in.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in paths:
            made.write(path, path.name)
    found = upload(archive, tmp_path / "out")
    [shown] = found.images
    assert np.array_equal(pixels(found) * shown.slope + shown.intercept, volume)
    assert shown.native_plane == plane
    back = shown.stored_slices(found.folder) * shown.slope + shown.intercept
    assert back.shape[0] == slices.shape[0]


def test_a_multi_frame_file_is_turned_like_a_series(tmp_path: Path) -> None:
    volume = steps((4, 6, 5)).astype(np.uint16)
    positions = [[0.0, 0.0, 3.0 * k] for k in (3, 2, 1, 0)]  # from the head down
    path = write_enhanced_ct(tmp_path / "a.dcm", volume[::-1].copy(), positions, [(1.0, 0.0)] * 4)
    found = upload(path, tmp_path / "out")
    assert np.array_equal(pixels(found), volume)
    assert found.images[0].planes == ("axial", "coronal", "sagittal")


def test_windows_of_the_file_come_first_and_then_those_of_the_unit(tmp_path: Path) -> None:
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    tags = {"WindowCenter": 50.0, "WindowWidth": 350.0}
    own = write_dicom_series(tmp_path / "own", volume + 1024, **tags)[0]
    usual = write_dicom_series(tmp_path / "usual", volume + 1024)[0]
    plain = write_nifti(tmp_path / "plain.nii", np.random.default_rng(0).normal(0, 9, (9, 9, 9)))
    picture = write_png(tmp_path / "a.png", np.eye(20, dtype=np.uint8) * 200)
    windows = [
        upload(file, tmp_path / f"out-{k}").images[0].window
        for k, file in enumerate((own, usual, plain, picture))
    ]
    assert windows[0] == pytest.approx((-125.0, 225.0), abs=1.0)
    assert windows[1] == (-160.0, 240.0)
    assert -40 < windows[2][0] < -15 < 15 < windows[2][1] < 40
    assert windows[3] == (0.0, 255.0)


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    path = write_nifti(tmp_path / "a.nii", np.zeros((5, 5, 5), np.int16), turned)
    notes = upload(path, tmp_path / "out").images[0].notes
    assert any("oblique by 17 degrees" in note for note in notes)


def test_nothing_larger_than_allowed_is_decoded(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((64, 64, 64), np.int16))
    with pytest.raises(UnreadableFileError) as caught:
        upload(path, tmp_path / "out", most_bytes=400_000)
    assert caught.value.reason == "too-large"
    assert not list((tmp_path / "out").glob("*.pixels"))
    series = write_dicom_series(tmp_path / "in", np.zeros((9, 100, 100), np.uint16))
    assert upload(series[0], tmp_path / "one", most_bytes=30_000).images
