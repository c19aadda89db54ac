"""Every command as a Python function of the same name and with the same settings.

    vismae.ingest("scans", store="store", modality="ct")
    vismae.pretrain(store="store", out="runs/pretrain", trainer={"max_steps": 5000})
    vismae.finetune("segment", data="task", out="runs/segment", init="runs/pretrain/model")

Settings are keywords: a top-level name (``seed=1``), a section as a mapping
(``optimizer={"lr": 1e-3}``) or a dotted name (``**{"optimizer.lr": 1e-3}``). In rising order of
weight: defaults, ``config`` (a YAML file, or a configuration object from ``vismae.core.config``),
``set`` (a mapping of dotted names, or ``"a.b=c"`` texts), keywords. A keyword that is None counts
as not given. Unknown names are refused with the nearest known one.

The functions raise ``vismae.core.errors.VismaeError`` where the commands print its message, and
return what was made; ``summary()`` of a result is the text that the command prints.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vismae.api_settings import (
    AnyPath,
    Assignments,
    ConfigFrom,
    configure,
    data_option,
    paths,
)
from vismae.core.config import (
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
    StudyConfig,
    WebConfig,
)

if TYPE_CHECKING:
    from vismae.training.replay import ReplayResult
    from vismae.web.server import WebResult
    from vismae.workflows.demo import DemoResult
    from vismae.workflows.evaluate import EvaluateResult
    from vismae.workflows.finetune import FinetuneResult
    from vismae.workflows.finetune_plan import PlanResult
    from vismae.workflows.plan import PretrainPlan
    from vismae.workflows.predict import PredictResult
    from vismae.workflows.pretrain import PretrainResult
    from vismae.workflows.study import StudyResult


def pretrain(
    *,
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None = None,
    device: str | None = None,
    devices: int | None = None,
    modality: str | Iterable[str] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "PretrainResult":
    """Train an encoder on images without labels: a masked autoencoder, or SimCLR.

    Args:
        data: Sources to ingest on the way (``data.sources``), in place of ``store``; a mapping
            is the section ``data``.
        device: ``trainer.device``.
        devices: ``trainer.devices``.
        modality: ``data.modality``.
        config: YAML file or ``PretrainConfig``.
        set: Dotted names with values.
        **settings: ``out`` and ``store`` or ``data`` are needed; see ``PretrainConfig``.

    Returns:
        The run, with its model folder.

    Raises:
        SettingError: A setting is unknown or wrong.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
        TrainingError: The loss became infinite or not a number.
    """
    named = _pretrain_options(data, device, devices, modality)
    built = configure(PretrainConfig, "pretrain", config, set, named | settings)
    from vismae.workflows.pretrain import pretrain as run

    return run(built)


def plan_pretrain(
    *,
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None = None,
    device: str | None = None,
    devices: int | None = None,
    modality: str | Iterable[str] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "PretrainPlan":
    """Measure a few steps of a pre-training and say what the whole of it will need.

    Args:
        data, device, devices, modality, config, set, **settings: As for ``pretrain``; ``out`` is
            not touched.

    Raises:
        SettingError: A setting is unknown or wrong.
        TrainingError: Memory ran out; names the batch size to try.
    """
    named = _pretrain_options(data, device, devices, modality)
    built = configure(PretrainConfig, "pretrain", config, set, named | settings)
    from vismae.workflows.plan import plan as run

    return run(built)


def replay(
    folder: AnyPath, *, device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
) -> "ReplayResult":
    """Run the step again that stopped a pre-training, and say where it begins to go wrong.

    Args:
        folder: ``RUN/nan_step``.
        device: Where to compute.

    Raises:
        TrainingError: No step of a pre-training is kept there.
    """
    from vismae.workflows.replay import replay as run

    return run(Path(folder), device)


def _pretrain_options(
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None,
    device: str | None,
    devices: int | None,
    modality: str | Iterable[str] | None,
) -> dict[str, Any]:
    words = [modality] if isinstance(modality, str) else modality
    return {
        **_training_options(data, device, devices),
        "data.modality": None if words is None else ",".join(words),
    }


def _training_options(
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None,
    device: str | None,
    devices: int | None,
) -> dict[str, Any]:
    return {**data_option(data), "trainer.device": device, "trainer.devices": devices}


def finetune(
    kind: str | None = None,
    *,
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None = None,
    device: str | None = None,
    devices: int | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "FinetuneResult":
    """Adapt a model to a segmentation or classification task.

    Args:
        kind: ``segment`` or ``classify`` (``task.kind``).
        data: The task's folder, csv or store (``data.sources``); a mapping is the section
            ``data``.
        device: ``trainer.device``.
        devices: ``trainer.devices``.
        config: YAML file or ``FinetuneConfig``.
        set: Dotted names with values.
        **settings: ``out`` is needed; ``init`` names a model folder or checkpoint, or ``none``
            for random weights. All others are listed at ``FinetuneConfig``.

    Returns:
        The run, with its model folder and validation scores.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: The labels are not what the task needs.
        ModelError: The start model does not fit.
    """
    named = {"task.kind": kind, **_training_options(data, device, devices)}
    built = configure(FinetuneConfig, "finetune", config, set, named | settings)
    from vismae.workflows.finetune import finetune as run

    return run(built)


def plan_finetune(
    kind: str | None = None,
    *,
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None = None,
    device: str | None = None,
    devices: int | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "PlanResult":
    """Choose a recipe for a task from its images and its start, and write it as a YAML file.

    Args:
        kind, data, device, devices, config, set, **settings: As for ``finetune``; ``out`` becomes
            a folder with ``plan.yaml``, which ``finetune`` takes as ``config``.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: The labels are not what the task needs.
    """
    named = {"task.kind": kind, **_training_options(data, device, devices)}
    built = configure(FinetuneConfig, "finetune", config, set, named | settings)
    from vismae.workflows.finetune_plan import plan_recipe as run

    return run(built)


def evaluate(
    *,
    data: AnyPath | Iterable[AnyPath] | Mapping[str, Any] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "EvaluateResult":
    """Score a fine-tuned model per patient and per class, and write the report.

    Args:
        data: The task's folder, csv or store (``data.sources``); a mapping is the section
            ``data``.
        config: YAML file or ``EvaluateConfig``.
        set: Dotted names with values.
        **settings: ``model`` and ``out`` are needed; see ``EvaluateConfig``.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: There is nothing to score, or the model was trained on it.
        PreprocessingError: The images are prepared in another way than the model expects.
    """
    named = data_option(data)
    built = configure(EvaluateConfig, "evaluate", config, set, named | settings)
    from vismae.workflows.evaluate import evaluate as run

    return run(built)


def predict(
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
    inputs: AnyPath | Iterable[AnyPath] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "PredictResult":
    """Predict label maps, class probabilities or error maps of image files.

    Args:
        model: Model folder; several answer together.
        inputs: Images, folders, zip archives and manifests.
        config: YAML file or ``PredictConfig``.
        set: Dotted names with values.
        **settings: ``out`` is needed; see ``PredictConfig``.

    Returns:
        The results by input, and in ``failed`` what could not be predicted.

    Raises:
        SettingError: A setting is unknown, wrong, or does not fit the model.
        ModelError: A folder holds no model, or the models do not fit together.
        DataError: There is nothing to predict.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
    """
    named = {"model": paths(model), "inputs": paths(inputs)}
    built = configure(PredictConfig, "predict", config, set, named | settings)
    from vismae.workflows.predict import predict as run

    return run(built)


def serve(
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
    config: ConfigFrom = None,
    set: Assignments = None,
    **settings: Any,
) -> "WebResult":
    """Serve the page and the REST routes of ``vismae web``; returns when the server is stopped.

    Args:
        model: Model folder; several are offered side by side.
        config: YAML file or ``WebConfig``.
        set: Dotted names with values.
        **settings: See ``WebConfig``.

    Raises:
        SettingError: A setting is unknown or wrong, the address is taken, or a package is missing.
        ModelError: A folder holds no model.
    """
    built = configure(WebConfig, "web", config, set, {"model": paths(model), **settings})
    from vismae.web.server import serve as run

    return run(built)


def study(*, config: ConfigFrom = None, set: Assignments = None, **settings: Any) -> "StudyResult":
    """Compare starts over tasks, label fractions and seeds.

    Args:
        config: YAML file or ``StudyConfig``.
        set: Dotted names with values.
        **settings: ``tasks``, ``starts``, ``baseline`` and ``out`` are needed; see
            ``StudyConfig``.

    Raises:
        SettingError: A setting is unknown or wrong.
        DataError: A task cannot be read.
        RunFolderError: ``out`` is in use, or not empty without ``resume`` or ``overwrite``.
    """
    built = configure(StudyConfig, "study", config, set, settings)
    from vismae.workflows.study import study as run

    return run(built)


def demo(*, config: ConfigFrom = None, set: Assignments = None, **settings: Any) -> "DemoResult":
    """Walk the whole road once on images made for it, and write one report.

    Args:
        config: YAML file or ``DemoConfig``.
        set: Dotted names with values.
        **settings: ``out`` is needed; see ``DemoConfig``.

    Raises:
        SettingError: A setting is unknown or wrong.
        RunFolderError: ``out`` is not empty and ``overwrite`` was not given.
    """
    built = configure(DemoConfig, "demo", config, set, settings)
    from vismae.workflows.demo import demo as run

    return run(built)
