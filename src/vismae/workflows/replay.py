"""``vismae pretrain --replay``: a step that was not finite, run once more."""

from pathlib import Path

from vismae.core.setting_types import Device
from vismae.inference.predictor import choose_device
from vismae.training.replay import ReplayResult, replay_step


def replay(folder: Path, device: Device = "auto") -> ReplayResult:
    """Run the step that a pre-training kept when it stopped, and say where it begins to go wrong.

    Nothing is trained and nothing written.

    Args:
        folder: ``RUN/nan_step``.
        device: Where to compute; the kind of device that trained repeats the step's random
            numbers.

    Raises:
        SettingError: There is no such device.
        TrainingError: No step of a pre-training is kept there.
        ModelError: A file is damaged.
    """
    return replay_step(folder, choose_device(device))
