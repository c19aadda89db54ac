"""Settings of SimCLR; beside ``core/sections.py``."""

from pydantic import Field

from vismae.core.sections import Settings


class ContrastiveSettings(Settings):
    """SimCLR, the other way to pre-train the same encoder (``method: simclr``)."""

    temperature: float = Field(default=0.1, gt=0.0)
    """Divides the similarities; lower looks harder at the most similar images."""
    projection_dim: int = Field(default=128, ge=2, le=65_536)
    """Numbers that views are compared by."""
