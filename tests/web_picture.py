"""Make the picture of the page in the documentation: a computed chest and a model trained on it.

    python tests/web_picture.py docs/images/web.png runs/web_picture

The second argument is the folder for the computed images and the model; what is there is used
again.
"""

import sys
import tempfile
from pathlib import Path

import vismae
from vismae.files.phantom_archive import write_phantom_archive
from web_browser import Browser
from web_server import start_server, stop_server

CLASSES = ("lung", "heart", "liver")


def train(folder: Path) -> Path:
    """Train a small segmenter on computed slices of other patients; return its model folder."""
    model = folder / "organs" / "model"
    if not model.exists():
        vismae.finetune(
            "segment",
            data=folder / "archive" / "segmentation" / "manifest.csv",
            out=model.parent,
            device="cpu",
            model={"size": "nano", "in_channels": 1},
            task={"classes": CLASSES},
            optimizer={"lr": 2e-3},
            trainer={"max_steps": 600, "validate_every": 100, "precision": "fp32"},
            **{"data.image_size": 64, "data.batch_size": 8, "data.workers": 0},
        )
    return model


def take(model: Path, image: Path, target: Path) -> None:
    """Show an image on the page and save what is seen."""
    with tempfile.TemporaryDirectory() as scratch:
        server = start_server(Path(scratch) / "home", f"--model={model}", "--stop-after=120")
        browser = Browser(Path(scratch) / "profile")
        try:
            browser.open(server.address)
            browser.show(image)
            browser.driver.save_screenshot(str(target))
        finally:
            browser.close()
            stop_server(server)


def main() -> None:
    """Make the picture named on the command line."""
    target, folder = Path(sys.argv[1]), Path(sys.argv[2])
    if not (folder / "archive").exists():
        write_phantom_archive(folder / "archive")
    take(train(folder), folder / "archive" / "new_patient" / "mr.nii.gz", target)


if __name__ == "__main__":
    main()
