"""Weights of other projects, by the names in their files: which they are, and what became of them.

Only names and shapes are looked at; no project's code is needed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

IMAGENET = (0.449, 0.226)
"""Mean and spread of values of 0 to 1 in ImageNet trainings: the means over three colours.

Those of each are 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225: an input differs by at most 0.2.
"""

Naming = Literal["Microsoft", "timm", "Hugging Face", "torchvision"]


@dataclass(frozen=True)
class ForeignAccount:
    """What became of every tensor of another project's file.

    Attributes:
        naming: Whose names the file has.
        taken: Number of the file's tensors that were used.
        unused: Names that have no counterpart here, or follow from the sizes.
        absent: Names of this network that the file does not have; they keep their initial values.
        adapted: Name and what was done, where a tensor was changed to fit.
        normalisation: Mean and spread of 0..1 values that the project trained with.
    """

    naming: Naming
    taken: int
    unused: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    adapted: tuple[tuple[str, str], ...] = ()
    normalisation: tuple[float, float] = IMAGENET

    def text(self) -> str:
        """Say it in a few lines for a log."""
        lines = [f"file with {self.naming} names: {self.taken} tensors used"]
        for names, said in ((self.unused, "not used"), (self.absent, "not in the file")):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                lines.append(f"{said}: {', '.join(names[:5])}{more}")
        lines += [f"adapted {name}: {change}" for name, change in self.adapted]
        mean, spread = self.normalisation
        lines.append(f"images had mean {mean:g} and spread {spread:g} taken off in its training")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a model card's provenance."""
        return asdict(self)


def without_wrapper(found: Mapping[str, Tensor], stem: str) -> dict[str, Tensor]:
    """Take off what stands before the name ``stem``, wherever it stands.

    Args:
        found: Tensors by name.
        stem: A name that every file of the kind has, such as ``patch_embed.proj.weight``.

    Returns:
        Tensors by name; names without that prefix stay as they are. Empty if no name ends so.
    """
    places = [name for name in found if name == stem or name.endswith("." + stem)]
    if not places:
        return {}
    prefix = min(places, key=len)[: -len(stem)]
    return {name.removeprefix(prefix): value for name, value in found.items()}
