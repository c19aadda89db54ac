"""ResNet and DenseNet weights in torchvision naming become a classifier to compare with.

RadImageNet (Mei et al. 2022, doi 10.1148/ryai.210315) publishes ResNet-50 and DenseNet-121 so, with
the layers numbered inside ``backbone``: 0 is the first convolution, 1 its norm, 4 to 7 the stages
of a ResNet; 0 is all of a DenseNet but its last layer.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.comparison import ComparisonClassifier
from vismae.models.comparison_plan import ComparisonConfig
from vismae.models.foreign import IMAGENET, ForeignAccount, without_wrapper
from vismae.models.weights import list_first, state_differences

# The files that torchvision publishes are older than its names: "norm.1" there is "norm1" now.
_OLD_DENSE = (re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(?=[12]\.)"), r"\1")
_RESNET = "layer1.0.conv1.weight"
_DENSENET = "features.denseblock1.denselayer1.conv1.weight"
_NUMBERED = (
    (r"^backbone\.0\.(?=conv0|norm0|denseblock|transition|norm5)", "features."),
    (r"^backbone\.0\.", "conv1."),
    (r"^backbone\.1\.", "bn1."),
    (r"^backbone\.4\.", "layer1."),
    (r"^backbone\.5\.", "layer2."),
    (r"^backbone\.6\.", "layer3."),
    (r"^backbone\.7\.", "layer4."),
)
_STEMS = ("conv1.weight", "features.conv0.weight")
# (image - 127.5) * 2 / 255 in the project's own example for these files.
_RADIMAGENET = (0.5, 0.5)
# A count that batch norms keep and never compute with; older files have none.
_COUNT = "num_batches_tracked"


def load_foreign_classifier(found: Mapping[str, Tensor], path: Path) -> ComparisonClassifier | None:
    """Build the ResNet-18, ResNet-50 or DenseNet-121 that these weights belong to.

    Args:
        found: Tensors of the file by name.
        path: For messages.

    Returns:
        Network in evaluation mode; its ``origin`` says what became of each tensor. Without a last
        layer in the file it has one output, which means nothing. None where the file is none of
        these networks.

    Raises:
        ModelError: It is a ResNet or DenseNet of another depth, or incomplete.
        SettingError: MONAI is not installed.
    """
    state = _torchvision_names(found)
    network = _network(state, path)
    if network is None:
        return None
    last = "classifier" if network == "densenet121" else "fc"
    ours: dict[str, Tensor] = {}
    unused: list[str] = []
    for name, value in state.items():
        if name.startswith(f"{last}."):
            ours[name.replace(f"{last}.", "head.")] = value
        elif name.startswith(("conv1.", "bn1.", "layer", "features.")):
            # MONAI keeps the parts of a dense layer in a sequence.
            ours["encoder." + re.sub(r"(\.denselayer\d+)\.", r"\1.layers.", name)] = value
        else:
            unused.append(name)
    stem = state[next(name for name in _STEMS if name in state)]
    head = ours.get("head.weight")
    module = ComparisonClassifier(
        network,
        ComparisonConfig(in_channels=stem.shape[1], width=stem.shape[0]),
        1 if head is None else head.shape[0],
    )
    wanted = module.state_dict()
    absent = tuple(
        name
        for name in wanted
        if name not in ours and (name.startswith("head.") or name.endswith(_COUNT))
    )
    differences = state_differences(
        {name: value for name, value in wanted.items() if name not in absent}, ours
    )
    if differences:
        raise ModelError(
            f"{path} does not make a {network}: {list_first(differences)} The file is incomplete, "
            "or of a variant."
        )
    module.load_state_dict(ours, strict=not absent)
    numbered = any(re.match(pattern, name) for name in found for pattern, _ in _NUMBERED)
    module.origin = ForeignAccount(
        "torchvision",
        len(ours),
        tuple(unused),
        absent,
        normalisation=_RADIMAGENET if numbered else IMAGENET,
    )
    return module.eval()


def _torchvision_names(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give numbered layers their names, and take off what stands before all names."""
    state: dict[str, Tensor] = {}
    for name, value in found.items():
        for pattern, replacement in _NUMBERED:
            name = re.sub(pattern, replacement, name)
        state[re.sub(*_OLD_DENSE, name)] = value
    for stem in (_RESNET, _DENSENET):
        named = without_wrapper(state, stem)
        if named:
            return named
    return {}


def _network(state: Mapping[str, Tensor], path: Path) -> str | None:
    """Tell the networks apart by the depth of their stages."""
    if not any(stem in state for stem in _STEMS):
        return None
    block = re.compile(r"^(?:layer|features\.denseblock)(\d+)\.(?:denselayer)?(\d+)\.")
    blocks = {(match[1], match[2]) for name in state if (match := block.match(name))}
    depths = tuple(sum(stage == wanted for stage, _ in blocks) for wanted in "1234")
    dense = _DENSENET in state
    bottleneck = "layer1.0.conv3.weight" in state
    known: dict[tuple[bool, bool, tuple[int, ...]], str] = {
        (False, False, (2, 2, 2, 2)): "resnet18",
        (False, True, (3, 4, 6, 3)): "resnet50",
        (True, False, (6, 12, 24, 16)): "densenet121",
    }
    network = known.get((dense, bottleneck, depths))
    if network is None:
        kind = "DenseNet" if dense else "ResNet"
        raise ModelError(
            f"{path} holds a {kind} with {depths} blocks in its stages; known are ResNet-18, "
            "ResNet-50 and DenseNet-121."
        )
    return network
