"""Answer the question of the study: does the regressor that a hint needs affect the student?

The study calls the regressor "the extra matrix", hence the names of the command and of an option of the recipes.

Premises, differences, verdicts. The primary contrast is the corrected difference of experiment 2, that of experiment 1
is secondary. With a declared design, each difference has 5 % of its own over all looks. Imports no torch.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from kdfast.analysis.contrasts import Runs, contrast_of
from kdfast.analysis.design import Declared, design_file, read_design
from kdfast.analysis.metrics import ACCURACY, NeedsSeeds, metric_for
from kdfast.analysis.premises import same_baselines, same_hint, same_parameters, same_teacher
from kdfast.core.errors import KdfastError
from kdfast.runs.find import find_runs
from kdfast.runs.lookup import all_arguments, runs_by_seed, settings
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import MARGIN
from kdfast.stats.sequential import LOOKS

QUESTION = "Does the regressor that a hint needs affect the student's performance?"
EXPERIMENTS = dict(exp1='experiment 1', exp2='experiment 2')
THIN = dict(student='thin')  # needs the regressor
MATCHED = dict(student='matched')  # needs none: its guided layer has the shape of the hint
CONTROL = dict(student='matched', matrix=True)  # has a regressor nevertheless
PRIMARY, SECONDARY = 'exp2', 'exp1'  # experiments whose corrected differences answer the question
NAME = 'the matrix question'  # in declared designs, in place of a baseline


class Unfinished(KdfastError):
    "Runs that the answer needs are not finished."


def question_runs(
    given: dict,  # Arguments of every run, such as epochs
) -> list[tuple[Recipe, dict]]:  # Recipes with their arguments
    "Return the runs that the answer needs: baseline and experiments of each student, and the control."
    arms: list[tuple[str, dict]] = [(name, arm) for arm in (THIN, MATCHED) for name in ('baseline', *EXPERIMENTS)]
    arms += [(name, CONTROL) for name in EXPERIMENTS]
    return [(find_recipe(name), arm | given) for name, arm in arms]


def question_design(
    given: dict,  # Arguments of every run, such as epochs
    looks: tuple[int, ...],  # Seeds at each look
    margin: float,  # Smallest difference that matters, as a fraction
) -> Declared:
    "Return the design of the question, to be declared."
    names = tuple(recipe.folder_name(arguments) for recipe, arguments in question_runs(given))
    contrasts = tuple(f'{name}, corrected' for name in (PRIMARY, SECONDARY))
    return Declared(NAME, names, looks, margin, contrasts=contrasts, arguments=given)


def declared_design(
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    given: dict,  # Arguments of every run
    metric: str | None,  # What verdicts judge; None for what the design says
) -> Declared | None:
    "Return the declared design of these arguments; None without one that judges this metric."
    file = design_file(runs_dir, data, NAME, question_design(given, LOOKS, MARGIN).recipes)
    found = read_design(file) if file.exists() else None
    return found if found and metric in (None, found.metric) else None


def answer_question(
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    seeds: Collection[int],  # To look at, without a design
    given: dict,  # Arguments of every run that has them, such as epochs
    margin: float | None = None,  # Smallest difference that matters, as a fraction; default: as declared, else MARGIN
    metric: str | None = None,  # What verdicts judge; default: what a design says, else accuracy or F1 per image
) -> dict:
    """Return the premises with their evidence and, for each experiment, three differences.

    If a design was declared for these arguments and this metric, it decides which seeds count, and the confidence of
    all intervals.

    raw: `thin` (with regressor) minus `matched` (without); two networks differ, not only the regressor.
    corrected: raw minus the difference of the two baselines; this answers the question.
    control: `matched` with a regressor minus `matched` without; only the regressor differs.
    Raises Unfinished if baselines or stage ones are missing, and KdfastError for runs that do not compare.
    """
    declared = declared_design(runs_dir, data, given, metric)
    counted = range(declared.looks[-1]) if declared else seeds
    finished = [folder for folder in find_runs(runs_dir, data) if folder.seed in counted and folder.finished]
    default, design = (declared.metric, declared.design) if declared else (None, None)
    judged = metric_for(finished, metric, default) if finished else ACCURACY
    limit = margin if margin is not None else declared.margin if declared else MARGIN
    judge = partial(contrast_of, margin=limit, metric=judged, design=design)
    thin, matched, *_ = find_arms(finished, 'baseline', given)
    stage_ones = [find_stage_ones(finished, given | arm) for arm in (THIN, MATCHED, CONTROL)]
    if not thin or not matched or not all(stage_ones):
        raise Unfinished(f'no finished runs of both students on {data} in {runs_dir}: kdfast matrix trains them')
    by_arm = {name: find_arms(finished, name, given) for name in EXPERIMENTS}
    effects = [dict(experiment=name) | effect(runs, (thin, matched), judge) for name, runs in by_arm.items()]
    premises = [
        same_teacher([folder for arms in by_arm.values() for runs in arms for folder in runs.values()]),
        same_hint(*(list(runs.values()) for runs in stage_ones)),
        same_parameters(next(iter(thin.values())).result, next(iter(matched.values())).result),
        same_baselines(judge([thin, matched])),
    ]
    found = dict(question=QUESTION, data=data, arguments=given, margin=limit, metric=judged.name, primary=PRIMARY)
    return found | dict(design=declared and asdict(declared), premises=premises, effects=effects)


def find_arms(
    finished: Sequence[RunDir],  # On one data set
    name: str,  # A recipe
    given: dict,  # Arguments of every run
) -> list[Runs]:
    "Return the runs of a recipe with the thin student, with the matched one, and of the control."
    return [runs_by_seed(finished, find_recipe(name), given | arm) for arm in (THIN, MATCHED, CONTROL)]


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
    margin: float | None = None,  # Smallest difference that matters, as a fraction; default: as of `answer_question`
    metric: str | None = None,  # What verdicts judge
) -> list[dict]:
    """Return an answer for every set of arguments with which all runs that it needs are finished.

    Raises KdfastError for runs that give no answer although they are finished, such as two copies of one.
    """
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
        except (Unfinished, NeedsSeeds):
            pass  # runs of one student, or more seeds, are missing: the page says that the question is open
    return answers


def effect(
    arms: Sequence[Runs],  # Of an experiment: thin (with regressor), matched (without), control
    baselines: Sequence[Runs],  # Of the thin and of the matched student
    judge: Callable,  # Returns the row of a contrast, given its arms
) -> dict[str, dict]:
    "Return the three differences of an experiment."
    with_regressor, without, control = arms
    thin, matched = baselines
    return dict(
        raw=judge([with_regressor, without]),
        corrected=judge([with_regressor, without, thin, matched]),
        control=judge([control, without]),
    )
