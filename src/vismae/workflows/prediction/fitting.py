"""Which settings of ``vismae predict`` a model can honour."""

from vismae.core.config import PredictConfig
from vismae.core.errors import SettingError
from vismae.inference.class_slices import gives_evidence
from vismae.inference.dicom_source import require_highdicom
from vismae.inference.ensemble import Ensemble
from vismae.workflows.prediction.remote import require_sendable, servers_of

_FORMATS = {
    "segmenter": ("nifti", "png", "dicomseg"),
    "classifier": ("dicomsr",),
    "mae": (),
}
# Settings that only one kind of model can honour.
_ONLY_FOR = {
    "tiling": "segmenter",
    "uncertainty": "segmenter",
    "largest_component": "segmenter",
    "fill_holes": "segmenter",
    "explain": "classifier",
}


def resolved(config: PredictConfig, ensemble: Ensemble) -> PredictConfig:
    """Return the settings with the format that sending implies.

    Raises:
        SettingError: A setting does not fit the model, or a package is missing.
    """
    _require_fitting(config, ensemble)
    if ensemble.preprocessing.sequences and servers_of(config.inputs, config.query)[0]:
        ensemble.preprocessing.refuse_sequences(
            str(config.model[0]),
            "Which series of a server are which sequence is not known: get the series as files and "
            "list them in a manifest with the column sequence.",
        )
    if not config.send:
        return config
    servers, _ = servers_of(config.inputs, config.query)
    wanted = require_sendable(config.inputs, servers, ensemble.kind, config.format)
    return config.model_copy(update={"format": wanted})


def _require_fitting(config: PredictConfig, ensemble: Ensemble) -> None:
    if ensemble.kind == "contrastive":
        raise SettingError(
            f"{config.model[0]} is a contrastive encoder, which predicts nothing. Use vismae embed "
            "for its features, or fine-tune it."
        )
    for name, kind in _ONLY_FOR.items():
        if getattr(config, name) and ensemble.kind != kind:
            raise SettingError(
                f"{name} is for a {kind}; {config.model[0]} holds a {ensemble.kind}. Leave it out."
            )
    formats = _FORMATS[ensemble.kind]
    if config.format is not None and config.format not in formats:
        raise SettingError(
            f"format is {config.format}, but {config.model[0]} holds a {ensemble.kind}, whose "
            f"results have {' or '.join(formats) or 'no such choice'}. Leave it out."
        )
    if config.format in ("dicomseg", "dicomsr") or config.send:
        require_highdicom()
    if config.explain and not gives_evidence(ensemble):
        raise SettingError(
            f"explain is for classifiers of the kind swin; {config.model[0]} is another network. "
            "Leave it out."
        )
    if config.flips and ensemble.kind == "mae":
        raise SettingError("flips is for segmenters and classifiers. Leave it out.")
    if ensemble.kind == "segmenter":
        classes = ensemble.task.classes
        for setting in ("largest_component", "fill_holes"):
            for name in getattr(config, setting):
                if name not in classes[1:]:
                    raise SettingError(
                        f"{setting}: the model has no class '{name}'. It has "
                        f"{', '.join(classes[1:])}."
                    )
