"""What an export reports: its files, the comparison with torch, and what a user must know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vismae.core.errors import ModelError

TOLERANCE = 1e-4
"""Largest difference from torch that an exported model may show."""


@dataclass(frozen=True)
class Outcome:
    """An export that was written and run.

    Attributes:
        file: The main file.
        differences: What was compared -> largest difference from this package's own numbers.
        needs: Packages that running it takes.
        notes: Sentences for the user.
        facts: Further entries for ``export.json``.
    """

    file: Path
    differences: Mapping[str, float]
    needs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def largest(self) -> float:
        """The largest difference."""
        return max(self.differences.values())


def require_same(differences: Mapping[str, float], file: Path) -> None:
    """Refuse an export whose numbers are not the model's.

    Raises:
        ModelError: A difference is above ``TOLERANCE``, or not a number; the file is removed.
    """
    wrong = [
        f"{name} by {value:.3g}"
        for name, value in differences.items()
        if not value <= TOLERANCE  # not a number is no success either
    ]
    if wrong:
        file.unlink(missing_ok=True)
        raise ModelError(
            f"{file.name} was removed: its output differs from the model's ({'; '.join(wrong)}; "
            f"allowed {TOLERANCE:g}). Keep the model folder, or try another format."
        )
