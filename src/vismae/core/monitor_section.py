"""Settings of the watch over a pre-training; beside ``core/sections.py``."""

from pydantic import Field

from vismae.core.sections import Settings
from vismae.core.setting_types import AutoOrOff, Paths


class MonitorSettings(Settings):
    """What is looked at while pre-training runs, beside the loss."""

    every: int = Field(default=500, ge=0)
    """Optimiser steps between looks at the features; 0 never looks."""
    most_time_fraction: float = Field(default=0.03, gt=0.0, le=1.0)
    """Largest share of the running time for pictures and looks; a look that does not fit is put
    off."""
    data: Paths = ()
    """Images with classes (a store, csv or folder) to be told apart by the features, by nearest
    neighbours and a linear probe; only the effective rank of the features when empty."""
    images: int = Field(default=1000, ge=4)
    """Most images of a look."""
    mlflow: AutoOrOff = "auto"
    """Also keep the record in MLflow (RUN/mlflow.db) where it is installed, or never."""
