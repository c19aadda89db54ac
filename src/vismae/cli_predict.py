"""The command that uses a model on files: predict."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import vismae
from vismae.cli_options import (
    Assignments,
    BatchSize,
    ConfigFile,
    Device,
    Keep,
    ModalityOfFiles,
    OutputFolder,
    Overwrite,
    Precision,
    Query,
    Quiet,
    SkipDone,
    Verbose,
    pairs,
)
from vismae.console import INCOMPLETE_STATUS, run_command


def predict(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, series, folders, zip archives, manifests, or dicomweb+https://host/path.",
            metavar="INPUT...",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="Model folder; several answer together; repeatable.", metavar="DIR"
        ),
    ] = None,
    out: OutputFolder = None,
    query: Query = None,
    send: Annotated[
        bool | None,
        typer.Option("--send", help="Store results on the DICOMweb server the images came from."),
    ] = None,
    format: Annotated[
        Literal["nifti", "png", "dicomseg", "dicomsr"] | None,
        typer.Option(help="Format of results; like the input if not given."),
    ] = None,
    modality: ModalityOfFiles = None,
    keep: Keep = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    tiling: Annotated[
        bool | None,
        typer.Option("--tiling", help="Move a window over images larger than the model's size."),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Share of a window covered again.", metavar="F")
    ] = None,
    flip: Annotated[
        list[str] | None,
        typer.Option(
            help="Look at mirrored images too: horizontal or vertical; repeatable.", metavar="WORD"
        ),
    ] = None,
    uncertainty: Annotated[
        bool | None, typer.Option("--uncertainty", help="Write maps of the entropy too.")
    ] = None,
    explain: Annotated[
        bool | None,
        typer.Option("--explain", help="Write maps of where a classifier's answer comes from."),
    ] = None,
    largest_component: Annotated[
        list[str] | None,
        typer.Option(help="Class of which only the largest piece stays; repeatable.", metavar="C"),
    ] = None,
    fill_holes: Annotated[
        list[str] | None,
        typer.Option(help="Class whose holes are filled; repeatable.", metavar="C"),
    ] = None,
    resume: SkipDone = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Predict label maps, class probabilities or error maps of images; status 1 if any failed."""
    result = run_command(
        lambda: vismae.predict(
            model=model,
            inputs=inputs,
            config=config,
            set=assignments,
            query=pairs(query, "--query") or None,
            send=send,
            out=out,
            format=format,
            modality=modality,
            keep=keep,
            batch_size=batch_size,
            device=device,
            precision=precision,
            tiling=tiling,
            overlap=overlap,
            flips=flip,
            uncertainty=uncertainty,
            explain=explain,
            largest_component=largest_component,
            fill_holes=fill_holes,
            resume=resume,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )
    if result.failed:
        raise typer.Exit(INCOMPLETE_STATUS)
