"""The record of losses: means over everything since the last row, also across a resume."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vismae.core.types import Modality
from vismae.training.modules import TrainingModule
from vismae.training.step_losses import StepLosses

CT = list(Modality).index(Modality.CT)


def see(losses: StepLosses, step: int, loss: float) -> dict[str, float] | None:
    """Let a step of one batch go by; what is its row?"""
    module: Any = TrainingModule.__new__(TrainingModule)
    torch.nn.Module.__init__(module)
    trainer: Any = SimpleNamespace(global_step=step)
    losses.on_train_batch_start(trainer, module, {}, step - 1)
    module.last_loss = torch.tensor(loss)
    module.last_image_losses = torch.tensor([loss]) if module.gives_image_losses else None
    losses.on_train_batch_end(trainer, module, None, {"modality": torch.tensor([CT])}, step - 1)
    return losses.row


def test_a_row_is_the_mean_since_the_one_before_and_the_last_step_has_one() -> None:
    losses = StepLosses(every=2, total_steps=3)
    rows = [see(losses, step, loss) for step, loss in ((1, 1.0), (2, 2.0), (3, 4.0))]
    assert rows == [None, {"loss": 1.5, "loss_ct": 1.5}, {"loss": 4.0, "loss_ct": 4.0}]


def test_what_was_seen_before_a_resume_point_belongs_to_the_row_after_it() -> None:
    stopped = StepLosses(every=3, total_steps=6)
    assert stopped.state_dict() == {}
    see(stopped, 1, 1.0)
    state = stopped.state_dict()
    see(stopped, 2, 9.0)
    assert see(stopped, 3, 2.0) == {"loss": 4.0, "loss_ct": 4.0}
    resumed = StepLosses(every=3, total_steps=6, resume_step=1)
    resumed.load_state_dict(state)
    see(resumed, 2, 9.0)
    assert see(resumed, 3, 2.0) == pytest.approx({"loss": 4.0, "loss_ct": 4.0})
