"""The command that trains many runs: study; and what other commands share with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Optional

import typer

from kdfast.cli.against import JudgedMarginOption
from kdfast.cli.app import TRAIN, SectionedCommand, app
from kdfast.cli.designs import baseline_names, design_of, refuse_looks, train_until_decided
from kdfast.cli.options import (
    DataOptions,
    EpochsOption,
    MetricOption,
    StudyOptions,
    TeacherEpochsOption,
    UnlabeledOption,
    expand_groups,
    to_fraction,
)
from kdfast.cli.planned import PlannedStudy
from kdfast.cli.recipes import check_names, setting_parameters
from kdfast.cli.results import UncorrectedOption, compare
from kdfast.cli.run import load_data
from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.core.ranges import MARGIN_POINTS
from kdfast.runs.options import SETTINGS
from kdfast.runs.recipes import STUDY, Recipe, changed_values, find_recipe, recipe_names

INCLUDED = ('teacher', 'hint', 'pretrain')  # recipes that the others need, and so train anyway

RecipesArgument = Annotated[
    Optional[list[str]], typer.Argument(help='Recipes, or recipe files of your own (default: those of the study).')
]
AllOption = Annotated[
    bool, typer.Option('--all', help='All recipes of kdfast: those of the study, and one per published loss.')
]
TeacherOption = Annotated[
    Optional[str], typer.Option(help='Teacher of all recipes that have one: a network or a run directory.')
]
StudentOption = Annotated[Optional[str], typer.Option(help='Student network of all recipes that have one.')]
UntilDecidedOption = Annotated[
    bool, typer.Option('--until-decided', help='Add seeds until every recipe is better, worse or alike.')
]
LooksOption = Annotated[
    Optional[str],
    typer.Option(
        metavar='N,N,…', help='Numbers of seeds at which to look, for --until-decided (default: 4 to 10, 12, … 20).'
    ),
]
MaxSeedsOption = Annotated[
    Optional[int], typer.Option(min=2, help='Seeds at the last look, for --until-decided (default: 20).')
]
HintOption = Annotated[
    Optional[str],
    typer.Option(metavar='TEACHER_LAYER:STUDENT_LAYER', help='Hint layer and guided layer of all recipes with a hint.'),
]


@dataclass
class RecipeArguments:
    "Arguments of all recipes of a study that have them."

    epochs: EpochsOption = None
    teacher: TeacherOption = None
    student: StudentOption = None
    hint: HintOption = None
    teacher_epochs: TeacherEpochsOption = None
    unlabeled: UnlabeledOption = None


def study(
    recipe: RecipesArgument = None,
    all_: AllOption = False,
    margin: JudgedMarginOption = None,
    metric: MetricOption = None,
    uncorrected: UncorrectedOption = False,
    until_decided: UntilDecidedOption = False,
    looks: LooksOption = None,
    max_seeds: MaxSeedsOption = None,
    *,
    arguments: RecipeArguments,  # Of all recipes that have them
    training: StudyOptions,
    images: DataOptions,
    **settings,  # Of every training
):
    """Train recipes × seeds in parallel and compare them.

    Finished runs are not trained again. The result is the table of `kdfast compare`, and the differences from the
    baseline. For example: kdfast study baseline kd --data photos/ --seeds 3

    With --until-decided, seeds are added until every recipe is better, worse or alike. The numbers of seeds at which
    the study is looked at are written down before the first run, and share the error rate of 5 %.
    """
    given = without_none(vars(arguments)) | changed_values(SETTINGS, settings)
    wanted = with_arguments(chosen_recipes(recipe, all_), given)
    refuse_looks(until_decided, looks, max_seeds)
    if until_decided and uncorrected:
        raise KdfastError('--uncorrected with --until-decided: the recipes of a design share its error rate of 5 %')
    limit = to_fraction(MARGIN_POINTS if margin is None else margin)
    design = design_of(wanted, looks, max_seeds, limit, training) if until_decided else None
    data, failed = train_all(wanted, training, images, metric, design)
    try:
        compare(data=data, runs=training.runs)
        for name in baseline_names(wanted):
            compare(data=data, runs=training.runs, against=name, margin=margin, metric=metric, uncorrected=uncorrected)
    finally:
        raise_if_failed(failed)


app.command(cls=SectionedCommand, rich_help_panel=TRAIN)(expand_groups(study, setting_parameters()))


def without_none(
    given: dict,  # Arguments by name
) -> dict:
    "Return the arguments that the user gave."
    return {name: value for name, value in given.items() if value is not None}


def chosen_recipes(
    names: Sequence[str] | None,  # Recipes or files; those of the study if there are none
    every: bool,  # All recipes of kdfast
) -> list[Recipe]:
    "Return the recipes to train. Raises KdfastError for names beside --all, and for unknown names."
    if every and names:
        raise KdfastError(f'expected --all or recipes ({", ".join(names)}), not both')
    defaults = [name for name in (recipe_names() if every else STUDY) if name not in INCLUDED]
    return [find_recipe(name) for name in names or defaults]


def with_arguments(
    recipes: Sequence[Recipe],  # To train
    given: dict,  # Arguments by name, each for the recipes that have it
) -> list[tuple[Recipe, dict]]:
    "Pair every recipe with its arguments. Raises KdfastError for an argument that no recipe has."
    for recipe in recipes:
        check_names(recipe)
    names = [{o.name for o in (*recipe.options, *recipe.settings)} for recipe in recipes]
    for name in given:
        if not any(name in own for own in names):
            raise recipes[0].unknown(name)
    return [(r, {name: value for name, value in given.items() if name in own}) for r, own in zip(recipes, names)]


def train_all(
    wanted: Sequence[tuple[Recipe, dict]],  # Recipes with their arguments
    training: StudyOptions,  # How many runs, where
    images: DataOptions,  # The data set
    metric: str | None,  # What verdicts judge
    design=None,  # kdfast.analysis.design.Declared, for a study that trains until it is decided
) -> tuple[str, list]:  # Name of the data set; tasks without a result
    "Train what is missing, after a rehearsal. Raises KdfastError for a wrong metric, and under torchrun."
    if distributed.env_world_size() > 1:
        raise KdfastError('this command cannot run under torchrun or accelerate launch; use --jobs')
    from kdfast.analysis.metrics import metric_of_kind
    from kdfast.study.fork_server import run_starter

    loaded = load_data(images, training.runs, resplit=training.resplit)
    judged = metric_of_kind(loaded.several, metric, loaded.name)
    if judged.image_values is None and design is None and training.seeds < 2:
        raise KdfastError(f'--metric {judged.name} needs at least 2 seeds: its interval is over seeds, not images')
    with run_starter() as start:
        study = PlannedStudy(wanted, loaded, images, training, start)
        if training.ray:
            study = on_cluster(study)
        study.check_finished(design.design.looks[-1] if design else training.seeds)  # before a design is declared
        train = study.trainer()
        if design is None:
            return loaded.name, train(training.seeds)
        return loaded.name, train_until_decided(replace(design, metric=judged.name), training.runs, loaded.name, train)


def on_cluster(
    study: PlannedStudy,  # To train
) -> PlannedStudy:
    "Return a study whose runs are tasks of a Ray cluster; its paths are valid on other machines, too."
    from kdfast.data.sources import located

    backend, training = connect_to_ray(study.training.ray), study.training
    jobs = training.jobs or backend.default_jobs(training.threads)
    return replace(
        study,
        images=replace(study.images, data=located(study.images.data)),
        training=replace(training, runs=training.runs.resolve(), jobs=jobs),
        start_run=partial(backend.Task, gpus=backend.gpus_of_run(jobs)),
    )


def connect_to_ray(
    address: str,  # auto, or HOST:PORT
):
    "Connect to a Ray cluster and return the module that starts tasks there. Needs Ray (KdfastError)."
    try:
        from kdfast.study import ray_cluster
    except ImportError as e:
        raise KdfastError("--ray needs a package that is not installed: pip install 'kdfast[ray]'") from e
    ray_cluster.join(address)
    return ray_cluster


def raise_if_failed(
    tasks: Sequence,  # Without a result
):
    "Raise KdfastError that names the tasks and their failures, if there are any."
    if tasks:
        raise KdfastError('no result: ' + '; '.join(f'{task.name}: {task.failure}' for task in tasks))
