"""Segmentations of 3D Slicer beside their images: names, layers, parts of the grid."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_dicom_series, write_nifti
from vismae.core.config import IngestConfig
from vismae.workflows.ingest import IngestResult, ingest

sitk = pytest.importorskip("SimpleITK")

VOLUME = np.random.default_rng(3).integers(0, 900, (5, 9, 8)).astype(np.int16)
ORIGIN, SPACING = (10.0, -20.0, 30.0), (0.5, 0.75, 2.0)


def write_image(path: Path) -> Path:
    """Write (K, J, I) at ``ORIGIN``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(VOLUME)
    image.SetOrigin(ORIGIN)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path))
    return path


def write_segmentation(
    path: Path,
    layers: list[np.ndarray],
    segments: list[tuple[str, int, int]],
    start: tuple[float, float, float] = (0, 0, 0),
) -> Path:
    """Write layers (K, J, I) as 3D Slicer does; ``start`` is their first voxel (I, J, K)."""
    data = np.stack(layers, axis=-1) if len(layers) > 1 else layers[0]
    image = sitk.GetImageFromArray(data, isVector=len(layers) > 1)
    image.SetSpacing(SPACING)
    image.SetOrigin([o + s * n for o, s, n in zip(ORIGIN, SPACING, start, strict=True)])
    for number, (name, value, layer) in enumerate(segments):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", str(layer))
    sitk.WriteImage(image, str(path), useCompression=True)
    if len(layers) > 1:
        head, _, rest = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head.replace(b"kinds: vector", b"kinds: list") + b"\n\n" + rest)
    return path


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def labels_of(result: IngestResult) -> np.ndarray:
    return np.stack([result.store.read(row).label_map for row in range(len(result.store))])


def reference(tmp_path: Path, label_map: np.ndarray) -> np.ndarray:
    """Return class numbers as they are turned where a plain label map has the image's grid."""
    write_image(tmp_path / "ref" / "a.nrrd")
    write_segmentation(tmp_path / "ref" / "a_seg.nrrd", [label_map], [])
    return labels_of(run(tmp_path / "ref", tmp_path / "ref_store"))


@pytest.mark.parametrize("name", ["a.seg.nrrd", "Segmentation.seg.nrrd", "a-label.nrrd"])
def test_a_part_of_the_grid_is_put_back_where_it_lies(tmp_path: Path, name: str) -> None:
    whole = np.zeros(VOLUME.shape, np.uint8)
    whole[1:4, 2:7, 3:8] = np.random.default_rng(4).integers(0, 3, (3, 5, 5))
    write_image(tmp_path / "in" / "a.nrrd")
    segments = [("Liver", 1, 0), ("Spleen", 2, 0)]
    write_segmentation(tmp_path / "in" / name, [whole[1:4, 2:7, 3:]], segments, (3, 2, 1))

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (5, {})
    assert result.store.classes == {1: "Liver", 2: "Spleen"}
    np.testing.assert_array_equal(labels_of(result), reference(tmp_path, whole))


def test_one_name_is_one_class_whatever_its_number_in_each_file(tmp_path: Path) -> None:
    whole = np.zeros(VOLUME.shape, np.uint8)
    whole[0, 0, 0], whole[1, 1, 1] = 1, 2
    for case, names in (("a", ("Spleen", "Liver")), ("b", ("Liver", "Spleen"))):
        write_image(tmp_path / "in" / case / "x.nrrd")
        segments = [(name, place + 1, 0) for place, name in enumerate(names)]
        write_segmentation(tmp_path / "in" / case / "x.seg.nrrd", [whole], segments)

    result = run(tmp_path / "in", tmp_path / "s")

    assert result.store.classes == {1: "Liver", 2: "Spleen"}
    first, second = labels_of(result).reshape(2, *VOLUME.shape)
    np.testing.assert_array_equal(second, np.array([0, 2, 1])[first])


def test_segments_that_overlap_lie_in_layers(tmp_path: Path) -> None:
    body, tumour = np.ones(VOLUME.shape, np.uint8), np.zeros(VOLUME.shape, np.uint8)
    tumour[2, 3:5, 3:5] = 1
    write_image(tmp_path / "in" / "a.nrrd")
    segments = [("Tumour", 1, 1), ("Body", 1, 0)]
    write_segmentation(tmp_path / "in" / "a.seg.nrrd", [body, tumour], segments)

    result = run(tmp_path / "in", tmp_path / "s")

    assert result.store.classes == {1: "Body", 2: "Tumour"}
    np.testing.assert_array_equal(labels_of(result), reference(tmp_path, body + tumour))


@pytest.mark.parametrize("how", ["outside", "other voxels", "unnamed value", "no such layer"])
def test_one_that_cannot_be_laid_on_its_image_leaves_the_image(tmp_path: Path, how: str) -> None:
    whole = np.ones((3, 4, 4), np.uint8)
    start, segments, reason = (0.0, 0.0, 0.0), [("Liver", 1, 0)], "label-geometry"
    if how == "outside":
        start = (6.0, 0.0, 0.0)
    if how == "unnamed value":
        whole[0, 0, 0], reason = 7, "label-format"
    if how == "no such layer":
        segments, reason = [("Liver", 1, 3)], "label-format"
    write_image(tmp_path / "in" / "a.nrrd")
    path = write_segmentation(tmp_path / "in" / "a.seg.nrrd", [whole], segments, start)
    if how == "other voxels":
        path.write_bytes(path.read_bytes().replace(b"(0.5,0,0)", b"(0.8,0,0)"))

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (5, {reason: 1})
    assert not result.store.index["has_label_map"].any()


def test_without_its_image_it_is_no_image(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "other" / "a.nrrd")
    labels = np.ones(VOLUME.shape, np.uint8)
    write_segmentation(tmp_path / "in" / "b.nrrd", [labels], [("Liver", 1, 0)])

    assert run(tmp_path / "in", tmp_path / "s").reasons == {"label-without-image": 1}


def test_on_a_dicom_series_names_of_the_patient_are_replaced(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "ct", VOLUME, (2.0, 0.75, 0.5), PatientName="Kowalski^Zofia")
    labels = np.zeros((1, 9, 8), np.uint8)
    labels[0, 4:6, 2:5] = 1
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING)
    image.SetOrigin((0, 0, 4.0))
    image.SetMetaData("Segment0_Name", "Tumor Kowalska Zofia")
    image.SetMetaData("Segment0_LabelValue", "1")
    sitk.WriteImage(image, str(tmp_path / "x.seg.nrrd"))
    (tmp_path / "list.csv").write_text("path,label_map\nct,x.seg.nrrd\n")

    result = run(tmp_path / "list.csv", tmp_path / "s")

    (name,) = result.store.classes.values()
    assert name.startswith("structure-")
    assert [int(found.sum()) for found in labels_of(result)] == [0, 0, 6, 0, 0]


def test_beside_label_maps_of_numbers_named_classes_have_numbers_of_their_own(
    tmp_path: Path,
) -> None:
    labels = np.ones(VOLUME.shape, np.uint8)
    write_image(tmp_path / "in" / "a" / "x.nrrd")
    write_segmentation(tmp_path / "in" / "a" / "x.seg.nrrd", [labels], [("Liver", 1, 0)])
    write_nifti(tmp_path / "in" / "b" / "y.nii.gz", VOLUME)
    write_nifti(tmp_path / "in" / "b" / "y_seg.nii.gz", labels)

    store = run(tmp_path / "in", tmp_path / "s").store

    assert store.classes == {1001: "Liver"}
    assert set(store.label_values) == {1, 1001}
