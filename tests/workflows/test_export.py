"""Models in forms that other code reads: the same numbers, and refusals by name."""

import inspect
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vismae
from factories import write_nifti, write_png
from models_on_disk import (
    PLACED,
    SMALL_CONTRACT,
    write_classifier,
    write_contrastive,
    write_mae,
    write_network,
)
from stores import classification_store, segmentation_store
from vismae.cli import app
from vismae.core.errors import ModelError, RunFolderError, SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.inference.deployed import deployed
from vismae.models import (
    SwinMAE,
    load_model,
    load_reference_checkpoint,
)
from vismae.workflows.export import ExportResult
from vismae.workflows.exporting import onnx_runner
from vismae.workflows.exporting.card_page import card_page
from vismae.workflows.exporting.onnx_file import onnx_facts
from vismae.workflows.exporting.outcome import require_same
from vismae.workflows.exporting.trial import largest_difference

CT = Preprocessing(image_size=(32, 32), in_channels=1, pixel_units={Modality.CT: (PixelUnit.HU,)})


def export(model: Path, format: str, out: Path, **settings: Any) -> ExportResult:
    return vismae.export(model=model, format=format, out=out, **settings)


def run_without(packages: tuple[str, ...], *words: str | Path, **options: Any) -> str:
    """Run a program in a Python that cannot import some packages."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); "
    code = hide + "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], {}, '__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenter") / "model"
    return write_network(
        folder, "swin_unet", preprocessing=CT, modalities=(Modality.CT,), licence="CC-BY-4.0"
    )


@pytest.fixture(scope="module")
def onnx_folder(segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(segmenter, "onnx", tmp_path_factory.mktemp("onnx") / "out").folder


def ct_volume(path: Path) -> tuple[np.ndarray, Path]:
    """Stored slices of a CT with 1024 subtracted by the file, and the NIfTI that holds them."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.mgrid[:3, :50, :41].sum(axis=0) / 6) + 0.2 * rng.random((3, 50, 41))
    stored = ((waves - waves.min()) * 900).astype(np.int16)
    volume = (stored.astype(np.int32) - 1024).astype(np.int16)
    affine = np.diag([-0.8, -0.8, 5.0, 1.0])
    return stored, write_nifti(path, volume.transpose(2, 1, 0), affine)


def test_the_runner_gives_the_label_maps_of_predict_without_torch_and_vismae(
    segmenter: Path, onnx_folder: Path, tmp_path: Path
) -> None:
    stored, nifti = ct_volume(tmp_path / "a_ct.nii.gz")
    np.save(tmp_path / "pixels.npy", stored)
    run_without(
        ("torch", "vismae", "onnx"),
        *(onnx_folder / "run.py", tmp_path / "pixels.npy", tmp_path / "answer.npy", 1, -1024),
    )
    result = vismae.predict(model=segmenter, inputs=nifti, out=tmp_path / "out", device="cpu")
    [(path,)] = result.outputs.values()
    expected = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
    found = np.load(tmp_path / "answer.npy")
    assert len(np.unique(found)) == 3
    assert (found == expected).mean() > 0.9995  # a tie in the last bit


def test_the_report_says_how_close_it_is_and_what_it_needs(
    onnx_folder: Path, segmenter: Path
) -> None:
    report = json.loads((onnx_folder / "export.json").read_text())
    assert report["largest_difference"] < 1e-4
    assert set(report["differences"]) == {"ct in hu, 44×29", "ct in hu, 20×27"}
    assert report["needs"] == ["onnxruntime", "numpy"]
    assert report["classes"] == ["background", "disc", "ring"]
    assert (report["format"], report["file"]) == ("onnx", "model.onnx")


def test_one_onnx_file_takes_any_number_of_images_of_any_size(onnx_folder: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_folder / "model.onnx"))
    for shape in ((1, 1, 32, 32), (3, 1, 7, 90), (2, 3, 64, 5)):
        given = {
            "pixels": np.zeros(shape, np.float32),
            "scale": np.zeros(shape[0], np.int64),
            "scaling": np.tile(np.float32([1, 0, 0, 1]), (shape[0], 1)),
        }
        assert session.run(None, given)[0].shape == (shape[0], 3, *shape[2:])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch-export", "monai"])
@pytest.mark.parametrize(
    "network",
    [
        *("swin_unet_conv", "hybrid", "unet", "dynunet", "swin_unetr", "swin", "resnet18"),
        *("resnet50", "densenet121", "swin_mae", "simclr", PLACED),
    ],
)
def test_every_network_is_carried_by_every_program(
    network: str, format: str, tmp_path: Path
) -> None:
    contract = Preprocessing(image_size=(64, 64), in_channels=3)
    model = write_network(tmp_path / "model", network, preprocessing=contract)
    assert export(model, format, tmp_path / "out").difference < 1e-4


def test_a_model_of_three_channels_sees_grey_three_times(tmp_path: Path) -> None:
    import onnxruntime

    contract = CT.model_copy(update={"in_channels": 3})
    model = write_network(tmp_path / "model", "swin_unet", preprocessing=contract)
    session = onnxruntime.InferenceSession(str(export(model, "onnx", tmp_path / "out").file))

    def logits(pixels: np.ndarray) -> np.ndarray:
        scaling = np.float32([[1, -1024, 0, 1]] * 2)
        given = {"pixels": pixels, "scale": np.zeros(2, np.int64), "scaling": scaling}
        return session.run(None, given)[0]

    grey = np.random.default_rng(0).random((2, 1, 30, 40), np.float32) * 900
    three = logits(grey.repeat(3, axis=1))
    assert np.array_equal(logits(grey), three)
    assert not np.array_equal(logits(np.concatenate([grey, grey + 50, grey - 50], axis=1)), three)


def test_a_program_of_torch_runs_without_vismae(segmenter: Path, tmp_path: Path) -> None:
    folder = export(segmenter, "torch-export", tmp_path / "out").folder
    script = tmp_path / "use.py"
    script.write_text(
        "import sys, torch\n"
        "program = torch.export.load(sys.argv[1]).module()\n"
        "pixels = torch.arange(2 * 50 * 40.0).view(2, 1, 50, 40)\n"
        "scaling = torch.tensor([[1.0, -1024.0, 0.0, 1.0]] * 2)\n"
        "print(tuple(program(pixels, torch.zeros(2, dtype=torch.int64), scaling).shape))\n"
    )
    assert run_without(("vismae",), script, folder / "model.pt2").strip() == "(2, 3, 50, 40)"


def test_images_in_every_unit_of_a_contract_are_tried(tmp_path: Path) -> None:
    units = {
        Modality.CT: (PixelUnit.HU,),
        Modality.MR: (PixelUnit.ARBITRARY, PixelUnit.DISPLAY),
        Modality.PET: (PixelUnit.SUV,),
        Modality.US: (PixelUnit.DISPLAY,),
    }
    contract = SMALL_CONTRACT.model_copy(
        update={"pixel_units": units, "fit": "stretch", "percentiles": (0.0, 100.0)}
    )
    for number, preprocessing in enumerate(
        (contract, contract.model_copy(update={"percentiles": (0.5, 99.5)}))
    ):
        model = write_classifier(tmp_path / f"model{number}", preprocessing=preprocessing)
        result = export(model, "torch-export", tmp_path / f"out{number}")
        report = json.loads((result.folder / "export.json").read_text())
        assert len(report["differences"]) == 12
        assert result.difference < 1e-4


def test_int8_says_what_it_loses_and_gains(segmenter: Path, tmp_path: Path) -> None:
    segmentation_store(tmp_path / "store", patients=3, splits=("test",))
    model = write_network(tmp_path / "model", "swin_unet", classes=("background", "disc"))
    result = export(model, "onnx-int8", tmp_path / "out", data=tmp_path / "store")
    report = json.loads((result.folder / "export.json").read_text())
    assert report["quantised_products"] > 10
    assert report["quality"]["metric"] == "dice"
    assert report["quality"]["images"] == 6
    scores = report["quality"]["scores"]
    assert scores["float32"] - scores["int8"] == pytest.approx(report["quality"]["loss"])
    assert 0.5 < report["agreement_on_trial_images"]["share"] <= 1.0
    assert report["megabytes"]["int8"] < 0.6 * report["megabytes"]["float32"]
    assert "times as fast as float32" in result.summary()


@pytest.mark.slow
def test_int8_of_a_classifier_is_judged_by_its_auroc(tmp_path: Path) -> None:
    classification_store(tmp_path / "store", patients=8)
    model = write_classifier(tmp_path / "model")
    result = export(model, "onnx-int8", tmp_path / "out", data=tmp_path / "store")
    quality = json.loads((result.folder / "export.json").read_text())["quality"]
    assert quality["metric"] == "auroc"
    assert abs(quality["loss"]) < 0.2


def test_the_runner_is_a_function_of_twenty_lines() -> None:
    # Beside the line of its name and that of its docstring.
    assert len(inspect.getsource(onnx_runner.run).rstrip().splitlines()) == 20 + 2


def test_the_runner_takes_gaps_for_what_predict_takes_them(
    segmenter: Path, onnx_folder: Path, tmp_path: Path
) -> None:
    stored, _ = ct_volume(tmp_path / "a_ct.nii.gz")
    values = stored.astype(np.float32) / 3
    values[:, :12] = np.nan  # outside the field of view
    values[0, 20, 20] = -900.0
    nifti = write_nifti(
        tmp_path / "gaps_ct.nii.gz", values.transpose(2, 1, 0), np.diag([-0.8, -0.8, 5.0, 1.0])
    )
    np.save(tmp_path / "pixels.npy", values)
    run_without(
        ("torch", "vismae"),
        *(onnx_folder / "run.py", tmp_path / "pixels.npy", tmp_path / "answer.npy"),
    )
    result = vismae.predict(model=segmenter, inputs=nifti, out=tmp_path / "out", device="cpu")
    [(path,)] = result.outputs.values()
    expected = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
    assert (np.load(tmp_path / "answer.npy") == expected).mean() > 0.9995


def test_the_runner_says_which_shape_it_wants(onnx_folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "slice.npy", np.zeros((50, 41), np.int16))
    words = [onnx_folder / "run.py", tmp_path / "slice.npy", tmp_path / "answer.npy"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "slice.npy: has the shape (50, 41), expected (slices, height, width)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("units", "known"),
    [
        ({Modality.CT: (PixelUnit.HU,)}, "hu"),
        ({Modality.CT: (PixelUnit.HU,), Modality.MR: (PixelUnit.ARBITRARY,)}, None),
        ({Modality.XR: (PixelUnit.DISPLAY,)}, "grey"),
    ],
)
def test_the_runner_guesses_no_scale(
    units: Any, known: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = CT.model_copy(update={"pixel_units": units})
    model = write_network(tmp_path / "model", "swin_unet", preprocessing=contract)
    facts = onnx_facts(deployed(load_model(model)))
    assert facts["scale"] == known

    class Session:
        """Gives back which scale it was told."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def get_modelmeta(self) -> SimpleNamespace:
            return SimpleNamespace(custom_metadata_map={"vismae": json.dumps(facts)})

        def run(self, _: object, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.eye(4)[given["scale"]]]

    monkeypatch.setattr(onnx_runner.onnxruntime, "InferenceSession", Session)
    pixels = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    told = list(facts["scales"])
    assert told[int(onnx_runner.run(pixels, scale="range")[0])] == "range"
    with pytest.raises(ValueError, match="say which of hu, suv, grey, range"):
        onnx_runner.run(pixels, scale="HU")
    for dtype, guessed in ((np.uint8, known), (np.uint16, None if known == "grey" else known)):
        if guessed is None:
            with pytest.raises(ValueError, match="say which of hu, suv, grey, range"):
                onnx_runner.run(pixels.astype(dtype))
        else:
            assert told[int(onnx_runner.run(pixels.astype(dtype))[0])] == guessed


@pytest.mark.parametrize("network", ["swin_unet", "swin", "resnet18", "swin_mae"])
def test_a_hugging_face_folder_is_loaded_by_from_pretrained_and_by_vismae(
    network: str, tmp_path: Path
) -> None:
    from vismae.models.hub import HubModel

    model = write_network(tmp_path / "model", network, modalities=(Modality.MR,))
    folder = export(model, "huggingface", tmp_path / "out").folder
    loaded = HubModel.from_pretrained(folder)
    expected = load_model(model)
    for state in (loaded.network.state_dict(), load_model(folder).state_dict()):
        assert all(torch.equal(value, state[name]) for name, value in expected.state_dict().items())
    assert loaded.card == expected.card
    page = (folder / "README.md").read_text()
    assert page.startswith("---\nlibrary_name: vismae\n")
    for word in ("## Data", "## Results", "## Limits", "no medical device", "## Licence"):
        assert word in page


def test_a_model_card_page_says_what_the_folder_says_and_no_more(segmenter: Path) -> None:
    card = load_model(segmenter).card
    assert card is not None
    page = card_page(card, "swin_unet")
    assert "license_name: CC-BY-4.0" in page
    assert "- 1: disc" in page
    assert "does not say what it was trained on" in page
    assert "holds no scores" in page
    scored = card.model_copy(update={"provenance": {"validation": {"dice": 0.81234}}})
    assert "| dice | 0.8123 |" in card_page(scored, "swin_unet")


@pytest.mark.parametrize("network", ["swin_unet", "swin_mae", "swin"])
def test_the_reference_checkpoint_gives_the_same_numbers(network: str, tmp_path: Path) -> None:
    model = write_network(tmp_path / "model", network)
    result = export(model, "reference", tmp_path / "out")
    assert result.difference == 0.0
    copy = load_reference_checkpoint(result.file)
    wanted = load_model(model).state_dict()
    if network == "swin_unet":
        assert not wanted.pop("head.bias").any()  # the official head has none
    assert all(torch.equal(copy.state_dict()[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("network", "format", "reason"),
    [
        ("hybrid", "reference", r"no network 'hybrid'.* Keep the model folder"),
        ("unet", "timm", r"unet has no Swin encoder.* Use --format onnx"),
        ("unet", "onnx-int8", r"unet is made of convolutions.* Use --format onnx\."),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(
    network: str, format: str, reason: str, tmp_path: Path
) -> None:
    model = write_network(tmp_path / "model", network)
    with pytest.raises(ModelError, match=reason):
        export(model, format, tmp_path / "out")
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_network_that_computes_otherwise_than_the_official_code_is_refused(
    tmp_path: Path,
) -> None:
    from models_on_disk import save_network

    other = save_network(
        tmp_path / "model", SwinMAE.from_size("nano", in_channels=1, norm_eps=1e-5), "mae"
    )
    with pytest.raises(ModelError, match="norm_eps"):
        export(other, "reference", tmp_path / "out")


def test_rounding_of_large_logits_is_no_difference() -> None:
    expected = np.array([[-40.0, 0.25]], np.float32)
    assert largest_difference(expected + np.float32(2e-4), expected) < 1e-5
    assert largest_difference(expected / 100 + np.float32(2e-4), expected / 100) > 1e-4
    assert not largest_difference(expected * np.float32("nan"), expected) <= 1e-4


@pytest.mark.parametrize("difference", [2e-4, float("nan"), float("inf")])
def test_an_export_that_differs_is_removed(difference: float, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.onnx was removed: its output differs"):
        require_same({"ct": 1e-6, "mr": difference}, file)
    assert not file.exists()


def test_a_full_output_folder_and_data_nobody_reads_are_refused(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match="overwrite"):
        export(model, "reference", tmp_path / "out")
    with pytest.raises(SettingError, match="data is for format onnx-int8"):
        export(model, "reference", tmp_path / "out2", data=tmp_path)
    with pytest.raises(SettingError, match="data is for models with classes"):
        export(model, "onnx-int8", tmp_path / "out2", data=tmp_path)
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [
        ("onnx", "onnxscript", "onnx"),
        ("onnx-int8", "onnxruntime", "onnx"),
        ("huggingface", "huggingface_hub", "hub"),
        ("monai", "fire", "bundle"),
    ],
)
def test_an_earlier_export_stays_where_a_package_is_missing(
    format: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = export(write_mae(tmp_path / "model"), "reference", tmp_path / "out").file
    monkeypatch.setattr(
        "vismae.workflows.exporting.packages.find_spec",
        lambda name: None if name == package else find_spec(name),
    )
    with pytest.raises(SettingError, match=rf"needs {package}\. Install the extra: .*\[{extra}\]"):
        export(tmp_path / "model", format, tmp_path / "out", overwrite=True)
    assert earlier.is_file()


@pytest.mark.parametrize("format", ["huggingface", "microsoft"])
def test_a_contrastive_encoder_is_carried_too(format: str, tmp_path: Path) -> None:
    model = write_contrastive(tmp_path / "model")
    folder = export(model, format, tmp_path / "out").folder
    if format == "huggingface":
        page = (folder / "README.md").read_text()
        assert "A contrastive encoder" in page
        assert "vismae embed --model" in page
        path = write_png(tmp_path / "a.png", np.eye(40, dtype=np.uint8) * 255)
        tables = [
            vismae.embed(model=each, inputs=path, out=tmp_path / each.name / "e", device="cpu")
            for each in (model, folder)
        ]
        assert np.array_equal(tables[0].features, tables[1].features)


@pytest.mark.parametrize(
    ("units", "config"),
    [
        ({Modality.CT: (PixelUnit.HU,)}, "inference.json"),
        (
            {Modality.CT: (PixelUnit.HU,), Modality.MR: (PixelUnit.ARBITRARY,)},
            "inference_hu.json",
        ),
    ],
)
def test_a_bundle_is_verified_and_run_by_monai_without_vismae(
    units: dict[Modality, tuple[PixelUnit, ...]], config: str, tmp_path: Path
) -> None:
    contract = CT.model_copy(update={"pixel_units": units})
    segmenter = write_network(tmp_path / "model", "swin_unet", preprocessing=contract)
    _, nifti = ct_volume(tmp_path / "in" / "a_ct.nii.gz")
    folder = export(segmenter, "monai", tmp_path / "bundle").folder
    report = json.loads((folder / "export.json").read_text())
    assert report["verified_by_monai"] == ["verify_metadata", "verify_net_in_out"]
    command = tmp_path / "bundle.py"
    command.write_text(
        "import monai.bundle.__main__\nfrom monai.bundle import *\nimport fire\nfire.Fire()\n"
    )
    run_without(
        ("vismae",),
        *(command, "run", "--config_file", f"configs/{config}", "--bundle_root", "."),
        *("--dataset_dir", nifti.parent, "--output_dir", tmp_path / "done"),
        cwd=folder,
    )
    [written] = (tmp_path / "done").rglob("*.nii.gz")
    result = vismae.predict(model=segmenter, inputs=nifti, out=tmp_path / "out", device="cpu")
    [(path,)] = result.outputs.values()
    expected, found = nib.load(path), nib.load(written)
    assert np.allclose(found.affine, expected.affine)
    assert (np.asarray(found.dataobj) == np.asarray(expected.dataobj)).mean() > 0.999


def test_the_command_line_says_the_number(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    words = ["export", "--model", model, "--format", "torch-export", "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert f"Written: {tmp_path / 'out' / 'model.pt2'}" in done.stdout
    assert "Largest difference from torch: " in done.stdout
