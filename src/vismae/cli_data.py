"""The commands that bring data in and show it: convert, ingest and inspect."""

from pathlib import Path
from typing import Annotated

import typer

import vismae
from vismae.cli_options import (
    Assignments,
    ConfigFile,
    Keep,
    ModalityOfFiles,
    OutputFolder,
    Overwrite,
    Query,
    Quiet,
    Verbose,
    pairs,
)
from vismae.console import run_command


def ingest(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders, files, zip archives, csv manifests, or dicomweb+https://host/path.",
            metavar="SOURCE...",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Store to make, to go on with or to add to.", metavar="DIR"),
    ] = None,
    modality: ModalityOfFiles = None,
    keep: Keep = None,
    max_side: Annotated[
        int | None,
        typer.Option(help="Average larger images down to this many pixels.", metavar="N"),
    ] = None,
    keep_column: Annotated[
        list[str] | None,
        typer.Option(help="Further manifest column to keep; repeatable.", metavar="NAME"),
    ] = None,
    keep_ids: Annotated[
        bool | None,
        typer.Option("--keep-ids", help="Ids in csv manifests are pseudonyms already."),
    ] = None,
    salt: Annotated[
        Path | None, typer.Option(help="File of the secret behind all pseudonyms.", metavar="FILE")
    ] = None,
    query: Query = None,
    max_rejected_fraction: Annotated[
        float | None,
        typer.Option(help="Fail if more than this share is unreadable.", metavar="F"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read files.", metavar="N")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(help="processes, dask://host:port, or here.", metavar="WHERE"),
    ] = None,
    dry_run: Annotated[
        bool | None,
        typer.Option("--dry-run", help="Give the whole account without writing a store."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML report; STORE/report.html if not given.", metavar="FILE"),
    ] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Begin a store anew.")
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Read images (DICOM, NIfTI, PNG, JPEG, TIFF) into a store; begin, go on, or add."""
    run_command(
        lambda: vismae.ingest(
            *(sources or ()),
            config=config,
            set=assignments,
            store=store,
            modality=modality,
            keep=keep,
            max_side=max_side,
            keep_column=keep_column,
            keep_ids=keep_ids,
            salt=salt,
            query=pairs(query, "--query") or None,
            max_rejected_fraction=max_rejected_fraction,
            workers=workers,
            executor=executor,
            dry_run=dry_run,
            report=report,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )


def inspect(
    store: Annotated[
        Path | None, typer.Argument(help="Store to look at.", metavar="STORE", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Contact sheet to write; STORE/contact_sheet.png if not given.", metavar="PNG"
        ),
    ] = None,
    verify: Annotated[
        bool | None, typer.Option("--verify", help="Check every shard and read every image.")
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Count a store's images by modality; draw a contact sheet."""
    run_command(
        lambda: vismae.inspect(store, config=config, set=assignments, out=out, verify=verify),
        verbose,
        quiet,
    )


def convert(
    layout: Annotated[
        str,
        typer.Argument(
            help="acdc, amos22, btcv, synapse, busi, isic2018, medmnist or nnunet.",
            metavar="LAYOUT",
            show_default=False,
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            help="The data set's folder, or its .npz.", metavar="SOURCE", show_default=False
        ),
    ],
    out: OutputFolder = None,
    fold: Annotated[
        int | None,
        typer.Option(help="Fold of splits_final.json, counted from 0 (nnunet).", metavar="K"),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="The one channel to take; else all (nnunet).", metavar="NAME|N"),
    ] = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write manifest and settings for a public data set as its publishers hand it out."""
    run_command(
        lambda: vismae.convert(
            layout,
            source,
            config=config,
            set=assignments,
            out=out,
            fold=fold,
            channel=channel,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )
