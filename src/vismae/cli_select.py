"""The command that says what to label next: select."""

from pathlib import Path
from typing import Annotated, Literal

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
    Store,
    Verbose,
)
from vismae.console import run_command


def select(
    model: Model = None,
    store: Store = None,
    n: Annotated[int | None, typer.Option("--n", help="Patients to choose.", metavar="N")] = None,
    strategy: Annotated[
        Literal["random", "entropy", "core-set", "hybrid"] | None,
        typer.Option(help="How to choose; hybrid, or core-set for a masked autoencoder."),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="csv with patient_id of further labelled patients.", metavar="FILE"),
    ] = None,
    out: OutputFolder = None,
    device: Device = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Rank unlabelled patients by what the model is unsure of and has not seen."""
    run_command(
        lambda: vismae.select(
            config=config,
            set=assignments,
            model=model,
            store=store,
            n=n,
            strategy=strategy,
            labelled=labelled,
            out=out,
            device=device,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )
