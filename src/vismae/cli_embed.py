"""The command that turns images into rows of numbers: embed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import vismae
from vismae.cli_options import (
    Assignments,
    ConfigFile,
    Device,
    Model,
    OutputFolder,
    Overwrite,
    Quiet,
    Verbose,
)
from vismae.cli_predict import INCOMPLETE_STATUS
from vismae.console import run_command

if TYPE_CHECKING:
    from vismae.workflows.embed import EmbedResult


def embed(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A store, or images, DICOM series, folders and zip archives.",
            metavar="STORE|FILES...",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    out: OutputFolder = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help="Modality of files that do not say: ct, mr, pet, xr, us or other.", metavar="WORD"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Embed burned-in, secondary-capture or localizer images; repeatable.",
            metavar="WORD",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Slices at a time.", metavar="N")] = None,
    device: Device = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="Arithmetic of the network.")
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="Nearest images to list for each; 0 none.", metavar="K")
    ] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume", help="Skip inputs whose features are there.")
    ] = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Turn images into features: table, nearest neighbours, map; status 1 if any failed."""
    results: list[EmbedResult] = []

    def work() -> "EmbedResult":
        results.append(
            vismae.embed(
                model=model,
                inputs=inputs or None,
                config=config,
                set=assignments,
                out=out,
                modality=modality,
                keep=keep or None,
                batch_size=batch_size,
                device=device,
                precision=precision,
                neighbours=neighbours,
                resume=resume,
                overwrite=overwrite,
            )
        )
        return results[0]

    run_command(work, verbose, quiet)
    if results[0].failed:
        raise typer.Exit(INCOMPLETE_STATUS)
