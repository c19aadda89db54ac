"""The command line: one command for each function of ``vismae``, with the same settings.

What surrounds a command (log lines, summary, errors, exit status) is in ``console.py``.

Nothing heavy is imported here: torch, lightning and monai are loaded by the workflow that needs
them, so that ``vismae --help`` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

import vismae
from vismae.console import run_command
from vismae.core.errors import SettingError

app = typer.Typer(
    name="vismae",
    help="Self-supervised pre-training for medical images: ingest, pretrain, finetune, evaluate.",
    epilog="Every command also takes --set section.name=value; the settings are listed in "
    "docs/settings.md. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def main() -> None:
    """Run the command line; the entry point of the ``vismae`` program."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vismae {vismae.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command()
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
    modality: Annotated[
        str | None,
        typer.Option(
            help="Modality of files that do not say: ct, mr, pet, xr, us or other.", metavar="WORD"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Read burned-in, secondary-capture or localizer images too; repeatable.",
            metavar="WORD",
        ),
    ] = None,
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
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="What to ask a DICOMweb server for, such as Modality=CT; repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
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
            keep=keep or None,
            max_side=max_side,
            keep_column=keep_column or None,
            keep_ids=keep_ids,
            salt=salt,
            query=_pairs(query, "--query") or None,
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


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Return KEY=VALUE texts as a table."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise SettingError(f"{option} {text}: expected KEY=VALUE, such as Modality=CT.")
        pairs[key] = value
    return pairs


@app.command()
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


@app.command()
def pretrain(
    store: Annotated[
        Path | None, typer.Option("--store", help="Store to learn from.", metavar="DIR")
    ] = None,
    data: Data = None,
    out: Run = None,
    init: Init = None,
    resume: Resume = None,
    overwrite: Overwrite = None,
    modality: Annotated[
        str | None,
        typer.Option(help="Learn from these modalities only, as in ct,mr.", metavar="LIST"),
    ] = None,
    device: Device = None,
    devices: Devices = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a masked autoencoder on images without labels."""
    run_command(
        lambda: vismae.pretrain(
            data=data or None,
            device=device,
            devices=devices,
            modality=modality,
            config=config,
            set=assignments,
            store=store,
            out=out,
            init=init,
            resume=resume,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )


@app.command()
def finetune(
    kind: Annotated[
        Literal["segment", "classify"],
        typer.Argument(help="What to predict: a class for each pixel, or for each image."),
    ],
    data: Data = None,
    out: Run = None,
    init: Init = None,
    label_fraction: Annotated[
        float | None,
        typer.Option(help="Share of the training patients whose labels are used.", metavar="F"),
    ] = None,
    fold: Fold = None,
    resume: Resume = None,
    overwrite: Overwrite = None,
    device: Device = None,
    devices: Devices = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a model to a segmentation or classification task."""
    run_command(
        lambda: vismae.finetune(
            kind,
            data=data or None,
            device=device,
            devices=devices,
            config=config,
            set=assignments,
            out=out,
            init=init,
            label_fraction=label_fraction,
            fold=fold,
            resume=resume,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )


@app.command()
def evaluate(
    model: Model = None,
    data: Data = None,
    out: OutputFolder = None,
    split: Annotated[
        str | None,
        typer.Option(help="Rows to score; test if not given.", metavar="NAME"),
    ] = None,
    fold: Fold = None,
    overwrite: Overwrite = None,
    device: Device = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score a fine-tuned model and write the report."""
    run_command(
        lambda: vismae.evaluate(
            data=data or None,
            config=config,
            set=assignments,
            model=model,
            out=out,
            split=split,
            fold=fold,
            overwrite=overwrite,
            device=device,
        ),
        verbose,
        quiet,
    )


@app.command()
def study(
    out: OutputFolder = None,
    resume: Annotated[
        bool | None, typer.Option("--resume", help="Skip runs whose scores are there.")
    ] = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare starts over tasks, label fractions and seeds; tasks and starts are in --config."""
    run_command(
        lambda: vismae.study(
            config=config, set=assignments, out=out, resume=resume, overwrite=overwrite
        ),
        verbose,
        quiet,
    )


@app.command()
def export(
    model: Model = None,
    format: Annotated[
        Literal["reference"] | None,
        typer.Option(help="reference: the checkpoint layout of the published VIS-MAE code."),
    ] = None,
    out: OutputFolder = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a model folder in another program's file format."""
    run_command(
        lambda: vismae.export(
            config=config,
            set=assignments,
            model=model,
            format=format,
            out=out,
            overwrite=overwrite,
        ),
        verbose,
        quiet,
    )


@app.command()
def demo(
    out: OutputFolder = None,
    device: Device = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Walk the whole road on small made-up images; minutes."""
    run_command(
        lambda: vismae.demo(
            config=config, set=assignments, out=out, device=device, overwrite=overwrite
        ),
        verbose,
        quiet,
    )
