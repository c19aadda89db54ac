"""Class probabilities as a DICOM structured report through highdicom.

A measurement report (PS3.16 TID 1500, in a Comprehensive 3D SR): one group of measurements for each
image or volume, with the probability of each class as a number without unit, and the class that was
found as a qualitative evaluation. Names of classes are people's own words, so their codes are
private (99VISMAE).
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import generate_uid

from vismae.core.types import Modality
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import SourceFile
from vismae.inference.dicom_source import (
    in_dicom,
    refused,
    require_highdicom,
    say_characters,
    series_number,
    source_header,
)
from vismae.inference.output_files import whole_or_none

_SCHEME = "99VISMAE"
# SNOMED CT codes of procedures.
_PROCEDURES = {
    Modality.CT: ("77477000", "Computed tomography"),
    Modality.MR: ("113091000", "Magnetic resonance imaging"),
    Modality.PET: ("82918005", "Positron emission tomography"),
    Modality.XR: ("168537006", "Plain radiography"),
    Modality.US: ("16310003", "Diagnostic ultrasonography"),
    Modality.OTHER: ("363679005", "Imaging"),
}


@dataclass(frozen=True)
class ReportFacts:
    """What a report says of itself beside its findings.

    Attributes:
        classes: Names.
        identity: Text that decides the UIDs, as for ``SegmentationFacts``.
        device: Names the weights, at most 64 characters.
        modality: How the images were made.
    """

    classes: tuple[str, ...]
    identity: str
    device: str
    modality: Modality


@dataclass(frozen=True)
class Finding:
    """What a classifier says of one image or volume.

    Attributes:
        files: Of the images, one for each slice; or one multi-frame file, or the parts of one.
        probabilities: (K,), of 0 to 1.
        predicted: Classes found; none of several questions may be.
        frames: Of each multi-frame file, counted from 1; empty for all of all.
    """

    files: tuple[SourceFile, ...]
    probabilities: np.ndarray
    predicted: tuple[str, ...]
    frames: tuple[tuple[int, ...], ...] = ()


def write_dicom_sr(path: Path, findings: Sequence[Finding], facts: ReportFacts) -> None:
    """Write one report on the images of one series.

    Args:
        path: Ends with ``.dcm``.
        findings: At least one; all of one study.
        facts: What else to write.

    Raises:
        SettingError: highdicom is not installed.
        DataError: A header lacks what a report must refer to, or refuses one.
    """
    require_highdicom()
    sr = importlib.import_module("highdicom.sr")
    name = findings[0].files[0].name
    with quiet_pydicom():
        headers = [[source_header(file) for file in finding.files] for finding in findings]
        try:
            groups = [
                _group(number, finding, own, facts)
                for number, (finding, own) in enumerate(zip(findings, headers, strict=True), 1)
            ]
            evidence = [header for own in headers for header in own]
            instances = [str(header.SOPInstanceUID) for header in evidence]
            series = ["report series", facts.identity, evidence[0].SeriesInstanceUID]
            made = sr.Comprehensive3DSR(
                evidence=evidence,
                content=_content(groups, facts),
                series_instance_uid=generate_uid(entropy_srcs=series),
                series_number=series_number(evidence[0], 2000),
                sop_instance_uid=generate_uid(entropy_srcs=["report", facts.identity, *instances]),
                instance_number=1,
                is_complete=True,
                manufacturer="vismae",
                series_description="vismae classification",
            )
        except Exception as error:  # highdicom raises anything on odd source headers
            raise refused(name, error) from error
        say_characters(made, facts.classes)
        with whole_or_none(path) as place:
            made.save_as(place, enforce_file_format=True)


def _group(number: int, finding: Finding, headers: list[Any], facts: ReportFacts) -> Any:
    sr, codes = _modules()
    algorithm = sr.AlgorithmIdentification(name="vismae", version=metadata.version("vismae"))
    measurements = [
        sr.Measurement(
            name=_code("P", place, f"Probability of {word}"),
            value=round(float(value), 6),
            unit=codes.UCUM.NoUnits,
            algorithm_id=algorithm,
        )
        for place, (word, value) in enumerate(
            zip(facts.classes, finding.probabilities, strict=True)
        )
    ]
    found = [
        sr.QualitativeEvaluation(
            name=sr.CodedConcept("predicted", _SCHEME, "Predicted class"),
            value=_code("C", facts.classes.index(word), word),
        )
        for word in finding.predicted
    ]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=generate_uid(
                entropy_srcs=[
                    *("group", facts.identity, str(headers[0].SOPInstanceUID)),
                    *(str(frame) for frames in finding.frames for frame in frames),
                ]
            ),
            identifier=f"vismae {number}",
        ),
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=header.SOPClassUID,
                referenced_sop_instance_uid=header.SOPInstanceUID,
                referenced_frame_numbers=list(frames) or None,
            )
            for header, frames in zip(headers, finding.frames or ((),) * len(headers), strict=True)
        ],
        measurements=measurements,
        qualitative_evaluations=found or None,
    )


def _content(groups: list[Any], facts: ReportFacts) -> Any:
    sr, codes = _modules()
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["device", facts.device]),
        name="vismae",
        manufacturer_name="vismae",
        model_name="vismae",
        serial_number=facts.device,
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    code, meaning = _PROCEDURES[facts.modality]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept(code, "SCT", meaning),
        imaging_measurements=groups,
    )
    return report[0]


def _code(letter: str, number: int, meaning: str) -> Any:
    sr, _ = _modules()
    return sr.CodedConcept(f"{letter}{number}", _SCHEME, in_dicom(meaning))


def _modules() -> tuple[Any, Any]:
    return (
        importlib.import_module("highdicom.sr"),
        importlib.import_module("pydicom.sr.codedict").codes,
    )
