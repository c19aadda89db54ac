"""``vismae export``: a model folder in a form that other code reads, compared with torch."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vismae.core.config_model import ExportConfig, ExportFormat
from vismae.core.errors import SettingError
from vismae.core.rundir import open_run, provenance, write_json
from vismae.inference.deployed import UnitRangeModel, deployed
from vismae.models.weights import Model, load_model, network_of
from vismae.workflows.exporting.folders import export_huggingface, export_reference
from vismae.workflows.exporting.onnx_file import export_onnx
from vismae.workflows.exporting.onnx_int8 import export_int8
from vismae.workflows.exporting.outcome import TOLERANCE, Outcome
from vismae.workflows.exporting.packages import require_packages
from vismae.workflows.exporting.program import export_program
from vismae.workflows.exporting.quality import require_classes
from vismae.workflows.exporting.swin_weights import export_swin

REPORT = "export.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        folder: Holds the files and ``export.json``.
        file: The main file.
        difference: Largest difference from torch on the images it was tried on.
        notes: What a user should know.
    """

    folder: Path
    file: Path
    difference: float
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Say what was written, how close it is to torch, and how to use it."""
        compared = f"Largest difference from torch: {self.difference:.2g} ({REPORT})."
        return "\n".join([f"Written: {self.file}", compared, *self.notes])


def export(config: ExportConfig) -> ExportResult:
    """Write a model in another form into ``out``, run it and compare its numbers with torch.

    Raises:
        SettingError: A package is missing, or a setting does not fit the format.
        ModelError: The format cannot hold the model, or what was written differs.
        RunFolderError: ``out`` is in use, or not empty without ``overwrite``.
    """
    model = load_model(config.model)
    contract = model.preprocessing
    if contract is not None and contract.neighbours and config.format == "monai":
        raise SettingError(
            f"{config.model} looks at {contract.neighbours} slices on each side (2.5D), and "
            "MONAI's inferers give slices one by one. Use --format onnx or torch-export."
        )
    if contract is not None and (config.format == "monai" or config.data):
        what = "data gives" if config.data else "A bundle is given"
        contract.refuse_sequences(
            str(config.model),
            f"{what} one image at a time. "
            + ("Leave it out." if config.data else "Use --format onnx or torch-export."),
        )
    if config.data and config.format != "onnx-int8":
        raise SettingError("data is for format onnx-int8, whose loss it measures. Leave it out.")
    if config.data:
        require_classes(model)
    require_packages(config.format)
    with open_run(config.out, "export", config, overwrite=config.overwrite) as folder:
        outcome = _write(folder, config, model)
        write_json(folder / REPORT, _report(config, model, outcome))
        logger.info("%s: largest difference from torch %.2g", config.format, outcome.largest)
    return ExportResult(config.out, outcome.file, outcome.largest, outcome.notes)


def _write(folder: Path, config: ExportConfig, model: Model) -> Outcome:
    weights: dict[ExportFormat, Callable[[], Outcome]] = {
        "reference": lambda: export_reference(folder, model),
        "microsoft": lambda: export_swin(folder, model, "microsoft"),
        "timm": lambda: export_swin(folder, model, "timm"),
    }
    if config.format in weights:
        outcome = weights[config.format]()
        seen = _channels(model)
        return replace(outcome, notes=(*outcome.notes, seen)) if seen else outcome
    body = deployed(model)
    return _whole_model(folder, config, model, body)


def _channels(model: Model) -> str:
    """Say what the channels are, where they are not those of an image."""
    contract = model.preprocessing
    if contract is None or contract.input_channels == contract.in_channels:
        return ""
    reach, names = contract.neighbours, ", ".join(contract.sequences)
    if not reach:
        return f"Its channels are the sequences {names}, in this order."
    of_each = f"; of each the sequences {names}" if names else ""
    return f"Its channels are a slice and {reach} on each side of it, in their order{of_each}."


def _whole_model(folder: Path, config: ExportConfig, model: Model, body: UnitRangeModel) -> Outcome:
    if config.format == "onnx":
        return export_onnx(folder, body)
    if config.format == "onnx-int8":
        return export_int8(folder, body, config.data)
    if config.format == "torch-export":
        return export_program(folder, body)
    if config.format == "huggingface":
        return export_huggingface(folder, model, body)
    from vismae.workflows.exporting.monai_bundle import export_monai

    return export_monai(folder, model, body)


def _report(config: ExportConfig, model: Model, outcome: Outcome) -> dict[str, object]:
    return {
        **provenance("export"),
        "format": config.format,
        "network": network_of(model),
        "file": outcome.file.relative_to(config.out).as_posix(),
        "needs": list(outcome.needs),
        "tolerance": TOLERANCE,
        "largest_difference": outcome.largest,
        "differences": dict(outcome.differences),
        "notes": list(outcome.notes),
        **outcome.facts,
    }
