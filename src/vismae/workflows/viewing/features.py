"""Features of every slice of an upload, as ``vismae embed`` gives them."""

from typing import Any, cast

from vismae.core.errors import PreprocessingError
from vismae.inference.embedder import embed_slices
from vismae.inference.ensemble import Ensemble
from vismae.inference.unanswered import require_answers
from vismae.models.features import require_features
from vismae.models.weights import Model
from vismae.workflows.prediction.reading import prepared_slices, require_known
from vismae.workflows.viewing.upload import Upload


def embed(
    upload: Upload, ensemble: Ensemble, batch_size: int
) -> tuple[dict[int, list[list[float]]], list[str]]:
    """Return the features of each slice, by number of the image, and why some have none.

    Raises:
        ModelError: The model has no encoder, or gives numbers that are not finite.
    """
    require_features(cast(Model, ensemble.models[0]))
    found: dict[int, list[list[float]]] = {}
    notes: list[str] = []
    for item in upload.inputs:
        try:
            for volume in item.read.volumes:
                for card in ensemble.cards:
                    require_known(volume.image, card)
        except PreprocessingError as error:
            notes.append(str(error))
            continue
        read = item.with_pixels(upload.folder)
        number_of = {
            id(volume): shown.number for volume, shown in zip(read.volumes, item.shown, strict=True)
        }
        slices = prepared_slices(read, ensemble.preprocessing)
        found_of = embed_slices(ensemble, slices, batch_size)
        for (_, volume, _), vector in require_answers(found_of):
            found.setdefault(number_of[id(volume)], []).append(cast(Any, vector).tolist())
    return found, notes
