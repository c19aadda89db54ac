"""The settings of ``vismae study``: tasks, starts, label budgets, what is claimed beforehand."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from vismae.core.sections import Settings
from vismae.core.setting_types import Fraction, InitPath, Paths, Words

# Tables of the report have a task's name and more in theirs; file systems stop at 255 bytes.
_LONGEST_NAME_BYTES = 150


def _as_folder(name: str) -> str:
    """Return a name of which a folder can be made.

    Raises:
        ValueError: It is empty, too long, begins with a dot or a blank, or holds a slash.
    """
    if not name or name[0] == "." or name[0].isspace() or "/" in name or "\\" in name:
        raise ValueError(
            f"'{name}' cannot be the name of a folder, which every task and start has; choose one "
            "without / and \\ that begins with neither a dot nor a blank"
        )
    length = len(name.encode())
    if length > _LONGEST_NAME_BYTES:
        raise ValueError(
            f"'{name}' has {length} bytes; every task and start has files of its name, so "
            f"choose one of at most {_LONGEST_NAME_BYTES}"
        )
    return name


def _as_place(where: str) -> str:
    """Return where runs go.

    Raises:
        ValueError: There is no such place; found before hours of ingest and pre-training.
    """
    if where not in ("processes", "here") and not where.startswith("dask://"):
        raise ValueError(f"'{where}' is no place to run; use processes, here or dask://host:port")
    return where


# Settings of a run that a study decides -> what to set in their place.
_OF_THE_STUDY = {
    "task.kind": "tasks.*.kind",
    "data.sources": "tasks.*.sources",
    "init": "starts.*.init",
    "label_fraction": "label_fractions or label_patients",
    "labelled": "label_patients, or starts.*.select",
    "fold": "folds",
    "seed": "seeds",
    "subset_seed": "seeds",
    **{name: f"that of the study ({name})" for name in ("out", "resume", "overwrite")},
}

Name = Annotated[str, AfterValidator(_as_folder)]
Seed = Annotated[int, Field(ge=0)]
Fold = Annotated[int, Field(ge=1)]
Patients = Annotated[int, Field(ge=1)]


class StudyTask(Settings):
    """One task of a study."""

    kind: Literal["segment", "classify"]
    """A class for each pixel, or for each image."""
    sources: Paths
    """Its data, as for ``vismae finetune --data``; ``phantom:segmentation`` and
    ``phantom:classification`` are computed images that the study makes first."""
    domain: Literal["in", "out"] | None = None
    """in: modality and organ were in the pre-training; out: one of them was not. The report shows
    the two apart."""
    qualities: tuple[float, ...] | None = None
    """Scores whose price in labels is asked for; the study's own when unset."""
    subgroups: Words = ()
    """Columns of the data whose values are shown apart, beside scanner, site, sex and age."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of ``vismae finetune`` for this task, as ``section.name: value``."""


class StudyStart(Settings):
    """One start of a study: weights, and how they are fine-tuned; another network is one too."""

    init: InitPath = None
    """Model folder or checkpoint; ``none`` starts from random weights."""
    trivial: bool = False
    """No network: a random forest on thumbnails of the labelled images, or the mean of their label
    maps. What a network must beat before it has learnt anything."""
    init_for: dict[str, InitPath] = Field(default_factory=dict[str, InitPath])
    """Weights for tasks by name, in place of ``init``: such as those of each task's modality."""
    pretrain: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of ``vismae pretrain`` whose weights the study makes first and starts from."""
    tasks: Words = ()
    """Tasks it takes part in; all when empty."""
    select: Literal["random", "entropy", "core-set", "hybrid"] | None = None
    """How its labelled patients are chosen: the fewest as for all starts, each larger budget by
    what the model of the one before says (``vismae select``); as for all starts when unset."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of ``vismae finetune`` for this start, as ``section.name: value``."""
    segment: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further settings for segmentation, such as ``model.network: hybrid``."""
    classify: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further settings for classification."""


class StudyPrimary(Settings):
    """The one comparison that a study is about, named before it is run."""

    task: str
    """Task it is made on."""
    start: str
    """Start that is compared with the baseline."""
    fraction: Fraction | None = None
    """Label fraction it is made at."""
    patients: Patients | None = None
    """Number of labelled patients it is made at, in place of the fraction."""

    @model_validator(mode="after")
    def _one_budget(self) -> "StudyPrimary":
        if (self.fraction is None) == (self.patients is None):
            raise ValueError("give either fraction or patients, one of the two")
        return self


class StudyConfig(Settings):
    """Settings of ``vismae study``."""

    out: Path
    """Folder for runs, scores and report."""
    tasks: dict[Name, StudyTask] = Field(min_length=1)
    """Tasks by name."""
    starts: dict[Name, StudyStart] = Field(min_length=1)
    """Starts by name."""
    baseline: str
    """Name of the start that the others are compared with."""
    primary: StudyPrimary | None = None
    """The one comparison the study is about (task, start, fraction or patients); it alone is not
    adjusted for the number of comparisons."""
    label_fractions: tuple[Fraction, ...] = (0.01, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0)
    """Shares of the training patients whose labels are used."""
    label_patients: tuple[Patients, ...] = ()
    """Numbers of training patients whose labels are used, beside the shares."""
    folds: tuple[Fold, ...] = ()
    """Which of the five folds validate in turn, counted from 1; the data's own split when empty.
    The test patients are the same in every fold."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each seed chooses its own labelled patients and first weights, alike for all starts."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of ``vismae finetune`` for every run."""
    margin: float = Field(default=0.02, gt=0)
    """Largest difference of scores that does not matter, for 'as good with fewer labels'."""
    qualities: tuple[float, ...] = (0.9,)
    """Scores whose price in labels is asked for: 'to reach Dice 0.90 you need about N more'."""
    bootstrap: int = Field(2000, ge=100)
    """Resamples for the intervals."""
    worst_cases: int = Field(default=6, ge=0)
    """Test patients shown as pictures for each task, worst first; 0 for a report without images of
    patients."""
    executor: Annotated[str, AfterValidator(_as_place)] = "processes"
    """Where runs go: ``processes`` on this machine, ``dask://host:port`` on a cluster whose
    machines see the same files, or ``here`` in this very process."""
    workers: int = Field(default=1, ge=1)
    """Runs at a time; they are divided between the GPUs of a machine."""
    run_hours: float | None = Field(default=None, gt=0)
    """A run that takes longer is given up and listed as failed."""
    keep_models: bool = False
    """Keep every run's model folder; scores are always kept."""
    only_report: bool = False
    """Run nothing; write scores and report from the runs that are finished."""
    resume: bool = False
    """Skip runs whose scores are there."""
    overwrite: bool = False
    """Empty ``out`` first."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "StudyConfig":
        self._require("baseline", self.baseline, "starts", self.starts)
        for name, start in self.starts.items():
            for task in start.tasks:
                self._require(f"starts.{name}.tasks", task, "tasks", self.tasks)
            for task in start.init_for:
                self._require(f"a task of starts.{name}.init_for", task, "tasks", self.tasks)
            if start.init_for and start.pretrain:
                raise ValueError(f"starts.{name} has init_for and pretrain; give one of them")
            if start.trivial and (start.init or start.init_for or start.pretrain or start.select):
                raise ValueError(
                    f"starts.{name} is trivial, which has no weights and chooses no patients; "
                    "leave out its init, init_for, pretrain and select"
                )
        if self.primary is not None:
            self._require("primary.task", self.primary.task, "tasks", self.tasks)
            self._require("primary.start", self.primary.start, "starts", self.starts)
            if self.primary.start == self.baseline:
                raise ValueError(f"primary.start is the baseline, '{self.baseline}'")
            for name in (self.primary.start, self.baseline):
                tasks = self.starts[name].tasks
                if tasks and self.primary.task not in tasks:
                    raise ValueError(
                        f"primary.task is '{self.primary.task}', in which the start '{name}' "
                        f"takes no part (it has {', '.join(tasks)})"
                    )
        return self

    @model_validator(mode="after")
    def _settings_are_left_to_runs(self) -> "StudyConfig":
        sections = {"settings": self.settings}
        sections |= {f"tasks.{name}.settings": task.settings for name, task in self.tasks.items()}
        for name, start in self.starts.items():
            for part in ("settings", "segment", "classify"):
                sections[f"starts.{name}.{part}"] = getattr(start, part)
        for section, values in sections.items():
            for name in values:
                if name in _OF_THE_STUDY:
                    raise ValueError(
                        f"{section} has {name}, which a study decides for each run; leave it out "
                        f"there and use {_OF_THE_STUDY[name]}"
                    )
        return self

    @model_validator(mode="after")
    def _budgets_are_there(self) -> "StudyConfig":
        if not self.label_fractions and not self.label_patients:
            raise ValueError("label_fractions and label_patients are both empty; give one of them")
        primary = self.primary
        if primary is not None:
            named = primary.fraction in self.label_fractions
            if not named and primary.patients not in self.label_patients:
                raise ValueError(
                    "primary is at a number of labels that is not among label_fractions and "
                    "label_patients; add it there"
                )
        return self

    def _require(self, setting: str, value: str, what: str, known: dict[str, Any]) -> None:
        if value not in known:
            raise ValueError(f"{setting} is '{value}', but {what} are {list(known)}")

    def takes_part(self, start: str, task: str) -> bool:
        """Tell whether a start is run on a task."""
        return not self.starts[start].tasks or task in self.starts[start].tasks
