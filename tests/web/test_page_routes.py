"""The life of an upload on the page: read, oriented, answered, downloaded, deleted."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest

from web_server import FRONT, LEFT, TOP, RunningServer, marked_picture, marked_volume

Finish = Callable[[httpx.Client, str], dict[str, Any]]


def open_file(client: httpx.Client, file: Path, **fields: str) -> str:
    """Open a file as the page does; return its key."""
    with file.open("rb") as content:
        answer = client.post("/page/studies", files={"file": (file.name, content)}, data=fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["key"]


def numbers(client: httpx.Client, key: str, name: str, dtype: str) -> np.ndarray:
    """Return a file of numbers."""
    return np.frombuffer(client.get(f"/page/studies/{key}/numbers/{name}").content, dtype)


@pytest.mark.parametrize("kind", ["nifti", "zip"])
def test_volumes_come_turned_to_head_back_and_left(
    server: RunningServer, files: dict[str, Path], finish: Finish, kind: str
) -> None:
    client = server.client()
    key = open_file(client, files[kind], models="organs")
    [image] = finish(client, key)["images"]
    stored = numbers(client, key, "0.pixels", image["dtype"]).reshape(image["shape"])
    volume = stored * image["slope"] + image["intercept"]
    assert np.array_equal(volume, marked_volume())
    assert (image["planes"], image["native_plane"]) == (["axial", "coronal", "sagittal"], "axial")
    assert image["spacing_mm"] == [4.0, 1.0, 1.0]
    assert image["sides"]
    for mark in (LEFT, FRONT, TOP):
        assert (volume == mark).sum() > 0


def test_pictures_stay_as_they_are_and_name_no_sides(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    key = open_file(client, files["png"], models="organs")
    [image] = finish(client, key)["images"]
    stored = numbers(client, key, "0.pixels", image["dtype"]).reshape(image["shape"])
    assert np.array_equal(stored[0], marked_picture())
    assert (image["planes"], image["sides"]) == (["image"], False)
    assert any("does not say how it lies" in note for note in image["notes"])


def test_one_slice_of_a_series_keeps_its_plane_and_its_sides(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    [image] = finish(client, open_file(client, files["dicom"], models="organs"))["images"]
    assert (image["planes"], image["sides"]) == (["axial"], True)


def test_the_label_map_lies_on_the_image_as_predict_wrote_it(
    server: RunningServer, files: dict[str, Path], finish: Finish, tmp_path: Path
) -> None:
    client = server.client()
    key = open_file(client, files["nifti"])
    found = finish(client, key)
    assert [answer["kind"] for answer in found["answers"]] == ["segmenter", "classifier", "mae"]
    layers = {layer["kind"]: layer for answer in found["answers"] for layer in answer["layers"]}
    assert set(layers) == {"labels", "evidence", "error"}
    labels = numbers(client, key, layers["labels"]["file"], "|u1").reshape(12, 48, 40)
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(client.get(f"/page/studies/{key}/results/0/head_ct.nii.gz").content)
    written = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
    assert np.array_equal(labels, written[::-1, ::-1].transpose(2, 1, 0))
    assert [entry["name"] for entry in layers["labels"]["legend"]] == ["disc", "ring"]


def test_the_upload_goes_when_it_was_worked_on_and_the_rest_when_the_page_closes(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    key = open_file(client, files["nifti"], models="organs")
    finish(client, key)
    folder = server.folder / key
    wait_until(lambda: not (folder / "upload").exists())
    assert (folder / "0.pixels").exists()
    assert client.delete(f"/page/studies/{key}").status_code == 204
    wait_until(lambda: not folder.exists())
    for path in ("", "/numbers/0.pixels", "/results/0"):
        assert client.get(f"/page/studies/{key}{path}").status_code == 404


def test_closing_the_page_stops_what_is_computed_for_it(
    server: RunningServer, files: dict[str, Path]
) -> None:
    client = server.client()
    keys = [open_file(client, files["zip"]) for _ in range(3)]
    state = client.get(f"/page/studies/{keys[2]}").json()
    assert state["state"] in ("queued", "running")
    if state["state"] == "queued":
        assert 1 <= state["place"] <= 2
    for key in keys:
        client.delete(f"/page/studies/{key}")
    wait_until(lambda: not any((server.folder / key).exists() for key in keys))


def test_an_image_can_be_looked_at_without_asking_any_model(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    for models, asked in (
        *((",", []), ("mae,", ["mae"]), ("organs,finding,", ["organs", "finding"])),
        ("", ["organs", "finding", "mae"]),
    ):
        found = finish(client, open_file(client, files["png"], models=models))
        assert found["state"] == "done"
        assert len(found["images"]) == 1
        assert [answer["model"] for answer in found["answers"]] == asked


def test_nothing_but_the_results_and_numbers_of_an_upload_can_be_fetched(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    key = open_file(client, files["png"], models="organs")
    finish(client, key)
    for path in (
        "/numbers/facts.json",
        "/numbers/..%2Flock",
        "/numbers/images.json",
        "/results/0/records",
        "/results/0/..%2F..%2Ffacts.json",
        "/results/1",
        "/results/7/volumes.csv",
    ):
        assert client.get(f"/page/studies/{key}{path}").status_code == 404, path
    assert client.get("/page/files/..%2Fserver.py").status_code == 404
    assert client.get("/page/studies/..%2Flock").status_code == 404


def test_a_slice_of_an_open_upload_is_reconstructed(
    server: RunningServer, files: dict[str, Path], finish: Finish
) -> None:
    client = server.client()
    key = open_file(client, files["nifti"], models="mae")
    finish(client, key)
    wanted = {"model": 2, "image": 0, "slice": 4, "mask_ratio": 0.5, "pattern": 1}
    found = client.post(f"/page/studies/{key}/reconstruction", json=wanted).json()
    assert (found["height"], found["width"], found["slice"]) == (48, 40, 4)
    wrong = client.post(f"/page/studies/{key}/reconstruction", json={**wanted, "slice": 12})
    assert wrong.json()["error"]["code"] == "setting"
    other = client.post(f"/page/studies/{key}/reconstruction", json={**wanted, "model": 0})
    assert other.json()["error"]["code"] == "model"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
