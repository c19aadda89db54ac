"""A step that was not finite, once more: which images, weight, layer or gradient is it first?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vismae.core.errors import TrainingError
from vismae.models.contrastive import SwinSimCLR
from vismae.models.mae import SwinMAE
from vismae.models.weights import build_module, load_exactly, read_safetensors
from vismae.training.nonfinite import BATCH_FILE, STEP_FILE, STEP_FORMAT, STEP_WEIGHTS_FILE


@dataclass(frozen=True)
class ReplayResult:
    """What running a kept step again has shown.

    Attributes:
        step: Number of the step.
        loss: Its loss this time.
        images: Rows of the store whose images are not finite.
        weights: Names of weights that were not finite before the step.
        layer: First layer whose output is not finite; empty if all are.
        layer_input_finite: What that layer was given was finite.
        gradient: First parameter, in the order of the backward pass, whose gradient is not finite;
            empty if all are.
    """

    step: int
    loss: float
    images: tuple[int, ...]
    weights: tuple[str, ...]
    layer: str
    layer_input_finite: bool
    gradient: str

    @property
    def finite(self) -> bool:
        """Nothing was found: the step is finite this time."""
        return not (self.images or self.weights or self.layer or self.gradient) and (
            abs(self.loss) < float("inf")
        )

    def summary(self) -> str:
        """Say where the step becomes not finite first."""
        lines = [f"Step {self.step}, run again: loss {self.loss:g}."]
        if self.images:
            lines.append(f"Not finite before any layer: images of rows {_listed(self.images)}.")
        if self.weights:
            lines.append(f"Not finite before the step: weights {_listed(self.weights)}.")
        if self.layer:
            given = "finite" if self.layer_input_finite else "not finite either"
            lines.append(f"First output that is not finite: {self.layer} (its input is {given}).")
        elif self.loss != self.loss or abs(self.loss) == float("inf"):
            lines.append("All layers are finite, the loss is not: it begins in the loss itself.")
        if self.gradient:
            lines.append(f"First gradient that is not finite: {self.gradient}.")
        if self.finite:
            lines.append(
                "Everything is finite this time. What was not may lie in an earlier batch of the "
                "same step (trainer.accumulate), in another process, or in the device."
            )
        return "\n".join(lines)


def replay_step(folder: Path, device: torch.device) -> ReplayResult:
    """Run a kept step again, forward and backward, and look where it stops being finite.

    Args:
        folder: ``RUN/nan_step``, or ``rank_N`` in it.
        device: Where to compute. Random numbers, and with them drop path, are those of the step
            only on the same kind of device.

    Raises:
        TrainingError: No step of a pre-training is kept there.
        ModelError: A file is damaged.
    """
    folder = _own_folder(folder)
    kept = _read_step(folder)
    batch = {
        name: value.to(device) for name, value in read_safetensors(folder / BATCH_FILE).items()
    }
    state = read_safetensors(folder / STEP_WEIGHTS_FILE)
    model = build_module(kept["kind"], kept["architecture"])
    if not isinstance(model, SwinMAE | SwinSimCLR):
        raise TrainingError(
            f"{folder} keeps a step of a '{kept['kind']}'; only steps of pre-training can be run "
            f"again. {BATCH_FILE} and {STEP_WEIGHTS_FILE} there are what it began with."
        )
    load_exactly(model, state, str(folder / STEP_WEIGHTS_FILE))
    model.to(device).train()
    layers, gradients = _watch_layers(model), _watch_gradients(model)
    torch.manual_seed(kept["seed"])
    with torch.autocast(device.type, torch.bfloat16, enabled=kept["precision"] == "bf16-mixed"):
        if isinstance(model, SwinMAE):
            loss = model(batch["image"], keys=batch["key"]).loss
        else:
            loss = model.loss(batch["image"], batch["second"])
    loss.backward()
    layer, given_finite = layers[0] if layers else ("", True)
    return ReplayResult(
        step=int(kept["step"]),
        loss=float(loss.detach()),
        images=tuple(_bad_rows(batch)),
        weights=tuple(name for name, value in state.items() if not _finite(value)),
        layer=layer,
        layer_input_finite=given_finite,
        gradient=gradients[0] if gradients else "",
    )


def _own_folder(folder: Path) -> Path:
    """Return the folder itself, or that of the first process that kept something in it."""
    if (folder / STEP_FILE).is_file():
        return folder
    ranks = sorted(path.parent for path in folder.glob(f"rank_*/{STEP_FILE}"))
    if not ranks:
        raise TrainingError(
            f"{folder} keeps no step: {STEP_FILE} is missing. Give the folder nan_step of a run "
            "that stopped at a loss which was not finite."
        )
    return ranks[0]


def _read_step(folder: Path) -> dict[str, Any]:
    path = folder / STEP_FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path} is no JSON ({error}). It is damaged.") from error
    if not isinstance(kept, dict) or kept.get("format_version") != STEP_FORMAT:
        raise TrainingError(
            f"{path} has no format_version {STEP_FORMAT}. Use the vismae that wrote it."
        )
    return kept


def _watch_layers(model: nn.Module) -> list[tuple[str, bool]]:
    """Collect layers whose output is not finite, in the order in which they end.

    Each with whether its input was finite.
    """
    found: list[tuple[str, bool]] = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, given: object, output: object) -> None:
            if not _all_finite(output):
                found.append((name, _all_finite(given)))

        return look

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(watch(name))
    return found


def _watch_gradients(model: nn.Module) -> list[str]:
    """Collect parameters whose gradient is not finite, in the order of the backward pass."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(parameter: Tensor) -> None:
            if parameter.grad is not None and not _finite(parameter.grad):
                found.append(name)

        return look

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(watch(name))
    return found


def _bad_rows(batch: dict[str, Tensor]) -> list[int]:
    """Return the store's rows of images that are not finite."""
    views = [batch[name] for name in ("image", "second") if name in batch]
    finite = [torch.isfinite(view).flatten(1).all(dim=1) for view in views]
    return batch["row"][~torch.stack(finite).all(dim=0)].tolist()


def _all_finite(values: object) -> bool:
    """Tell whether every tensor in a value, tuple or list is finite."""
    if isinstance(values, Tensor):
        return _finite(values)
    if isinstance(values, (tuple, list)):
        return all(_all_finite(value) for value in values)  # pyright: ignore[reportUnknownVariableType]
    return True


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _listed(names: tuple[object, ...]) -> str:
    first = ", ".join(str(name) for name in names[:8])
    return f"{first} and {len(names) - 8} more" if len(names) > 8 else first
