"""The preprocessing contract: how physical pixel values become the numbers a network sees.

It travels inside every model folder and is the same in pre-training, fine-tuning, evaluation
and prediction. ``data/intensity.py`` carries it out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from vismae.core.errors import PreprocessingError, SettingError
from vismae.core.types import Modality, PixelUnit

# Only these scales are physical: mixing them with display grey levels changes what a value means.
_PHYSICAL = {PixelUnit.HU, PixelUnit.SUV}


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError(f"found {value[0]:g} to {value[1]:g}; the second must be the larger one")
    return value


# A card from outside must not make us fill all memory with one canvas.
_Side = Annotated[int, Field(ge=1, le=8192)]
_Window = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]
_Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
_Percentiles = Annotated[tuple[_Percentile, _Percentile], AfterValidator(_rising)]


def sequence_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of sequences without blanks around them.

    Raises:
        ValueError: One is empty, or two differ at most in upper and lower case.
    """
    found = tuple(name.strip() for name in names)
    known = [name.casefold() for name in found]
    twice = [name for name in found if known.count(name.casefold()) > 1]
    if twice or "" in found:
        what = f"'{twice[0]}' is there twice" if twice else "one name is empty"
        raise ValueError(f"{what}; each sequence needs a name of its own")
    return found


class Preprocessing(BaseModel):
    """Everything between a stored image and the network's input tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[_Side, _Side] = (224, 224)
    """Height and width of the network's input in pixels."""
    in_channels: Literal[1, 3] = 3
    """Channels of an image; grey images are repeated, colour images averaged for 1."""
    neighbours: int = Field(default=0, ge=0, le=5)
    """Slices on each side that come with a slice, as further channels (2.5D); edges repeat."""
    sequences: Annotated[tuple[str, ...], AfterValidator(sequence_names)] = ()
    """Sequences of a case that are its channels, in their order, each scaled by itself; none for
    images that stand alone."""
    fit: Literal["pad", "stretch"] = "pad"
    """Keep the aspect ratio and pad bottom and right, or stretch to the input size."""
    ct_window_hu: _Window = (-1000.0, 1000.0)
    """HU mapped to 0 and 1."""
    pet_range_suv: _Window = (0.0, 10.0)
    """SUV mapped to 0 and 1."""
    percentiles: _Percentiles = (0.5, 99.5)
    """Percentiles of the volume mapped to 0 and 1 for scales without a physical unit."""
    mean: FiniteFloat = 0.223
    """Subtracted after scaling to 0..1 (VIS-MAE's pre-training value)."""
    std: FiniteFloat = Field(default=0.202, gt=0.0)
    """Divided by after subtracting the mean."""
    pixel_units: dict[Modality, tuple[PixelUnit, ...]] = {}
    """Units seen in training, by modality; empty before training."""

    @model_validator(mode="after")
    def _sequences_are_grey(self) -> "Preprocessing":
        if self.sequences and self.in_channels != 1:
            raise ValueError(
                f"sequences are {', '.join(self.sequences)}, each of one channel, but in_channels "
                f"is {self.in_channels}; it must be 1"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Model folders of single images stay readable for versions that know no sequences.
        written: Mapping[str, Any] = write(self)
        return {name: value for name, value in written.items() if name != "sequences" or value}

    @property
    def slice_channels(self) -> int:
        """Channels of one slice: those of an image, or one for each sequence."""
        return len(self.sequences) or self.in_channels

    @property
    def input_channels(self) -> int:
        """Channels of the network's input: those of the slice and of its neighbours."""
        return self.slice_channels * (1 + 2 * self.neighbours)

    def refuse_sequences(self, where: str, cure: str) -> None:
        """Raise if the model sees several sequences of a case, which a command cannot give it.

        Args:
            where: The model, for the message.
            cure: What to do instead.

        Raises:
            SettingError: It does; names them.
        """
        if self.sequences:
            raise SettingError(
                f"{where} sees the sequences {', '.join(self.sequences)} of a case together, as "
                f"channels. {cure}"
            )

    def require_same(self, other: "Preprocessing", where: str) -> None:
        """Raise if ``other`` prepares images in another way, naming every field that differs.

        ``image_size`` may differ (networks take any size) and ``pixel_units`` is checked against
        the data itself by ``require_units``.

        Raises:
            PreprocessingError: Names field, this value and the other value.
        """
        differing = [
            f"preprocessing.{name}: the model has {getattr(self, name)}, {where} has "
            f"{getattr(other, name)}"
            for name in type(self).model_fields
            if name not in ("image_size", "pixel_units")
            and getattr(self, name) != getattr(other, name)
        ]
        if differing:
            raise PreprocessingError(
                "Images would be prepared in another way than the model expects. "
                + "; ".join(differing)
                + ". Leave these settings out to take over the model's own."
            )

    def require_units(self, found: Iterable[tuple[Modality, PixelUnit]], where: str) -> None:
        """Raise if data comes in a physical unit the model never saw, or has lost it.

        Display grey levels and a scanner's arbitrary scale are both rescaled by percentile, so
        they may stand for one another; Hounsfield units and SUV may not.

        Raises:
            PreprocessingError: Names the field, the unit found and the units expected.
        """
        for modality, unit in found:
            known = self.pixel_units.get(modality)
            if not known or unit in known:
                continue
            if unit in _PHYSICAL or not set(known) - _PHYSICAL:
                raise PreprocessingError(
                    f"preprocessing.pixel_units.{modality}: the model was trained on "
                    f"{', '.join(known)}, but {where} holds {modality.upper()} images in "
                    f"'{unit}'. Give images in the model's unit, or train on both."
                )
