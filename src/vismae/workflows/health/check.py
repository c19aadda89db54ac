"""What one look at the environment found."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ``ok``; ``missing``, an optional part is not there; ``warning``, it works but
            something will hurt; ``failed``, needed and broken.
        found: What was found, in a few words.
        cure: What to do; empty where nothing is.
    """

    name: str
    state: State
    found: str
    cure: str = ""
