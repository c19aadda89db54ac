"""Which packages a format needs; asked for before anything is written or removed."""

from importlib.util import find_spec

from vismae.core.config_model import ExportFormat
from vismae.core.errors import SettingError

_ONNX = ("onnx", ("onnx", "onnxruntime", "onnxscript"))
# Format -> the extra that brings its packages, and these.
_NEEDED: dict[ExportFormat, tuple[str, tuple[str, ...]]] = {
    "onnx": _ONNX,
    "onnx-int8": _ONNX,
    "huggingface": ("hub", ("huggingface_hub",)),
    "monai": ("bundle", ("monai", "jsonschema", "fire")),
}


def require_packages(format: ExportFormat) -> None:
    """Check that the packages for a format are there.

    Raises:
        SettingError: One is missing.
    """
    extra, names = _NEEDED.get(format, ("", ()))
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise SettingError(
            f"--format {format} needs {', '.join(missing)}. Install the extra: "
            f"pip install 'vismae[{extra}]'."
        )
