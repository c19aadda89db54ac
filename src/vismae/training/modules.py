"""LightningModules: wiring between a model, its loss and its optimiser; no mathematics."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from vismae.core.augment_section import AugmentSettings
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import OptimizerSettings
from vismae.core.task_section import TaskSettings
from vismae.data.augment_labelled import apply_changes
from vismae.models.classifier import classification_loss
from vismae.models.contrastive import SwinSimCLR
from vismae.models.mae import MAEOutput, SwinMAE
from vismae.models.segmentation_loss import segmentation_loss
from vismae.training.modality_losses import image_losses
from vismae.training.optimizer import build_optimizer, parameter_groups

Batch = dict[str, Tensor]
"""Items of ``data/loaders.py`` joined by the loader: name -> (B, ...)."""

Outputs = Tensor | Sequence[Tensor]
"""What a network gives in training: logits, or several with deep supervision, finest first."""


class TrainingModule(L.LightningModule):
    """A network with its optimiser; subclasses give the loss of a batch.

    Args:
        model: The network.
        settings: Optimiser settings.
        lr: Peak learning rate, already scaled to the batch.
        total_steps: Optimiser steps of the whole run.
        encoder_layers: Parameter prefixes of the encoder's layers for layer-wise rates.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerSettings,
        lr: float,
        total_steps: int,
        encoder_layers: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self._settings = settings
        self._lr = lr
        self._total_steps = total_steps
        self._encoder_layers = encoder_layers
        self.last_loss: Tensor | None = None
        self.gives_image_losses = False
        self.last_image_losses: Tensor | None = None
        self.last_gradient_norm: Tensor | None = None
        self.last_lr: float | None = None
        self._no_more_steps: Tensor | None = None

    def configure_optimizers(self) -> dict[str, object]:
        """Return the optimiser and its schedule, stepped once per optimiser step."""
        groups = parameter_groups(self.model, self._lr, self._settings, self._encoder_layers)
        optimizer, schedule = build_optimizer(
            groups, self._settings, self._total_steps, fused=self.device.type in ("cpu", "cuda")
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, keep norm and rate, and let no step that is not finite change the weights.

        The optimiser reads on the device whether to step, so the host does not wait. After one bad
        step there are no more: the weights stay as they were before it until the run stops.
        """
        parameters = [
            parameter
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if gradient_clip_val:
            norm = clip_grad_norm_(parameters, gradient_clip_val)
        else:
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.last_gradient_norm = norm
        # The schedule moves on before anybody else could ask.
        self.last_lr = float(optimizer.param_groups[-1]["lr"])
        # The fused optimisers alone can be told so; others would refuse.
        if self.last_loss is not None and optimizer.defaults.get("fused"):
            bad = (~torch.isfinite(norm + self.last_loss)).to(torch.float32)
            before = self._no_more_steps
            self._no_more_steps = bad if before is None else torch.maximum(before, bad)
            optimizer.found_inf = self._no_more_steps  # pyright: ignore[reportAttributeAccessIssue]


_SAME_RANDOM_NUMBERS: dict[str, Any] = {"fallback_random": True}


def compiled_step(forward: Callable[..., MAEOutput]) -> Callable[..., MAEOutput]:
    """Compile a forward pass, and with it its backward pass, as one graph each.

    Batches of training have one shape, for which the graph is made; another shape makes another
    graph. Random numbers are those of the plain network, so that a kept step can be run again
    without the compiler and drops the same paths.
    """
    return torch.compile(forward, fullgraph=True, dynamic=False, options=_SAME_RANDOM_NUMBERS)


class PretrainModule(TrainingModule):
    """Masked autoencoding.

    Args:
        compiled: Run forward and backward pass through ``torch.compile``, as one graph.
        args: As for ``TrainingModule``.
        kwargs: As for ``TrainingModule``.
    """

    model: SwinMAE

    def __init__(self, *args: Any, compiled: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The function, not the module: names of parameters stay, and pictures are drawn by the
        # plain network, whatever their number.
        forward = self.model.forward
        self._forward = compiled_step(forward) if compiled else forward

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the reconstruction loss; each image's key decides its hidden patches."""
        output = self._forward(batch["image"], keys=batch["key"])
        self.last_loss = output.loss.detach()
        self.last_image_losses = None
        if self.gives_image_losses:
            self.last_image_losses = image_losses(self.model, batch["image"], output)
        return output.loss


class ContrastiveModule(TrainingModule):
    """Two views of each image are told from those of all others.

    Args:
        compiled: Run through ``torch.compile``.
        args: As for ``TrainingModule``.
        kwargs: As for ``TrainingModule``.
    """

    model: SwinSimCLR

    def __init__(self, *args: Any, compiled: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        forward = self.model.loss
        if compiled:
            # Not one graph: processes exchange their projections in the middle of it.
            forward = torch.compile(forward, dynamic=False, options=_SAME_RANDOM_NUMBERS)
        self._forward = forward

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the contrastive loss."""
        loss = self._forward(batch["image"], batch["second"])
        self.last_loss = loss.detach()
        return loss


class FinetuneModule(TrainingModule):
    """Segmentation or classification, by the loss it is given.

    Args:
        loss: Of the network's output and the batch.
        prepare: Makes the batch the network sees from the one that was loaded, on the device.
        args: As for ``TrainingModule``.
        kwargs: As for ``TrainingModule``.
    """

    def __init__(
        self,
        loss: Callable[[Any, Batch], Tensor],
        prepare: Callable[[Batch], Batch],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        self._prepare = prepare

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch."""
        # Positions of pixels need more digits than bfloat16 has.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            batch = self._prepare(batch)
        loss = self._loss(self.model(batch["image"]), batch)
        self.last_loss = loss.detach()
        return loss


def augmented(preprocessing: Preprocessing, settings: AugmentSettings) -> Callable[[Batch], Batch]:
    """Return what makes the changes drawn for a batch, mixes its images, and normalises them."""
    mean, std, alpha = preprocessing.mean, preprocessing.std, settings.mixup

    def prepare(batch: Batch) -> Batch:
        images, label_maps = apply_changes(batch["image"], batch.get("label_map"), batch["changes"])
        made = {**batch, "image": (images - mean) / std}
        if label_maps is not None:
            made["label_map"] = label_maps
        elif alpha > 0.0:
            made |= mixed(made["image"], batch["label"], alpha)
        return made

    return prepare


def mixed(images: Tensor, labels: Tensor, alpha: float) -> Batch:
    """Mix each image with another of the batch (Zhang et al. 2018, arXiv 1710.09412).

    Args:
        images: (B, C, H, W).
        labels: Of each image, (B,) or (B, K).
        alpha: Of the beta distribution that the share is drawn from, one for the batch.

    Returns:
        ``image``; ``mixed_label``, that of the other image; ``share``, what the own one counts.
    """
    # Drawn on the host, as many numbers on every device; the copies wait for nothing.
    beta = torch.distributions.Beta(alpha, alpha, validate_args=False)
    share = beta.sample().to(images.device, non_blocking=True)
    order = torch.randperm(len(images)).to(images.device, non_blocking=True)
    return {
        "image": share * images + (1.0 - share) * images[order],
        "mixed_label": labels[order],
        "share": share,
    }


def segmentation_objective(task: TaskSettings) -> Callable[[Outputs, Batch], Tensor]:
    """Return the loss of a batch of label maps: a weighted sum, Dice and cross-entropy first."""

    def loss(logits: Outputs, batch: Batch) -> Tensor:
        return segmentation_loss(
            logits,
            batch["label_map"],
            dice_weight=task.dice_weight,
            ce_weight=task.cross_entropy_weight,
            focal_weight=task.focal_weight,
            focal_gamma=task.focal_gamma,
            tversky_weight=task.tversky_weight,
            tversky_alpha=task.tversky_alpha,
            tversky_beta=task.tversky_beta,
        )

    return loss


def classification_objective(
    task: TaskSettings, class_weights: Tensor | None
) -> Callable[[Tensor, Batch], Tensor]:
    """Return the loss of a batch of classes, rarer classes weighing more."""
    there: dict[torch.device, Tensor] = {}

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        # Copied once: a copy waits for all that the device still has to do.
        if class_weights is not None and logits.device not in there:
            there[logits.device] = class_weights.to(logits.device)
        weights = there.get(logits.device)

        def of(labels: Tensor) -> Tensor:
            """Loss against one label of each image."""
            return classification_loss(
                logits.float(),
                labels,
                class_weights=weights,
                multi_label=task.multi_label,
                label_smoothing=task.label_smoothing,
            )

        if "share" not in batch:
            return of(batch["label"])
        share = batch["share"]
        return share * of(batch["label"]) + (1.0 - share) * of(batch["mixed_label"])

    return loss
