"""ACDC: short-axis cine MR of 150 patients, end-diastole and end-systole drawn.

``training/patient001/{Info.cfg, patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz, ...}`` and
``testing/patient101/...``, perhaps below ``database/``. Bernard et al., IEEE TMI 2018;37:2514-2525.
"""

from collections.abc import Iterator
from pathlib import Path

from vismae.data.public.tasks import PublicTask, TaskRow, find_folder, numbered

CLASSES = ("right ventricle", "myocardium", "left ventricle")
_PATIENT = r"patient(\d{3})"


def read_acdc(root: Path) -> list[PublicTask]:
    """Return the segmentation task; the 50 patients of ``testing`` are its test patients.

    Raises:
        DataError: The folders are not there.
    """
    training = find_folder(root, ("training", "database/training"), "acdc")
    numbered(training, _PATIENT)
    return [PublicTask("segment", tuple(_rows(training)), CLASSES)]


def _rows(training: Path) -> Iterator[TaskRow]:
    testing = training.with_name("testing")
    folders = [(training, "train"), (testing, "test")] if testing.is_dir() else [(training, None)]
    for folder, split in folders:
        for _, patient in numbered(folder, _PATIENT):
            facts = _facts(patient / "Info.cfg")
            frames = numbered(patient, r"(patient\d{3}_frame\d{2})\.nii(\.gz)?")
            for match, image in frames:
                label_map = image.with_name(f"{match[1]}_gt.nii{match[2] or ''}")
                if label_map.is_file():
                    yield TaskRow(
                        image,
                        label_map,
                        patient_id=patient.name,
                        split=split,
                        modality="mr",
                        more={
                            "pathology": facts.get("Group", ""),
                            "phase": _phase(match[1], facts),
                        },
                    )


def _facts(path: Path) -> dict[str, str]:
    """Read the lines ``Name: value`` of Info.cfg; nothing if it is missing."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, separator, value in pairs if separator}


def _phase(frame: str, facts: dict[str, str]) -> str:
    """Return ED or ES, as the table's frame numbers say."""
    number = str(int(frame[-2:]))
    return next((phase for phase in ("ED", "ES") if facts.get(phase) == number), "")
