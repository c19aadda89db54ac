"""What a study's report says in sentences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vismae.core.study_config import StudyConfig
from vismae.evaluation.ranking import Ranking
from vismae.evaluation.statistics import Interval, p_text, smallest_permutation_p
from vismae.evaluation.study_comparison import LabelUse
from vismae.evaluation.study_scores import TaskScores
from vismae.workflows.label_study.plan import Cell, folds_of, with_labels

_NEXT_TO_NOTHING = 0.01


def verdict(difference: Interval, p_value: float) -> str:
    """Return what a comparison shows, by its interval and its (adjusted) p-value together."""
    if not difference.n:
        return ""
    if p_value < 0.05 and difference.low > 0:
        return "better"
    if p_value < 0.05 and difference.high < 0:
        return "worse"
    return "not shown"


def design(config: StudyConfig, scores: Sequence[TaskScores], cells: Sequence[Cell]) -> str:
    """Say what was compared, on whom, and how often.

    Args:
        config: The study.
        scores: Of its tasks.
        cells: The finished runs.
    """
    there = [name for name in config.starts if any(cell.start == name for cell in cells)]
    starts = ", ".join(f"'{name}'" for name in there)
    done, folds = {cell.seed for cell in cells}, {cell.fold for cell in cells}
    seeds = [str(seed) for seed in config.seeds if seed in done]
    repeated = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
    if folds != {None}:
        named = [str(fold) for fold in folds_of(config) if fold in folds]
        repeated = f"fold{'s' if len(named) > 1 else ''} {', '.join(named)} and {repeated}"
    tested = "; ".join(f"{task.task}: {_tested(task)}, {task.metric}" for task in scores)
    count = len(there)
    return (
        f"{count} {'start was' if count == 1 else 'starts were'} compared ({starts}) on "
        f"{len(scores)} task{'' if len(scores) == 1 else 's'} with "
        f"{repeated}; each repetition ('run') draws its own labelled patients, the smaller label "
        f"budgets within the larger ones, and its own first weights, alike for all starts."
        f"{_choosing(config)}{_guessing(config)} The weights of a run are chosen on validation "
        f"patients. All runs of a task are tested on the same patients, never seen in training "
        f"(n and score: {tested}).{_not_run(config, there)} "
        f"Scores are averaged over runs and test patients; '{config.baseline}' is the baseline."
    )


def _tested(task: TaskScores) -> str:
    """Count the test cases that have a score, and those that have no class to be scored."""
    scored, among = int(np.isfinite(task.values).any(axis=(0, 1, 2)).sum()), len(task.patients)
    if scored == among:
        return f"{among} {task.unit}s"
    return f"{scored} of {among} {task.unit}s (the others have no class to score)"


def _not_run(config: StudyConfig, there: Sequence[str]) -> str:
    """Name the starts without a finished run."""
    missing = [f"'{name}'" for name in config.starts if name not in there]
    if not missing:
        return ""
    return f" Of {', '.join(missing)} no run is finished, and nothing is compared."


def _choosing(config: StudyConfig) -> str:
    """Name the starts that choose their labelled patients themselves."""
    found = [f"'{name}' ({own.select})" for name, own in config.starts.items() if own.select]
    if not found:
        return ""
    return (
        f" But beyond the smallest budget {', '.join(found)} chose the labelled patients by what "
        "the model of the budget before said of them."
    )


def _guessing(config: StudyConfig) -> str:
    """Name the starts that are no network."""
    found = [f"'{name}'" for name, own in config.starts.items() if own.trivial]
    if not found:
        return ""
    return (
        f" {', '.join(found)} {'is' if len(found) == 1 else 'are'} no network but what one must "
        "beat before it has learnt anything: for classes a random forest on thumbnails of the "
        "labelled images, for label maps the mean of the labelled ones."
    )


def primary(config: StudyConfig, comparison: pd.DataFrame) -> str:
    """Say how the comparison came out that was named beforehand, or that none was."""
    if config.primary is None:
        return (
            "No primary comparison was named in the configuration, so every comparison below is "
            "adjusted for their number (Holm), and none stands out."
        )
    named = f"'{config.primary.start}' against '{config.baseline}' on '{config.primary.task}'"
    found = comparison[comparison["primary"]]
    if found.empty or not found["difference"].iloc[0].n:
        return (
            f"The primary comparison, {named}, cannot be made yet: there is no run of both, or its "
            "label budget was left out."
        )
    row = found.iloc[0]
    difference: Interval = row["difference"]
    base = comparison[
        (comparison["task"] == row["task"])
        & (comparison["budget"] == row["budget"])
        & (comparison["start"] == config.baseline)
    ].iloc[0]
    shown = {
        "better": "The difference is shown: the interval excludes 0.",
        "worse": "The start is worse than the baseline: the interval excludes 0.",
        "not shown": "A difference is not shown.",
    }[verdict(difference, row["p"])]
    return (
        f"Primary comparison, named before the runs: {named} with {_budget(row)}: "
        f"{row['metric']} {row['score'].text()} against "
        f"{base['score'].text()}, difference {difference.text()} (95 % interval over "
        f"{runs_of(row['paired_runs'])} and {difference.n} test {row['unit']}s), "
        f"{p_text(row['p'])} (paired permutation over {row['unit']}s, not adjusted). {shown}"
    )


def _budget(row: pd.Series) -> str:
    budget, labelled = str(row["budget"]), row["labelled_patients"]
    count = with_labels(f"{labelled} {row['unit']}{'' if labelled == 1 else 's'}")
    return f"{with_labels(budget)} ({count})" if budget.endswith("%") else with_labels(budget)


def nothing_scored(scores: TaskScores) -> str:
    """Say that a task has no score at all, and why."""
    return (
        f"{scores.task}: no test case has a class to score (none of the {len(scores.patients)} "
        f"{scores.unit}s has a value of {scores.metric}), so nothing can be compared. Where the "
        "label maps of all test cases are empty, look at the split, or at what was annotated."
    )


def baseline_at_chance(rows: pd.DataFrame, scores: TaskScores, baseline: str) -> str:
    """Say that the baseline has learnt nothing with the most labels; nothing where it has.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        scores: Of the task.
        baseline: Its name.
    """
    if baseline not in scores.starts:
        return ""
    values = scores.at(baseline, scores.budgets[-1])
    if not np.isfinite(values).any():
        return ""
    mean = float(np.nanmean(values))
    answers = rows[rows["metric"] == "probability"]
    chance, guessed = 0.0, ""
    if not answers.empty:
        chance = 1 / max(1, answers.loc[answers["truth"].astype(bool), "class_name"].nunique())
        guessed = f", and guessing has {chance:.3f}"
    if mean > chance + _NEXT_TO_NOTHING:
        return ""
    return (
        f"{scores.task}: '{baseline}', the baseline, has learnt next to nothing with "
        f"{with_labels(scores.budgets[-1])} ({scores.metric} {mean:.3f}{guessed}). That others "
        "reach its result, or are as good, says nothing of them. Look at its runs "
        "(trainer.max_steps, optimizer.lr), or name another baseline."
    )


def runs_of(count: int) -> str:
    """Say how many runs."""
    return "1 run" if count == 1 else f"{count} runs"


def claims(use: Sequence[LabelUse], config: StudyConfig, scores: TaskScores) -> list[str]:
    """Return sentences on the labels each start saves on a task, flattering or not."""
    sentences: list[str] = []
    whole = with_labels(scores.budgets[-1])
    for one in use:
        if one.relative is None:
            continue
        claim = one.relative.claim(one.start, config.baseline, whole)
        sentences.append(f"{claim} {_as_good(one, config, scores)}")
    return sentences


def _as_good(one: LabelUse, config: StudyConfig, scores: TaskScores) -> str:
    whole = scores.budgets[-1]
    fewest = one.fewest_as_good()
    test = one.as_good[whole if fewest is None else fewest]
    if fewest is None and not np.isnan(test.p_value):
        return (
            f"At no label budget is it shown to be as good as '{config.baseline}' with "
            f"{with_labels(whole)} within a margin of {config.margin:g} {one.metric} (with "
            f"{with_labels(whole)} too, the difference is {test.difference.text()}, 90 % interval)."
        )
    first = f"{one.start}, {with_labels(fewest or whole)}"
    second = f"{config.baseline}, {with_labels(whole)}"
    rest = " Fewer labels are not shown to do." if fewest not in (None, scores.budgets[0]) else ""
    return f"{test.text(first, second, one.metric, one.unit)}{rest}"


def forecasts(use: Sequence[LabelUse]) -> str:
    """Say for every start what reaching a score costs in labels."""
    return "\n\n".join(
        f"'{one.start}': {needed.forecast(one.metric, one.unit)}"
        for one in use
        for needed in one.needed.values()
    )


def caution(comparison: pd.DataFrame) -> str:
    """Say what few repetitions leave open; nothing where no test case has a score."""
    if comparison.empty:
        return ""
    fewest, most = int(comparison["runs"].min()), int(comparison["runs"].max())
    alone = (
        "intervals are over test patients alone: another draw of labelled patients could come out "
        "otherwise."
    )
    both = "are over runs and test patients, with the width that so few runs call for."
    if most == 1:
        return f"There is one run of each cell, so {alone}"
    if fewest == most:
        return f"There are {most} runs of each cell. Intervals {both}"
    few = f" Where there is one, {alone}" if fewest == 1 else ""
    return f"Cells have {fewest} to {most} runs. Intervals {both}{few}"


def scored_by_image(rows: pd.DataFrame, scores: TaskScores) -> str:
    """Say that cases are images where patients have images of several classes.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        scores: Of the task.
    """
    answers = rows[rows["metric"] == "probability"]
    if answers.empty:
        return ""
    images = int(answers.groupby(["start", "budget", "run", "class_name"]).size().max())
    if images == len(scores.patients):
        return ""
    return (
        f"Some {scores.unit}s have images of several classes, so each of the {images} images of "
        f"the {len(scores.patients)} test {scores.unit}s is scored by itself; intervals and tests "
        f"take all images of one {scores.unit} together."
    )


def unlearnt_classes(classes: Sequence[str], scores: TaskScores) -> str:
    """Say that no start can have learnt some classes; nothing where there are none.

    Args:
        classes: That no training patient has.
        scores: Of the task.
    """
    if not classes:
        return ""
    return (
        f"No training {scores.unit} has {', '.join(classes)}, so no start can have learnt "
        f"{'it' if len(classes) == 1 else 'them'}: where test {scores.unit}s have "
        f"{'it' if len(classes) == 1 else 'them'}, {scores.metric} is lowered for all alike."
    )


def untested_classes(rows: pd.DataFrame, scores: TaskScores) -> str:
    """Name the classes that no test case has; nothing where each has one.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        scores: Of the task.
    """
    dice = rows[(rows["metric"] == "dice") & (rows["class_name"] != "mean")]
    answers = rows[rows["metric"] == "probability"]
    known = set(dice["class_name"]) | set(answers["class_name"])
    tested = set(dice.loc[dice["value"].notna(), "class_name"])
    if not answers.empty:
        tested |= set(answers.loc[answers["truth"].astype(bool), "class_name"])
    untested = sorted(map(str, known - tested))
    if not untested:
        return ""
    return (
        f"No test {scores.unit} has {', '.join(untested)}: nothing is said of "
        f"{'this class' if len(untested) == 1 else 'these classes'}, and {scores.metric} is over "
        "the others."
    )


def too_few(part: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """Say where a task has so few test cases that no difference can be shown on it.

    Args:
        part: The comparisons of the task.
        comparison: Those of the whole study.

    Returns:
        Nothing where there are enough, or nothing is compared.
    """
    family = int(comparison["p_holm"].notna().sum())
    compared = part[part["p"].notna()]
    sizes = [1 if primary else family for primary in compared["primary"]]
    cases = [difference.n for difference in compared["difference"]]
    smallest = [smallest_permutation_p(n) for n in cases]
    if not cases or min(p * size for p, size in zip(smallest, sizes, strict=True)) < 0.05:
        return ""
    most, unit = max(cases), compared["unit"].iloc[0]
    p_value, size = smallest_permutation_p(most), min(sizes)
    after = f", nor {min(1.0, p_value * size):.2g} after Holm over {size}" if size > 1 else ""
    enough = next(n for n in range(most, 64) if smallest_permutation_p(n) * size < 0.05)
    return (
        f"With {most} test {unit}{'' if most == 1 else 's'} no difference can be shown here, "
        f"however large: a permutation over so few gives no p below {p_value:.2g}{after}. At least "
        f"{enough} test {unit}s are needed."
    )


def critical_difference(ranking: Ranking) -> str:
    """Say what the bars of a ranking plot are."""
    if np.isnan(ranking.critical_difference):
        return "With one task there is no critical difference."
    return (
        "Starts over one black bar are within the critical difference of "
        f"{ranking.critical_difference:.2f} ranks (Nemenyi, {ranking.n_blocks} tasks; wide, since "
        "tasks are few)."
    )


def stability(ranking: Ranking) -> str:
    """Say what a table of ranks shows."""
    friedman = ""
    if not np.isnan(ranking.p_value):
        friedman = f" Friedman's test that all are alike: {p_text(ranking.p_value)}."
    return (
        "Mean rank (1 is best) with the limits of its 95 % interval, and the share of resamples in "
        f"which the start is first. It speaks of these tasks, not of others.{friedman}"
    )


METHODS = """
Intervals of scores and differences: runs and test patients are resampled as two crossed factors
(Owen 2007), paired between starts; the width is that of the two-way analysis of variance, at
Student's levels of runs and of patients weighted by what each adds to the variance (Cochran 1964),
so that three runs are not taken for many. p-values: starts are swapped within patients (paired
permutation of each patient's mean over runs); they speak of new patients, the intervals also of
other draws of labelled patients. Holm's adjustment is over all comparisons with the baseline on all
tasks and label budgets, but the primary one. Swaps within n patients give no p below 2 / 2^n.

Dice of a class is over the patients whose annotation holds it: one that is missed there counts 0,
what is predicted in others is not in any Dice.

Balanced accuracy is taken apart into the influence of each patient, so that it is resampled like
any mean; p-values swap what each patient adds to it. AUROC: DeLong's covariance over all runs of
both starts, at Student's levels of the patients of both classes weighted by what each adds to the
variance; images of a patient count as one.

Label curve: the area is under the score over log labels. Labels needed: the law a - b n^-c (c fixed
at 0.5 with fewer than four label counts) is fitted to every resample of the whole curve; where the
resampled curve itself reaches the score with fewer labels, that counts. 'Not reached' means that
the curve levels off below, or gets there beyond 100 times the labels. Forecasts beyond the labels
there are extrapolate this law. A dash stands for limits where all values are alike.

'As good': two one-sided tests of the difference from the baseline with the most labels, at 5 %
each, with the margin from the configuration; 'not worse' is the lower side alone.

Ranks: mean over tasks; Nemenyi's critical difference at 5 % (Demsar 2006), stability when runs and
patients are drawn anew (Wiesenfarth et al. 2021).
"""
"""How a report's numbers are made; ``docs/study.md`` says more."""
