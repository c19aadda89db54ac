"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vismae.core.errors import SettingError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings.", metavar="FILE")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, as section.name=value; repeatable.", metavar="A.B=C"),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show details, and where an error came from.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings and errors only.")]
Overwrite = Annotated[
    bool | None, typer.Option("--overwrite", help="Empty the output folder first.")
]
Resume = Annotated[
    bool | None, typer.Option("--resume", help="Continue the run in the output folder.")
]
Store = Annotated[
    Path | None, typer.Option("--store", help="Store to take images from.", metavar="DIR")
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data", help="Folder, file, zip, csv manifest or store; repeatable.", metavar="SOURCE"
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option("--device", help="Where to compute; auto takes CUDA, then MPS, then the CPU."),
]
Devices = Annotated[
    int | None, typer.Option("--devices", help="Number of GPUs or processes.", metavar="N")
]
Run = Annotated[Path | None, typer.Option("--out", help="Run folder.", metavar="RUN")]
OutputFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder for the results.", metavar="DIR")
]
Model = Annotated[Path | None, typer.Option("--model", help="Model folder.", metavar="DIR")]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="Model folder or checkpoint (.pth, .safetensors) to start from, or none.",
        metavar="MODEL",
    ),
]
Fold = Annotated[
    int | None, typer.Option("--fold", help="Fold number, counted from 1.", metavar="K")
]
ModalityOfFiles = Annotated[
    str | None,
    typer.Option(
        "--modality",
        help="Modality of files that do not say: ct, mr, pet, xr, us or other.",
        metavar="WORD",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        help="Read burned-in, secondary-capture or localizer images too; repeatable.",
        metavar="WORD",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Slices (or windows) at a time.", metavar="N")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    typer.Option("--precision", help="Arithmetic of the network."),
]
SkipDone = Annotated[
    bool | None, typer.Option("--resume", help="Skip inputs whose results are there.")
]
Query = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        help="What to ask a DICOMweb server for, such as Modality=CT; repeatable.",
        metavar="KEY=VALUE",
    ),
]


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Return KEY=VALUE texts of a repeatable option as a table.

    Raises:
        SettingError: One is something else.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise SettingError(f"{option} {text}: expected KEY=VALUE, such as Modality=CT.")
        found[key] = value
    return found
