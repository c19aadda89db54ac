"""The command line: one command for each function of ``vismae``, with the same settings.

Training, studies and the rest are here; convert, ingest and inspect in ``cli_data.py``; select,
predict, embed and web each in a file of its own; options that commands share in ``cli_options.py``.
What surrounds a command (log lines, summary, errors, exit status) is in ``console.py``.

Nothing heavy is imported here: torch, lightning and monai are loaded by the workflow that needs
them, so that ``vismae --help`` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

import vismae
from vismae.cli_data import convert, ingest, inspect
from vismae.cli_embed import embed
from vismae.cli_options import (
    Assignments,
    ConfigFile,
    Data,
    Device,
    Devices,
    Fold,
    Init,
    Model,
    OutputFolder,
    Overwrite,
    Quiet,
    Resume,
    Run,
    Store,
    Verbose,
)
from vismae.cli_predict import predict
from vismae.cli_select import select
from vismae.cli_web import web
from vismae.console import INCOMPLETE_STATUS, run_command
from vismae.core.processes import let_waiting_threads_sleep

app = typer.Typer(
    name="vismae",
    help="Self-supervised pre-training for medical images: ingest, pretrain, finetune, evaluate, "
    "predict.",
    epilog="Every command also takes --set section.name=value; the settings are listed in "
    "docs/settings.md.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; the entry point of the ``vismae`` program."""
    let_waiting_threads_sleep()
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


app.command()(ingest)
app.command()(inspect)
app.command()(convert)
app.command()(select)


@app.command()
def pretrain(
    store: Store = None,
    data: Data = None,
    out: Run = None,
    init: Init = None,
    method: Annotated[
        Literal["mae", "simclr"] | None,
        typer.Option(help="mae fills in hidden patches; simclr tells views of images apart."),
    ] = None,
    resume: Resume = None,
    overwrite: Overwrite = None,
    modality: Annotated[
        str | None,
        typer.Option(help="Learn from these modalities only, as in ct,mr.", metavar="LIST"),
    ] = None,
    device: Device = None,
    devices: Devices = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure 20 steps, say what the run will need, stop.")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Run the step again that stopped a run (RUN/nan_step), and stop.", metavar="DIR"
        ),
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder on images without labels."""
    if replay is not None:
        run_command(lambda: vismae.replay(replay, device=device or "auto"), verbose, quiet)
        return
    work = vismae.plan_pretrain if plan else vismae.pretrain
    run_command(
        lambda: work(
            data=data,
            device=device,
            devices=devices,
            modality=modality,
            config=config,
            set=assignments,
            store=store,
            out=out,
            init=init,
            method=method,
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
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Choose a recipe for this task, write OUT/plan.yaml, stop."),
    ] = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a model to a segmentation or classification task."""
    work = vismae.plan_finetune if plan else vismae.finetune
    run_command(
        lambda: work(
            kind,
            data=data,
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
            data=data,
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


app.command()(predict)
app.command()(embed)
app.command()(web)


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
        Literal[
            "onnx",
            "onnx-int8",
            "torch-export",
            "huggingface",
            "monai",
            "microsoft",
            "timm",
            "reference",
        ]
        | None,
        typer.Option(help="Form to write; onnx if not given. docs/export.md says more."),
    ] = None,
    out: OutputFolder = None,
    data: Data = None,
    overwrite: Overwrite = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a model folder in a form that other code reads, and compare it with torch."""
    run_command(
        lambda: vismae.export(
            data=data,
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


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train for three steps too.")
    ] = True,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Check torch, device, decoders, extras, disk and a short training; status 1 if one fails."""
    result = run_command(lambda: vismae.doctor(train=train, as_json=json), verbose, quiet)
    if not result.healthy:
        raise typer.Exit(INCOMPLETE_STATUS)
