"""Answer the question of the study: does the regressor that a hint needs affect the student?

The study calls the regressor "the extra matrix", hence the names of the command and of an option of the recipes.

Premises, differences, verdicts. Imports no torch.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from kdfast.analysis.contrasts import Runs, contrast_of
from kdfast.analysis.metrics import ACCURACY, Metric, metric_for
from kdfast.analysis.premises import same_baselines, same_hint, same_parameters, same_teacher
from kdfast.core.errors import KdfastError
from kdfast.runs.find import find_runs
from kdfast.runs.lookup import all_arguments, runs_by_seed, settings
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir

QUESTION = "Does the regressor that a hint needs affect the student's performance?"
EXPERIMENTS = dict(exp1='experiment 1', exp2='experiment 2')
THIN = dict(student='thin')  # needs the regressor
MATCHED = dict(student='matched')  # needs none: its guided layer has the shape of the hint
CONTROL = dict(student='matched', matrix=True)  # has a regressor nevertheless


def question_runs(
    given: dict,  # Arguments of every run, such as epochs
) -> list[tuple[Recipe, dict]]:  # Recipes with their arguments
    "Return the runs that the answer needs: baseline and experiments of each student, and the control."
    arms: list[tuple[str, dict]] = [(name, arm) for arm in (THIN, MATCHED) for name in ('baseline', *EXPERIMENTS)]
    arms += [(name, CONTROL) for name in EXPERIMENTS]
    return [(find_recipe(name), arm | given) for name, arm in arms]


def answer_question(
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    seeds: Collection[int],  # To look at
    given: dict,  # Arguments of every run that has them, such as epochs
    margin: float,  # Smallest difference that matters, as a fraction
    metric: str | None = None,  # What verdicts judge; default: accuracy or, of several labels, the F1 per image
) -> dict:
    """Return the premises with their evidence and, for each experiment, three differences.

    raw: `thin` (with regressor) minus `matched` (without); two networks differ, not only the regressor.
    corrected: raw minus the difference of the two baselines; this answers the question.
    control: `matched` with a regressor minus `matched` without; only the regressor differs.
    Raises KdfastError if baselines or stage ones are missing.
    """
    finished = [folder for folder in find_runs(runs_dir, data) if folder.seed in seeds and folder.finished]

    judged = metric_for(finished, metric) if finished else ACCURACY

    def find(name, arm):
        return runs_by_seed(finished, find_recipe(name), given | arm)

    thin, matched = find('baseline', THIN), find('baseline', MATCHED)
    stage_ones = [find_stage_ones(finished, given | arm) for arm in (THIN, MATCHED, CONTROL)]
    if not thin or not matched or not all(stage_ones):
        raise KdfastError(f'no finished runs of both students on {data} in {runs_dir}: kdfast matrix trains them')
    by_arm = {name: [find(name, arm) for arm in (THIN, MATCHED, CONTROL)] for name in EXPERIMENTS}
    effects = [dict(experiment=name) | effect(runs, (thin, matched), margin, judged) for name, runs in by_arm.items()]
    premises = [
        same_teacher([folder for arms in by_arm.values() for runs in arms for folder in runs.values()]),
        same_hint(*(list(runs.values()) for runs in stage_ones)),
        same_parameters(next(iter(thin.values())).result, next(iter(matched.values())).result),
        same_baselines(contrast_of([thin, matched], margin, judged)),
    ]
    found = dict(question=QUESTION, data=data, arguments=given, margin=margin, metric=judged.name)
    return found | dict(premises=premises, effects=effects)


def find_stage_ones(
    finished: Sequence[RunDir],  # On one data set
    given: dict,  # Arguments of experiment 1
) -> Runs:
    "Return the runs of stage one that experiment 1 needs with these arguments."
    experiment = find_recipe('exp1')
    needed = dict(experiment.needed(all_arguments(experiment, given)))
    return runs_by_seed(finished, find_recipe('hint'), needed['hint'])


def questions_answered(
    folders: Sequence[RunDir],  # Runs on one data set
    runs_dir: Path,  # Directory of the runs
    margin: float,  # Smallest difference that matters, as a fraction
    metric: str | None = None,  # What verdicts judge
) -> list[dict]:
    "Return an answer for every set of arguments with which all runs that it needs are finished."
    experiments = [
        folder
        for folder in folders
        if folder.finished
        and folder.run.get('recipe') in EXPERIMENTS
        and folder.run.get('arguments', {}).get('student') == MATCHED['student']
    ]
    seeds = {folder.seed for folder in experiments}
    answers = []
    for given in settings(experiments, but=tuple(CONTROL)):
        try:
            answers.append(answer_question(runs_dir, folders[0].data, seeds, given, margin, metric))
        except KdfastError:
            pass  # runs of one student are missing: the page says that the question is open
    return answers


def effect(
    arms: Sequence[Runs],  # Of an experiment: thin (with regressor), matched (without), control
    baselines: Sequence[Runs],  # Of the thin and of the matched student
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric,  # What verdicts judge
) -> dict[str, dict]:
    "Return the three differences of an experiment."
    with_regressor, without, control = arms
    thin, matched = baselines
    return dict(
        raw=contrast_of([with_regressor, without], margin, metric),
        corrected=contrast_of([with_regressor, without, thin, matched], margin, metric),
        control=contrast_of([control, without], margin, metric),
    )
