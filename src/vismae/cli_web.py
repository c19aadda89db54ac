"""The command that shows results in a browser: web."""

from pathlib import Path
from typing import Annotated

import typer

import vismae
from vismae.cli_options import Assignments, ConfigFile, Device, Quiet, Verbose
from vismae.console import run_command


def web(
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Model folder; repeatable.", metavar="DIR"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", metavar="N")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; any but loopback asks for a token.", metavar="ADDRESS"
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Further name of this server, as browsers use it; repeatable."),
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of vismae evaluate, for the note on calibration; repeatable.",
            metavar="DIR",
        ),
    ] = None,
    uncertainty: Annotated[
        bool | None, typer.Option("--uncertainty", help="Offer maps of the entropy too.")
    ] = None,
    stop_after: Annotated[
        float | None,
        typer.Option(help="Stop after so many seconds without a request.", metavar="SECONDS"),
    ] = None,
    device: Device = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show images and what models say of them on a page of this machine, and serve programs."""
    run_command(
        lambda: vismae.serve(
            model=model,
            config=config,
            set=assignments,
            port=port,
            host=host,
            allow_host=allow_host,
            evaluation=evaluation,
            uncertainty=uncertainty,
            stop_after=stop_after,
            device=device,
        ),
        verbose,
        quiet,
    )
