"""The model card page of a model folder: what it is, learnt from, reaches, and is not for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vismae.core.model_card import ModelCard

_TASKS = {"segmenter": "image-segmentation", "classifier": "image-classification"}
_KINDS = {
    "segmenter": "segmentation network (a class for each pixel)",
    "classifier": "classification network (a class for each image)",
    "mae": "masked autoencoder (an encoder to fine-tune; learnt without labels)",
    "contrastive": "contrastive encoder (an encoder to fine-tune; learnt without labels)",
}
_USE = """```python
from vismae.models.hub import HubModel

model = HubModel.from_pretrained("this-folder")
```

Or, since the folder is a model folder of vismae too:

```bash
vismae {command} --model this-folder scans/ --out results
```
"""


def card_page(card: ModelCard, network: str) -> str:
    """Return the page in Markdown, with the fields of Hugging Face's hub on top.

    Nothing is said that the model folder does not say.

    Args:
        card: Of the model.
        network: Name of the network.
    """
    sections = [
        _front_matter(card, network),
        f"# {network}\n\nA {_KINDS[card.kind]} of vismae.\n",
        "## Use\n\n" + _USE.format(command="embed" if card.kind == "contrastive" else "predict"),
        "## Input\n\n" + _input(card),
    ]
    if card.task is not None:
        classes = "\n".join(f"- {k}: {name}" for k, name in enumerate(card.task.classes))
        sections.append(f"## Classes\n\n{classes}\n")
    sections += [
        "## Data\n\n" + _data(card),
        "## Results\n\n" + _results(card.provenance),
        "## Limits\n\n" + _limits(card),
        f"## Licence\n\n{card.licence}\n",
    ]
    return "\n".join(sections)


def write_card_page(folder: Path, card: ModelCard, network: str) -> None:
    """Write ``README.md`` into a folder."""
    (folder / "README.md").write_text(card_page(card, network), encoding="utf-8")


def _front_matter(card: ModelCard, network: str) -> str:
    fields: dict[str, Any] = {"library_name": "vismae", "tags": ["medical-imaging", network]}
    fields["tags"] += [str(modality) for modality in card.modalities]
    if card.kind in _TASKS:
        fields["pipeline_tag"] = _TASKS[card.kind]
    if card.licence != "not stated":
        # The hub knows a list of licences by short names; "other" with a name is always right.
        fields |= {"license": "other", "license_name": card.licence}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _input(card: ModelCard) -> str:
    contract = card.preprocessing
    height, width = contract.image_size
    fitted = (
        "keeping the aspect ratio, padded bottom and right"
        if contract.fit == "pad"
        else "stretched to that size"
    )
    lines = [
        f"- {height} × {width} pixels, {contract.slice_channels} channel(s); images are brought to "
        f"it {fitted}",
        *(
            [f"- with each slice come {contract.neighbours} on each side, as further channels"]
            if contract.neighbours
            else []
        ),
        *(
            [f"- channels are the sequences {', '.join(contract.sequences)} of a case, in order"]
            if contract.sequences
            else []
        ),
        "- CT: {:g} to {:g} HU become 0 and 1".format(*contract.ct_window_hu),
        "- PET: SUV {:g} to {:g} become 0 and 1".format(*contract.pet_range_suv),
        "- others: 8-bit grey levels / 255, or the percentiles {:g} and {:g}".format(
            *contract.percentiles
        ),
        f"- then minus {contract.mean:g}, divided by {contract.std:g}",
    ]
    return "\n".join(lines) + "\n"


def _data(card: ModelCard) -> str:
    if not card.training:
        return "The model folder does not say what it was trained on.\n"
    lines = []
    for stage, found in card.training.items():
        by = ", ".join(f"{count} {modality}" for modality, count in found.by_modality.items())
        lines.append(
            f"- {stage}: {found.images} images of {found.patients} patients or image groups"
            + (f" ({by})" if by else "")
        )
    return (
        "\n".join(lines)
        + "\n\nThe folder holds hashes of these images and patients, so that `vismae evaluate` "
        "refuses to score the model on them.\n"
    )


def _results(provenance: Mapping[str, Any]) -> str:
    found = dict(_numbers(provenance))
    if not found:
        return (
            "The model folder holds no scores. Score it on your own labelled images with "
            "`vismae evaluate` before you rely on it.\n"
        )
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in found.items())
    return (
        f"| number of the training run | value |\n|---|---|\n{rows}\n\nThese were seen while "
        "training (validation), on data of the same source. Score the model on your own labelled "
        "images with `vismae evaluate` before you rely on it.\n"
    )


def _numbers(provenance: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the scores in a provenance: numbers below an entry that is named for them."""
    found: list[tuple[str, float]] = []
    for name, value in provenance.items():
        if isinstance(value, Mapping) and ("score" in name or "validation" in name):
            found += [
                (str(inner), float(number))
                for inner, number in value.items()
                if isinstance(number, int | float) and not isinstance(number, bool)
            ]
        elif isinstance(value, float) and ("score" in name or "validation" in name):
            found.append((name, value))
    return found


def _limits(card: ModelCard) -> str:
    known = ", ".join(card.modalities)
    modalities = (
        f"Images of other modalities than {known} are refused by vismae and mean nothing to it."
        if known
        else "The model folder does not say which modalities it knows."
    )
    return (
        "This is research software and no medical device; it must not decide about a patient.\n"
        f"{modalities}\nNumbers on other scanners, hospitals and populations than those of the "
        "training data are unknown until they are measured.\n"
    )
