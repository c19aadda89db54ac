"""The command that uses a model on files: predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import vismae
from vismae.cli_options import (
    Assignments,
    ConfigFile,
    Device,
    OutputFolder,
    Overwrite,
    Query,
    Quiet,
    Verbose,
    pairs,
)
from vismae.console import run_command

if TYPE_CHECKING:
    from vismae.workflows.predict import PredictResult

INCOMPLETE_STATUS = 1


def predict(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, DICOM series, folders, zip archives, or dicomweb+https://host/path.",
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
    modality: Annotated[
        str | None,
        typer.Option(
            help="Modality of files that do not say: ct, mr, pet, xr, us or other.", metavar="WORD"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Predict burned-in, secondary-capture or localizer images; repeatable.",
            metavar="WORD",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Slices or windows at a time.", metavar="N")
    ] = None,
    device: Device = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="Arithmetic of the network.")
    ] = None,
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
    resume: Annotated[
        bool | None, typer.Option("--resume", help="Skip inputs whose results are there.")
    ] = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Predict label maps, class probabilities or error maps of images; status 1 if any failed."""
    results: list[PredictResult] = []

    def work() -> "PredictResult":
        results.append(
            vismae.predict(
                model=model or None,
                inputs=inputs or None,
                config=config,
                set=assignments,
                query=pairs(query, "--query") or None,
                send=send,
                out=out,
                format=format,
                modality=modality,
                keep=keep or None,
                batch_size=batch_size,
                device=device,
                precision=precision,
                tiling=tiling,
                overlap=overlap,
                flips=flip or None,
                uncertainty=uncertainty,
                explain=explain,
                largest_component=largest_component or None,
                fill_holes=fill_holes or None,
                resume=resume,
                overwrite=overwrite,
            )
        )
        return results[0]

    run_command(work, verbose, quiet)
    if results[0].failed:
        raise typer.Exit(INCOMPLETE_STATUS)
