"Commands that look ahead: plan, and the hidden probe that it starts."

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.text import Text

from kdfast.cli.app import TRAIN, SectionedCommand, app, out, print_json
from kdfast.cli.designs import design_of
from kdfast.cli.options import (
    DEFAULT_RUNS,
    DataOptions,
    JsonOption,
    MarginOption,
    MetricOption,
    RunsOption,
    StudyOptions,
    TrustOption,
    changed_flags,
    expand_groups,
    to_fraction,
)
from kdfast.cli.planned import PlannedStudy, declared_before
from kdfast.cli.recipes import setting_parameters
from kdfast.cli.run import load_data, quiet_imports, trust_runs
from kdfast.cli.study import (
    AllOption,
    LooksOption,
    MaxSeedsOption,
    RecipeArguments,
    RecipesArgument,
    chosen_recipes,
    with_arguments,
    without_none,
)
from kdfast.core.errors import KdfastError
from kdfast.core.ranges import MARGIN_POINTS
from kdfast.runs.options import SETTINGS, option_flags
from kdfast.runs.recipes import changed_values, find_recipe

ErrorOption = Annotated[
    Optional[float],
    typer.Option(help='Expected share of wrong validation images, in percent (default: that of finished runs).'),
]


def plan_study(
    recipe: RecipesArgument = None,
    all_: AllOption = False,
    margin: MarginOption = MARGIN_POINTS,
    error: ErrorOption = None,
    metric: MetricOption = None,
    looks: LooksOption = None,
    max_seeds: MaxSeedsOption = None,
    as_json: JsonOption = False,
    *,
    arguments: RecipeArguments,  # Of all recipes that have them
    training: StudyOptions,
    images: DataOptions,
    **settings,  # Of every training
):
    """Say how many seeds, minutes and bytes a study needs.

    Times a few steps of each recipe and trains nothing. The seeds are those at which `study --until-decided` is
    expected to decide: from finished runs of these recipes, else from the number of validation images and the error.
    For example: kdfast plan --data photos/ --student torchvision:resnet18 --error 20
    """
    if not to_fraction(margin) > 0:
        raise KdfastError(f'--margin {margin}: expected more than 0 points; no number of seeds shows a difference of 0')
    if error is not None and not 0 < error < 100:
        raise KdfastError(f'--error {error}: expected percent of the validation images, above 0 and below 100')
    given = without_none(vars(arguments)) | changed_values(SETTINGS, settings)
    wanted = with_arguments(chosen_recipes(recipe, all_), given)
    design = design_of(wanted, looks, max_seeds, to_fraction(margin), training)
    found = planned(wanted, design, metric, None if error is None else error / 100, images, training)
    words = [*(recipe or []), *(['--all'] if all_ else []), *option_flags(given), *study_flags(images, training)]
    asked = option_flags(without_none(dict(metric=metric, looks=looks, max_seeds=max_seeds)))
    found['next'] = next_command(found, words, asked, baseline_words(wanted, images, training))
    if as_json:
        return print_json(found)
    from kdfast.report.plan import plan_view

    out.print(plan_view(found))
    out.print(Text.assemble(('\nnext  ', 'dim'), (found['next'], 'bold')), soft_wrap=True)


def planned(
    wanted,  # Recipes with their arguments
    design,  # kdfast.analysis.design.Declared
    metric,  # As given
    error,  # Expected share of wrong images; None if not given
    images,  # Options of the data set
    training,  # As given
):
    "Return what `kdfast.report.plan` shows."
    from kdfast.analysis.metrics import metric_of_kind
    from kdfast.analysis.spread import spreads
    from kdfast.runs.find import find_runs
    from kdfast.study.forecast import bytes_needed, seconds_needed
    from kdfast.study.fork_server import run_starter
    from kdfast.training.room import free_space

    data = load_data(images, training.runs)
    design = declared_or_default(
        replace(design, metric=metric_of_kind(data.several, metric, data.name).name), training.runs, data.name
    )
    with run_starter() as start:
        study = PlannedStudy(wanted, data, images, training, start)
        costs, last = study.costs(design.looks[-1]), study.tasks(design.looks[-1])
    known = spreads(find_runs(training.runs, data.name), design, study.class_sizes, error)
    return dict(
        data=data.name,
        images=sum(study.class_sizes),
        recipes=[recipe.name for recipe, _ in wanted],
        margin=design.margin,
        metric=design.metric,
        looks=design.looks,
        declared=design.declared[:10],
        jobs=study.jobs,
        spreads=[spread_outlook(spread, design, study, costs) for spread in known],
        costs={name: asdict(cost) for name, cost in costs.items()},
        seconds=seconds_needed(last, costs, study.jobs),
        bytes=bytes_needed(last, costs, study.jobs),
        free=free_space(training.runs),
    )


def declared_or_default(
    design,  # kdfast.analysis.design.Declared
    runs_dir,  # Directory of the runs
    data,  # Name of the data set
):
    "Return the design as it was declared; one that was not, with the default looks unless it has some."
    before = declared_before(design, runs_dir, data)
    looks = design.looks or before and before.looks
    if before and (before.looks, before.margin, before.metric) == (looks, design.margin, design.metric):
        return before
    return replace(design, looks=design.design.looks)


def spread_outlook(
    spread,  # kdfast.analysis.spread.Spread
    design,  # kdfast.analysis.design.Declared
    study,  # PlannedStudy
    costs,  # Of its recipes
):
    "Return when the study is expected to be decided with this spread, and what would help if it is not."
    from kdfast.analysis.spread import largest_step
    from kdfast.stats.planning import outlooks, remedies_of
    from kdfast.study.forecast import seconds_needed

    setting = design.design, spread.sd, largest_step(study.class_sizes, design.metric), design.margin
    expected = outlooks(*setting)
    listed = [
        asdict(o) | dict(seconds=seconds_needed(study.tasks(o.look or design.looks[-1]), costs, study.jobs))
        for o in expected
    ]
    remedies = None if all(o.look for o in expected) else remedies_of(*setting, sum(study.class_sizes))
    return asdict(spread) | dict(outlooks=listed, remedies=remedies)


def next_command(
    found,  # From `planned`
    words,  # Recipes and options of the study
    asked,  # Options of its design, as the user gave them, without the margin
    first_run,  # Words of `kdfast run` for a run of the baseline
):
    """Return the command that makes sense after the plan.

    If no error is known: a first run. If the study cannot be decided: a plan with a margin that can. Else the study.
    """
    from kdfast.report.plan import margin_text

    margin = [] if found['margin'] == MARGIN_POINTS / 100 else ['--margin', f'{100 * found["margin"]:g}']
    remedies = found['spreads'][0]['remedies']
    if len(found['spreads']) > 1:
        command = ['run', *first_run]
    elif remedies and remedies['margin']:
        command = ['plan', *words, *asked, '--margin', margin_text(remedies['margin'])]
        if found['spreads'][0]['source'] == '--error':
            command += ['--error', f'{100 * found["spreads"][0]["error"]:g}']
    else:
        command = ['study', *words, '--until-decided', *asked, *margin]
    return shlex.join(['kdfast', *command])


def study_flags(
    images: DataOptions,  # Options of the data set
    training: StudyOptions,  # As given
) -> list[str]:
    "Return the words that repeat these options."
    return [*changed_flags(images), *changed_flags(training)]


def baseline_words(
    wanted,  # Recipes with their arguments
    images,  # Options of the data set
    training,  # As given
):
    "Return the words of `kdfast run` that train the first run of the baseline as the study would."
    recipe, given = next((recipe, given) for recipe, given in wanted if recipe.name == 'baseline')
    shared = [*changed_flags(images), *changed_flags(training, only=['runs'])]
    return [recipe.name, *option_flags(recipe.changed(given)), *shared, '--threads', str(training.threads)]


def probe(
    tasks: Annotated[str, typer.Argument(help='JSON: recipe, arguments and seed of each run.')],
    file: Annotated[Path, typer.Argument(help='The file to write: JSON.')],
    trust_code: TrustOption = False,
    runs: RunsOption = DEFAULT_RUNS,
    *,
    images: DataOptions,
):
    "Time a few steps of the recipes of a study; `plan` starts it."
    from time import perf_counter

    data = load_data(images, runs)
    with quiet_imports():
        from kdfast.training.timing import time_recipes
    wanted = [(find_recipe(name), given, seed) for name, given, seed in json.loads(tasks)]
    if trust_code:
        trust_runs([value for _, given, _ in wanted for value in given.values()])
    began = perf_counter()
    costs = time_recipes([(recipe, recipe.resolve(given), seed) for recipe, given, seed in wanted], data, runs)
    found = dict(seconds=perf_counter() - began, costs={name: asdict(cost) for name, cost in costs.items()})
    file.write_text(json.dumps(found), 'utf-8')


app.command('plan', cls=SectionedCommand, rich_help_panel=TRAIN)(
    expand_groups(plan_study, setting_parameters(), without=['seeds', 'ray', 'resplit'])
)
app.command(hidden=True)(expand_groups(probe))
