"""A training as from the command line, noted step by step, in which one process may misbehave.

    torchrun --nproc-per-node 2 unruly.py SCRIPT.json

``command``: pretrain or finetune; ``options``: its settings; ``notes``: folder for the rows that
each rank saw (``rank-R.json``) and, with ``double``, the gradients of the first step in float64;
``what``: raise, kill, hang, dawdle or nan, done by process ``rank`` in step ``step``;
``seconds``: length of a step at least.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors.torch import save_file

import vismae.workflows.pretrain as pretraining
from vismae.console import run_command
from vismae.core.config import FinetuneConfig, PretrainConfig
from vismae.core.launch import find_launch
from vismae.core.settings import build_config
from vismae.data.loaders import PretrainImages
from vismae.training.modules import FinetuneModule, PretrainModule
from vismae.workflows.finetune import finetune
from vismae.workflows.pretrain import pretrain

RANK = find_launch().rank


def note_and_misbehave(kind: type[Any], script: dict[str, Any]) -> None:
    seen: list[list[int]] = []
    step_of = kind.training_step

    def training_step(self: Any, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        time.sleep(script.get("seconds", 0.0))
        if "notes" in script:
            seen.append(batch["row"].tolist())
            Path(script["notes"], f"rank-{RANK}.json").write_text(json.dumps(seen))
        loss = step_of(self, batch, batch_idx)
        if script.get("rank") == RANK and self.trainer.global_step == script["step"]:
            loss = misbehave(script["what"], loss)
            self.last_loss = loss.detach()
        return loss

    kind.training_step = training_step


def misbehave(what: str, loss: torch.Tensor) -> torch.Tensor:
    if what == "raise":
        raise ValueError("the disk is on fire")
    if what == "dawdle":
        time.sleep(3600)
    if what == "nan":
        return loss * float("nan")
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "hang": signal.SIGSTOP}[what])
    return loss


def compute_in_double(notes: str) -> None:
    build, read = pretraining.build_pretraining, PretrainImages.__getitem__
    clip = PretrainModule.configure_gradient_clipping

    def read_in_double(self: PretrainImages, draw: Any) -> Any:
        item = read(self, draw)
        return {**item, "image": item["image"].double()}

    def keep_and_clip(self: PretrainModule, *args: Any, **kwargs: Any) -> None:
        file = Path(notes, f"gradients-{RANK}.safetensors")
        if not file.exists():
            save_file(
                {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None},
                file,
            )
        clip(self, *args, **kwargs)

    pretraining.build_pretraining = lambda *args: build(*args).double()
    # Pictures are drawn of images in float32.
    pretraining.draw_fill_in_sheet = lambda *args: None
    PretrainImages.__getitem__ = read_in_double
    PretrainModule.configure_gradient_clipping = keep_and_clip


def main() -> None:
    torch.set_num_threads(1)
    script = json.loads(Path(sys.argv[1]).read_text())
    is_pretrain = script["command"] == "pretrain"
    note_and_misbehave(PretrainModule if is_pretrain else FinetuneModule, script)
    if script.get("double"):
        compute_in_double(script["notes"])
    kind, work = (PretrainConfig, pretrain) if is_pretrain else (FinetuneConfig, finetune)
    config = build_config(kind, script["command"], options=script["options"])
    try:
        run_command(lambda: work(config), verbose=False, quiet=False)
    except typer.Exit as end:
        sys.exit(end.exit_code)


if __name__ == "__main__":
    main()
