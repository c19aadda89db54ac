"""The routes for programs: the same answers as predict, and nothing that hurts the server."""

import base64
import io
import json
import signal
import zipfile
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

import vismae
from factories import write_nifti, write_png, write_zip
from troublesome_tasks import wait_until
from web_server import PATIENT, UPLOAD_MIB, RunningServer, start_server, stop_server


def send(server: RunningServer, route: str, file: Path, **fields: Any) -> httpx.Response:
    """Send a file to a route."""
    with server.client() as client, file.open("rb") as content:
        return client.post(f"/v1/{route}", files={"file": (file.name, content)}, data=fields)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an answer that is an error."""
    return answer.status_code, answer.json()["error"]["code"]


def test_the_models_on_offer_are_described(server: RunningServer) -> None:
    found = server.client().get("/v1/model").json()
    assert [(model["name"], model["kind"]) for model in found["models"]] == [
        ("organs", "segmenter"),
        ("finding", "classifier"),
        ("mae", "mae"),
    ]
    assert found["models"][0]["classes"] == ["background", "disc", "ring"]
    assert "not compared with outcomes" in found["models"][1]["calibration"]
    assert found["limits"]["upload_bytes"] == UPLOAD_MIB * 2**20


def test_label_maps_are_those_of_predict(
    server: RunningServer, files: dict[str, Path], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    vismae.predict(
        model=model_folders["organs"], inputs=files["nifti"], out=tmp_path / "out", device="cpu"
    )
    answer = send(server, "predict", files["nifti"], answer="files")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert sorted(archive.namelist()) == ["head_ct.nii.gz", "volumes.csv"]
    archive.extractall(tmp_path / "web")
    expected = nib.Nifti1Image.from_filename(tmp_path / "out" / "head_ct.nii.gz")
    found = nib.Nifti1Image.from_filename(tmp_path / "web" / "head_ct.nii.gz")
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    assert np.array_equal(found.affine, expected.affine)
    assert len(np.unique(np.asarray(found.dataobj))) == 3
    table = pd.read_csv(tmp_path / "out" / "volumes.csv")
    [image] = send(server, "predict", files["nifti"]).json()["images"]
    assert [part["pixels"] for part in image["classes"]] == table["pixels"].tolist()
    assert [part["volume_ml"] for part in image["classes"]] == table["volume_ml"].tolist()
    # Tables name the file as its owner does, without folders of this machine.
    assert pd.read_csv(tmp_path / "web" / "volumes.csv")["input"].unique() == ["head_ct.nii.gz"]


def test_a_zipped_series_gives_a_dicom_segmentation(
    server: RunningServer, files: dict[str, Path], tmp_path: Path
) -> None:
    answer = send(server, "predict", files["zip"], answer="files")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    [name] = [name for name in archive.namelist() if name.endswith(".dcm")]
    made = pydicom.dcmread(io.BytesIO(archive.read(name)))
    assert made.Modality == "SEG"
    sources = {
        item.ReferencedSOPInstanceUID
        for item in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    with zipfile.ZipFile(files["zip"]) as series:
        given = {
            pydicom.dcmread(io.BytesIO(series.read(name))).SOPInstanceUID
            for name in series.namelist()
        }
    assert sources == given


def test_probabilities_are_those_of_predict(
    server: RunningServer, files: dict[str, Path], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    vismae.predict(
        model=model_folders["finding"], inputs=files["zip"], out=tmp_path / "out", device="cpu"
    )
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    columns = ["probability_bright", "probability_dark"]
    [image] = send(server, "predict", files["zip"], model="finding").json()["images"]
    of_slices = table[table["level"] == "image"][columns].to_numpy()
    assert np.array_equal(np.array(image["slices"]), of_slices)
    of_volume = table[table["level"] == "volume"][columns].to_numpy()[0]
    assert [part["probability"] for part in image["classes"]] == of_volume.tolist()


def test_features_are_those_of_the_encoder(
    server: RunningServer, files: dict[str, Path], model_folders: dict[str, Path]
) -> None:
    from vismae.workflows.image_features import ImageFeatures

    expected = ImageFeatures(model_folders["mae"], device="cpu").transform([files["png"]])
    [image] = send(server, "embed", files["png"], model="mae").json()["images"]
    assert np.allclose(image["features"], expected, atol=1e-5)
    [volume] = send(server, "embed", files["zip"]).json()["images"]
    assert len(volume["features"]) == volume["shape"][0] == 12


def test_a_slice_is_reconstructed_at_the_ratio_asked_for(
    server: RunningServer, files: dict[str, Path]
) -> None:
    answers = {
        ratio: send(server, "reconstruct", files["zip"], slice=3, mask_ratio=ratio).json()
        for ratio in (0.25, 0.75)
    }
    for found in answers.values():
        assert (found["model"], found["height"], found["width"]) == ("mae", 48, 40)
        shown = {
            name: np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
            for name, picture in found["pictures"].items()
        }
        hidden = shown["hidden"] > 0
        assert shown["image"].shape == (48, 40)
        assert np.array_equal(shown["filled"][~hidden], shown["image"][~hidden])
        assert not shown["error"][~hidden].any()
        assert abs(hidden.mean() - found["hidden_fraction"]) < 1e-3
    assert answers[0.25]["hidden_fraction"] < 0.45 < 0.6 < answers[0.75]["hidden_fraction"]


def test_wrong_requests_are_refused_in_sentences(
    server: RunningServer, files: dict[str, Path]
) -> None:
    png = files["png"]
    assert error_of(send(server, "predict", png, model="liver")) == (422, "model")
    assert error_of(send(server, "predict", png, modality="xray")) == (422, "field")
    assert error_of(send(server, "reconstruct", png, mask_ratio=1)) == (422, "field")
    assert error_of(send(server, "reconstruct", png, slice=1)) == (422, "setting")
    assert error_of(send(server, "reconstruct", png, model="organs")) == (422, "model")
    assert error_of(send(server, "predict", files["text"])) == (422, "unknown-format")
    client = server.client()
    assert error_of(client.post("/v1/predict", data={"file": "text"})) == (422, "field")
    for kind, refused in (("multipart/form-data", "request"), ("text/plain", "field")):
        answer = client.post("/v1/predict", content=b"x=1", headers={"content-type": kind})
        described = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["responses"]
        status, code = error_of(answer)
        told = described[str(status)]["description"]
        assert (code, {400: "boundary", 422: "missing"}[status] in told) == (refused, True)
    assert error_of(client.get("/v1/predict")) == (405, "method")
    assert error_of(client.get("/v1/nothing")) == (404, "not-found")
    assert client.get("/redoc").status_code == 404


def bomb(path: Path, mebibytes: int) -> Path:
    """A small archive that unpacks to much."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(mebibytes * 2**20))
    return path


def test_what_is_too_large_is_refused_before_it_is_unpacked(
    server: RunningServer, tmp_path: Path
) -> None:
    big = tmp_path / "big.nii"
    big.write_bytes(bytes(UPLOAD_MIB * 2**20 + 200_000))
    assert error_of(send(server, "predict", big)) == (413, "too-large")

    def endless() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(UPLOAD_MIB + 1):
            yield bytes(2**20)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    chunked = server.client().post("/v1/predict", content=endless(), headers=headers)
    assert error_of(chunked) == (413, "too-large")
    assert error_of(send(server, "predict", bomb(tmp_path / "bomb.zip", 64))) == (413, "too-large")
    # Compressed, 48 MB of voxels are a small upload.
    swollen = write_nifti(tmp_path / "swollen.nii.gz", np.zeros((512, 512, 96), np.int16))
    assert swollen.stat().st_size < UPLOAD_MIB * 2**20
    assert error_of(send(server, "predict", swollen)) == (413, "too-large")
    many = write_zip(tmp_path / "many.zip", {f"{k}.dcm": b"" for k in range(16_000)})
    assert many.stat().st_size < UPLOAD_MIB * 2**20
    assert error_of(send(server, "predict", many))[0] in (413, 422)


def test_archives_inside_archives_and_names_that_climb_do_no_harm(
    server: RunningServer, files: dict[str, Path], tmp_path: Path
) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"a.png": files["png"]})
    nested = write_zip(tmp_path / "nested.zip", {"inner.zip": inner})
    assert error_of(send(server, "predict", nested)) == (422, "nested-archive")
    climbing = write_zip(
        tmp_path / "climbing.zip",
        {
            "../../../../tmp/vismae-climbed.png": files["png"],
            "/tmp/vismae-climbed.png": files["png"],
            "..\\..\\vismae-climbed.png": files["png"],
        },
    )
    answer = send(server, "predict", climbing, answer="files")
    assert answer.status_code == 200
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert all(".." not in name and not name.startswith("/") for name in names)
    assert not Path("/tmp/vismae-climbed.png").exists()


def test_nothing_of_a_request_stays_and_no_name_is_logged(
    server: RunningServer, files: dict[str, Path]
) -> None:
    before = set(server.uploads())  # pages of other tests may be open
    for file in files.values():
        send(server, "predict", file)
    assert wait_until(lambda: set(server.uploads()) <= before)
    assert list((server.folder / "incoming").iterdir()) == []
    log = "".join(server.lines)
    assert "job" in log
    for word in (PATIENT, "P001", "head_ct", "series.zip", "film", "letter"):
        assert word not in log


def test_the_description_and_its_page_name_every_route(server: RunningServer) -> None:
    described = server.client().get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/v1/model", "/v1/predict", "/v1/embed", "/v1/reconstruct")
    }
    assert "http" not in json.dumps(described["info"])
    page = server.client().get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text


def test_another_address_needs_the_token(model_folders: dict[str, Path], tmp_path: Path) -> None:
    server = start_server(
        tmp_path / "home", f"--model={model_folders['mae']}", "--host=0.0.0.0", "--stop-after=60"
    )
    try:
        text = "".join(server.lines)
        assert "other machines can reach this server" in text
        token = text.rsplit("?token=", 1)[1].split()[0]
        client = server.client()
        assert client.get("/v1/model").status_code == 401
        allowed = {"authorization": f"Bearer {token}"}
        assert client.get("/v1/model", headers=allowed).status_code == 200
        assert client.get("/", params={"token": token}, follow_redirects=True).status_code == 200
        assert client.get("/v1/model").status_code == 200  # the cookie
        assert "give --allow-host" in text
        # Closing the terminal stops it as Ctrl-C does, unless nohup started the tests.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            server.process.send_signal(signal.SIGHUP)
            assert server.process.wait(30) == 0
            assert list((tmp_path / "home").glob("vismae-web-*")) == []
    finally:
        assert stop_server(server) == 0


def test_a_picture_of_colour_and_one_of_16_bits_are_taken(
    server: RunningServer, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    colour = write_png(tmp_path / "c.png", rng.integers(0, 255, (40, 30, 3), np.uint8))
    deep = write_png(tmp_path / "d.png", rng.integers(0, 60_000, (40, 30)).astype(np.uint16))
    for file in (colour, deep):
        [image] = send(server, "predict", file).json()["images"]
        assert sum(part["pixels"] for part in image["classes"]) <= 1200


@pytest.mark.parametrize("route", ["predict", "embed", "reconstruct"])
def test_every_kind_of_file_is_answered(
    server: RunningServer, files: dict[str, Path], route: str
) -> None:
    for kind in ("nifti", "zip", "dicom", "png"):
        assert send(server, route, files[kind]).status_code == 200, kind
