"""The command that turns images into rows of numbers: embed."""

from pathlib import Path
from typing import Annotated

import typer

import vismae
from vismae.cli_options import (
    Assignments,
    BatchSize,
    ConfigFile,
    Device,
    Keep,
    ModalityOfFiles,
    Model,
    OutputFolder,
    Overwrite,
    Precision,
    Quiet,
    SkipDone,
    Verbose,
)
from vismae.console import INCOMPLETE_STATUS, run_command


def embed(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A store, or images, DICOM series, folders, zip archives and manifests.",
            metavar="STORE|FILES...",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    out: OutputFolder = None,
    modality: ModalityOfFiles = None,
    keep: Keep = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    neighbours: Annotated[
        int | None, typer.Option(help="Nearest images to list for each; 0 none.", metavar="K")
    ] = None,
    resume: SkipDone = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Turn images into features: table, nearest neighbours, map; status 1 if any failed."""
    result = run_command(
        lambda: vismae.embed(
            model=model,
            inputs=inputs,
            config=config,
            set=assignments,
            out=out,
            modality=modality,
            keep=keep,
            batch_size=batch_size,
            device=device,
            precision=precision,
            neighbours=neighbours,
            resume=resume,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )
    if result.failed:
        raise typer.Exit(INCOMPLETE_STATUS)
