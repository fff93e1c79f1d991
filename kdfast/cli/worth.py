"The command worth: does distillation help this student on these images?"

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.text import Text

from kdfast.cli.app import TRAIN, SectionedCommand, app, out, print_json, print_note
from kdfast.cli.budget import parse_budget, train_within
from kdfast.cli.designs import design_of
from kdfast.cli.options import (
    DataOptions,
    EpochsOption,
    JsonOption,
    MarginOption,
    MetricOption,
    StudyOptions,
    TeacherEpochsOption,
    changed_flags,
    expand_groups,
    to_fraction,
)
from kdfast.cli.planned import PlannedStudy
from kdfast.cli.recipes import setting_parameters
from kdfast.cli.run import load_data, quiet_imports, trust_runs
from kdfast.cli.study import StudentOption, TeacherOption, raise_if_failed, with_arguments, without_none
from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.core.ranges import MARGIN_POINTS
from kdfast.runs.options import SETTINGS, option_flags
from kdfast.runs.recipes import changed_values, find_recipe

BudgetOption = Annotated[
    str, typer.Option(metavar='TIME', help='Time that this call may train, such as 45min, 2h or 1h30min.')
]
OutOption = Annotated[Optional[Path], typer.Option('--out', help='Also write the HTML report to this file.')]


def worth(
    budget: BudgetOption = '2h',
    student: StudentOption = None,
    teacher: TeacherOption = None,
    epochs: EpochsOption = None,
    teacher_epochs: TeacherEpochsOption = None,
    margin: MarginOption = MARGIN_POINTS,
    metric: MetricOption = None,
    file: OutOption = None,
    as_json: JsonOption = False,
    *,
    training: StudyOptions,
    images: DataOptions,
    **settings,  # Of every training
):
    """Answer whether distillation helps a student on your images.

    Trains baseline, KD and a recipe with features, until one is better or all are alike or worse, or the budget ends.
    Repeat the command to continue. The numbers of seeds are declared before the first run, so that at most 5 % of
    answers are wrong. For example: kdfast worth --data photos/ --student torchvision:resnet18 --budget 2h
    """
    began = time.monotonic()
    seconds = parse_budget(budget)
    check_options(file)
    given = dict(student=student, teacher=teacher, epochs=epochs, teacher_epochs=teacher_epochs)
    given = without_none(given) | changed_values(SETTINGS, settings)
    from kdfast.study.fork_server import run_starter

    with run_starter() as start:
        study, design = prepare(given, to_fraction(margin), metric, images, training, start)
        design, failed = train_within(study, design, began, seconds, budget)
    found = answered(study, design)
    found['command'] = next_command(found, study, given, budget=budget, margin=margin, metric=metric)
    (print_json if as_json else print_answer)(found)
    if file:
        write_page(file, study, design)
    raise_if_failed(failed)


app.command(cls=SectionedCommand, rich_help_panel=TRAIN)(
    expand_groups(worth, setting_parameters(), without=['seeds', 'ray', 'resplit'])
)


def check_options(
    file: Path | None,  # Where the report will be written
):
    "Raise KdfastError for what would fail after the training."
    if distributed.env_world_size() > 1:
        raise KdfastError('this command cannot run under torchrun or accelerate launch; use --jobs')
    if file and not file.absolute().parent.is_dir():
        raise KdfastError(f'{file.parent} is not a directory')
    if file and file.is_dir():
        raise KdfastError(f'--out {file} is a directory: expected a file, such as report.html')


def prepare(
    given,  # Arguments of all recipes that have them
    margin,  # Smallest difference that matters, as a fraction
    metric,  # As given
    images,  # Options of the data set
    training,  # As given
    start,  # From `run_starter`
):
    "Return the study, with a feature recipe that fits its networks, and a design without its looks."
    from kdfast.analysis.metrics import metric_of_kind

    wanted = with_arguments([find_recipe('baseline'), find_recipe('kd')], given)
    arguments = [recipe.resolve(own) for recipe, own in wanted][1]  # raises an error for values that are none
    data = load_data(images, training.runs)
    judged = metric_of_kind(data.several, metric, data.name).name
    with quiet_imports():
        from kdfast.training.feature_recipe import feature_recipe
    if training.trust_code:
        trust_runs((arguments['teacher'],))
    name, own = feature_recipe(arguments['student'], arguments['teacher'], data)
    wanted += [(recipe, of_all | own) for recipe, of_all in with_arguments([find_recipe(name)], given)]
    study = PlannedStudy(wanted, data, images, training, start)
    return study, replace(design_of(wanted, None, None, margin, training), metric=judged)


def answered(
    study,  # PlannedStudy
    design,  # kdfast.analysis.design.Declared
):
    "Return the answer as plain values, with its sentences: what --json prints."
    from kdfast.analysis.worth import answer
    from kdfast.report.left_out import unfinished_remarks
    from kdfast.report.worth import sentences
    from kdfast.runs.find import find_runs

    folders = find_runs(study.training.runs, study.data.name)
    found = answer(folders, design, study.class_sizes)
    found['left_out'] = unfinished_remarks([f for f in folders if f.recipe in (design.against, *design.recipes)])
    kd = study.wanted[1][0].of_main(study.wanted[1][1])
    found |= dict(student=kd['student'], teacher=kd['teacher'], data=study.data.name)
    found['subject'] = f'{kd["student"]} on {study.data.name}'
    if found['best']:
        found['best']['command'] = run_command(study, found['best'])
    if found['next']:
        found['next']['seconds'] = remaining_seconds(study, found)
    return found | dict(sentences=sentences(found), report=report_command(study))


def run_command(
    study,  # PlannedStudy
    best,  # Name and seed of a run
):
    "Return the command that trains a run of the study with the same bits."
    recipe, given = next((r, own) for r, own in study.wanted if r.name == best['name'])
    words = [recipe.name, *option_flags(recipe.changed(given)), '--seed', str(best['seed'])]
    return shlex.join(['kdfast', 'run', *words, *study.common, '--threads', str(study.training.threads)])


def report_command(
    study,  # PlannedStudy
):
    "Return the command that writes the HTML page."
    return shlex.join(['kdfast', 'report', '--data', study.data.name, *changed_flags(study.training, only=['runs'])])


def next_command(
    found,  # From `answered`
    study,  # PlannedStudy
    given,  # Arguments of all recipes
    **options,  # Of this command
):
    "Return what makes sense next: the best model, the same command, or after the last look the page."
    if found['answer'] != 'undecided':
        return found['best']['command']
    if found['n'] and not found['next']:
        return found['report']
    margin = options.pop('margin')
    options |= {} if margin == MARGIN_POINTS else dict(margin=f'{margin:g}')
    flags = [*changed_flags(study.images), *changed_flags(study.training)]
    return shlex.join(['kdfast', 'worth', *option_flags(without_none(options) | given), *flags])


def remaining_seconds(
    study,  # PlannedStudy
    found,  # With the training times of a seed
):
    "Return how long the runs until the next look take, if they take as long as the finished ones."
    from kdfast.runs.cost import RunCost
    from kdfast.study.forecast import seconds_needed

    by_recipe = {name: s for row in found['recipes'] for name, s in row['seconds'].items()}
    by_recipe['baseline'] = found['baseline']
    tasks = study.tasks(found['next']['seeds'])
    costs = {task.folder.recipe: RunCost(by_recipe.get(task.recipe.name, 0.0)) for task in tasks}
    return seconds_needed(tasks, costs, study.jobs)


def print_answer(
    found,  # From `answered`
):
    "Print one screen; the last line is the command to type next."
    from kdfast.report.worth import worth_view

    out.print(worth_view(found))
    if found['n'] and found['command'] != found['report']:
        out.print(Text.assemble(('\npage  ', 'dim'), found['report']), soft_wrap=True)
    out.print(Text.assemble(('\nnext  ', 'dim'), (found['command'], 'bold')), soft_wrap=True)


def write_page(
    file,  # Of the report
    study,  # PlannedStudy
    design,  # kdfast.analysis.design.Declared
):
    "Write the HTML report of all runs on this data set; nothing if no run is finished."
    from kdfast.core.atomic import write
    from kdfast.report.page import render_page
    from kdfast.runs.find import find_runs

    folders = find_runs(study.training.runs, study.data.name)
    if any(folder.finished for folder in folders):
        write(file, render_page(folders, study.training.runs, None, design.metric))
        print_note(f'wrote {file}')
