"""Which optional parts are installed, and the line that installs the others."""

import re
from collections.abc import Iterator
from importlib import metadata

from vismae.workflows.health.check import Check

_PURPOSES = {
    "bundle": "export to a MONAI bundle",
    "cluster": "ingest and studies on a Dask cluster",
    "codecs": "12-bit JPEG in DICOM",
    "compare": "networks of MONAI to compare with",
    "dicomseg": "DICOM SEG as output",
    "hub": "Hugging Face folders",
    "itk": "MetaImage and NRRD files",
    "onnx": "export to ONNX",
    "pacs": "DICOMweb servers",
    "s3": "stores in object storage",
    "umap": "UMAP beside principal components",
    "web": "the web page and REST",
}
_FOR_DEVELOPERS = ("dev", "docs")
_NAME = re.compile(r"^[A-Za-z0-9_.-]+")


def extra_checks() -> Iterator[Check]:
    """Look for the packages of every extra that a user may want."""
    package = metadata.metadata("vismae")
    requirements = metadata.requires("vismae") or []
    for extra in sorted(package.get_all("Provides-Extra") or []):
        if extra in _FOR_DEVELOPERS:
            continue
        names = [
            found.group()
            for requirement in requirements
            if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", requirement)
            and (found := _NAME.match(requirement)) is not None
        ]
        missing = [name for name in names if not _installed(name)]
        purpose = _PURPOSES.get(extra, "optional")
        if missing:
            cure = f"pip install 'vismae[{extra}]'"
            yield Check(f"extra {extra}", "missing", f"{purpose}: {', '.join(missing)}", cure)
        else:
            yield Check(f"extra {extra}", "ok", purpose)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
