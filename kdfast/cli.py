"The command line: parses, calls, prints. Nothing heavy is imported until a command needs it."

import inspect
import json
import os
import shlex
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

import kdfast
from kdfast.core import distributed, names, signals
from kdfast.core.errors import KdfastError, reason, users_line
from kdfast.runs.options import option_flag, option_flags
from kdfast.runs.recipes import STUDY, find_recipe, recipe_names

UsageError = typer.BadParameter.__base__  # click's, wherever typer keeps its click
DEFAULT_RUNS = Path('runs')
AGAIN = 'the same command goes on from there'


class WholeHelp(TyperGroup):
    "Commands with whole sentences of help: one that is too long for its line goes on in the next, where click would cut it."

    def format_commands(self, ctx, formatter):
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, command.get_short_help_str(limit=10**4)) for name, command in commands if not command.hidden]
        with formatter.section('Commands'):
            formatter.write_dl(shown)


class Commands(WholeHelp):
    def list_commands(self, ctx):
        return sorted(super().list_commands(ctx), key=lambda name: name != 'run')  # what one begins with is first


app = typer.Typer(
    cls=Commands,
    help='Train students with distillation and hints, and see whether it helped.',
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

RunsOption = Annotated[Path, typer.Option(help='Where runs are kept.')]
DataNameOption = Annotated[
    Optional[str], typer.Option('--data', help='Only runs on this data set, by its name under the runs folder.')
]
JsonOption = Annotated[bool, typer.Option('--json', help='Print JSON, for a script to read.')]
MarginOption = Annotated[float, typer.Option(min=0, help='Smallest difference that matters, in percentage points.')]
TrustOption = Annotated[
    bool, typer.Option('--trust-code', help='Run code that came with the run or the file: read it first.')
]
SeedOption = Annotated[Optional[int], typer.Option(help='Which seed; the lowest that there is, unless given.')]


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option('--version', help='Show the version and exit.')] = False,
    debug: Annotated[
        bool, typer.Option('--debug', help='Show the traceback of an error.')
    ] = False,  # `main` takes it, wherever it stands
):
    if version:
        print(f'kdfast {kdfast.__version__}')
    else:
        help_alone(ctx)


def help_alone(ctx: typer.Context):
    "Without a command, its help"
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


# run

COMMON = {
    'data': (
        str,
        'digits',
        'What to train on: the path of a folder, an archive or a table, with images in folders of their '
        'classes or listed in a table; or a published data set, such as digits, cifar10, cifar100 or imagenette.',
    ),
    'size': (Optional[int], None, 'For images of any size: height and width at which networks see them, in pixels.'),
    'grow': (
        float,
        1.0,
        'Progressive resizing: the share of the images\' height and width that training begins with; they are whole for the last quarter of the epochs.',
    ),
    'holdout': (
        float,
        0.0,
        'Share of the training images to validate on instead: to choose options while the validation '
        'images stay unseen. A fifth where there are none, unless given.',
    ),
    'augment': (
        Optional[str],
        None,
        'How training varies images: none, shift (or crop), flip (shift and mirror) or strong '
        '(TrivialAugment besides). flip, unless classes are sides, digits or letters.',
    ),
    'columns': (Optional[str], None, 'Columns of a table: name=COLUMN,label=COLUMN,split=COLUMN, or some of them.'),
    'range': (
        Optional[str],
        None,
        'LOW:HIGH, the values that become black and white, of images of more than 8 bits a '
        'channel; by their bit depth, unless given.',
    ),
    'batch_size': (
        Optional[int],
        None,
        'Training images a batch, for every run on this data; 128, or less for a small training '
        'set, unless given. Smaller ones take less memory, and often a lower --lr.',
    ),
    'skip_broken': (bool, False, 'Leave out images that cannot be read, and count them.'),
    'seed': (int, 0, 'Decides the initial weights, the order of the images and their augmentation.'),
    'runs': (Path, DEFAULT_RUNS, 'Where runs are kept.'),
    'tensorboard': (
        bool,
        False,
        'Write every loss component and the accuracies for TensorBoard, too, into the run\'s folder.',
    ),
    'trust_code': (bool, False, 'Run code that came with the run of a teacher: read it first.'),
    'json': (bool, False, 'Print the result as JSON.'),
}


# what kdfast.data.load takes
DATA_OPTIONS = 'data', 'size', 'grow', 'holdout', 'augment', 'columns', 'range', 'batch_size', 'skip_broken'


class Recipes(WholeHelp):
    "One command a recipe, made from its source when it is asked for."

    def list_commands(self, ctx):
        return recipe_names()

    def get_command(self, ctx, name):
        return command(find_recipe(name), self.act)

    def act(self, *args):
        run_recipe(*args)


class Rates(Recipes):
    def act(self, *args):
        find_rate(*args)


def command(recipe, act):
    "The command that does something with `recipe`: its options are the parameters of `main`, their comments the help"
    check_names(recipe)

    def run(**values):
        act(recipe, {name: values.pop(name) for name in COMMON}, values)

    flags = {o.name: (o.type, o.default, o.help) for o in recipe.options} | COMMON
    run.__signature__ = inspect.Signature([parameter(name, *flag) for name, flag in flags.items()])
    run.__annotations__ = {name: kind for name, (kind, *_) in flags.items()}
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(recipe.name, help=recipe.purpose)(run)
    made = typer.main.get_command(one)
    made.recipe = recipe
    return made


def parameter(name, kind, default, help):
    "An option of the command line"
    flag = option_flag(name)
    if kind is bool and name not in COMMON:
        flag += f'/{option_flag(f"no_{name}")}'
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=typer.Option(default, flag, help=help), annotation=kind
    )


def check_names(recipe):
    "Raise KdfastError where a parameter of `main` would hide an option that every recipe has, or another of its own"
    taken = {*COMMON, 'help', 'debug', *(f'no_{o.name}' for o in recipe.options if o.type is bool)}
    for o in recipe.options:
        if o.name in COMMON:
            raise KdfastError(
                f'{recipe.file}: --{o.name} is an option of every recipe; give that parameter of main another name'
            )
        if o.name in taken:
            raise KdfastError(
                f'{recipe.file}: {option_flag(o.name)} has a meaning already; give that parameter of main another name'
            )


def run_alone(ctx: typer.Context):
    "Before anything is said: several processes speak as one"
    distributed.init()
    help_alone(ctx)


app.add_typer(
    typer.Typer(
        cls=Recipes,
        help='Run a recipe, and first whatever it needs: `kdfast run exp1`, `kdfast run ./mine.py`.',
        callback=run_alone,
        invoke_without_command=True,
        rich_markup_mode=None,
    ),
    name='run',
)


app.add_typer(
    typer.Typer(
        cls=Rates,
        help='Find a learning rate for a recipe: `kdfast lr-find baseline --data photos/`.',
        callback=help_alone,
        invoke_without_command=True,
        rich_markup_mode=None,
    ),
    name='lr-find',
)


def run_recipe(recipe, common, given):
    "Check what can be checked at once, then import what trains"
    arguments, images = recipe.resolve(given), asked_images(common)
    from kdfast.runs.run_dir import locate_run
    from kdfast.training.execute import train
    from kdfast.training.progress import Show, live_bars

    kept_in, seed = common['runs'], common['seed']
    folder = locate_run(kept_in, images.name, recipe.folder_name(arguments), seed)
    if folder.finished:
        err.print(f'{folder} is finished; nothing to train', soft_wrap=True)
    import_quietly()
    if common['trust_code']:
        trust_runs(arguments.values())
    with live_bars(err) as bars:
        watch = [
            partial(Show, console=err, bars=bars),
            *([tensorboard_writer()] if common['tensorboard'] and not distributed.rank else []),
        ]
        folder = train(
            recipe, images, seed, given, kept_in, watch, rehearsed=signals.is_study_child()
        )  # a study has tried it
    if common['json']:
        print(json.dumps(folder.result, indent=1))
    else:
        show(folder, {name: common[name] for name in (*DATA_OPTIONS, 'seed', 'runs')})


def asked_images(common):
    "The data set, by a name of its own among the runs"
    if common['seed'] < 0:
        raise KdfastError(f'--seed {common["seed"]}: expected 0 or more')
    return load_images(common['runs'], **{name: common[name] for name in DATA_OPTIONS})


def load_images(runs, data, **options):
    from kdfast.data.sources import load, with_own_name

    found = load(data, **options)
    apart = with_own_name(found, runs)
    if apart.name != found.name:
        err.print(
            f'kdfast: {runs / found.name} has runs on other images; runs on these are in {runs / apart.name}',
            soft_wrap=True,
            markup=False,
        )
    return apart


def find_rate(recipe, common, given):
    "The range test of the recipe's first fit; what it stands on is trained first"
    arguments, images = recipe.resolve(given), asked_images(common)
    import_quietly()
    if common['trust_code']:
        trust_runs(arguments.values())
    from kdfast.training import lr_find

    with err.status('trying rates') if err.is_terminal else nullcontext():
        found = lr_find.find(recipe, images, common['seed'], given, common['runs'])
    if common['json']:
        print(json.dumps(dict(suggested=found.suggested, rates=found.rates, losses=found.losses), indent=1))
    else:
        out.print(lr_find.view(found))


def trust_runs(names):
    "The code that came with runs which are named, as a teacher's is, may run from now on"
    from kdfast.core.names import is_run
    from kdfast.models.saved import trust_code

    for name in names:
        if isinstance(name, str) and is_run(name):
            trust_code(Path(name) / 'weights.safetensors')


def tensorboard_writer():
    try:
        from kdfast.training.tensorboard import TensorBoard
    except ImportError as e:
        raise KdfastError(
            "--tensorboard needs a package that is not installed: pip install 'kdfast[tensorboard]'"
        ) from e
    return TensorBoard


def import_quietly():
    "fastai's import takes seconds and warns of what its users cannot mend"
    import warnings

    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    with err.status('starting fastai') if err.is_terminal else nullcontext():
        pass


def show(folder, common):
    "A run's summary, and the recipe of the study to run next, with the same epochs, optimizer and networks"
    from kdfast.report.tables import run_summary
    from kdfast.runs import lookup
    from kdfast.runs.find import find_runs

    found = lookup.next_recipe(folder, find_runs(common['runs'], folder.data))
    next_command = ['compare', *flags(runs=common['runs'])]
    if found:
        recipe, given = found
        words = [word for name, value in given.items() for word in (f'--{name}', str(value))]
        next_command = ['run', recipe, *words, *flags(**common)]
    out.print(run_summary(folder))
    out.print(
        Text.assemble(('\nnext  ', 'dim'), (shlex.join(['kdfast', *next_command]), 'bold')), soft_wrap=True
    )  # whole, so that it can be copied


def flags(**values):
    "The options of a command line that are not at their defaults"
    return option_flags({name: value for name, value in values.items() if value != COMMON[name][1]})


# Many runs

TeacherOption = Annotated[
    Optional[str], typer.Option(help='Network of the teacher, or the folder of a run, for every recipe that has one.')
]
StudentOption = Annotated[Optional[str], typer.Option(help='Network of the student, for every recipe that has one.')]
HintOption = Annotated[
    Optional[str],
    typer.Option(metavar='TEACHER_LAYER:STUDENT_LAYER', help='Layers that meet, for every recipe that has a hint.'),
]
EpochsOption = Annotated[
    Optional[int], typer.Option(help='Epochs of every run but teacher and stage one, in place of the recipe\'s own.')
]

OptimizerOption = Annotated[
    Optional[str], typer.Option(metavar='sgd|muon', help='Of every run: sgd, or muon, for about half as many epochs.')
]


def train_all(
    wanted,
    seeds: Annotated[int, typer.Option(min=1, help='How many seeds: 0, 1, 2 …')] = 5,
    jobs: Annotated[
        Optional[int],
        typer.Option(min=1, help='Runs side by side; as many as the cores allow, one on a GPU, unless given.'),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=1, help='Threads of each run. They decide the last bits of its weights; the number of jobs does not.'
        ),
    ] = 1,
    trust_code: Annotated[bool, typer.Option(help=COMMON['trust_code'][2])] = False,
    ray: Annotated[
        Optional[str],
        typer.Option(
            metavar='ADDRESS',
            help='Give the runs to this Ray cluster, auto or HOST:PORT, whose machines share these files.',
        ),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    **images,  # DATA_OPTIONS
):
    "Train what is missing; the data set's name, and the tasks without a result"
    if distributed.env_world_size() > 1:
        raise KdfastError(
            'many runs at once start processes of their own (--jobs): only kdfast run goes under a launcher'
        )
    from kdfast.data.sources import located
    from kdfast.study import schedule
    from kdfast.study.plan import plan
    from kdfast.study.schedule import rehearse_tasks, run_tasks

    name, data = load_images(runs, **images).name, images['data']
    where, start = schedule, None
    if ray:
        where = joined(ray)
        start, runs, data = where.Task, runs.resolve(), located(data)  # as other machines must be told
    tasks = plan(wanted, range(seeds), name, runs)
    common, jobs = (
        flags(**images | dict(data=data), trust_code=trust_code, runs=runs),
        jobs or where.default_jobs(threads),
    )
    with err.status('trying the recipes in small') if err.is_terminal else nullcontext():
        rehearse_tasks(tasks, common, jobs, threads)
    return name, run_tasks(tasks, common, jobs, threads, err, start)


def rehearse(
    tasks: Annotated[str, typer.Argument(help='JSON: recipe, arguments and seeds of each kind of run.')],
    jobs: Annotated[int, typer.Option()] = 1,
    trust_code: Annotated[bool, typer.Option()] = False,
    runs: RunsOption = DEFAULT_RUNS,
    **images,  # DATA_OPTIONS
):
    "Try the recipes of a study in small."
    found = load_images(runs, **images)
    import_quietly()
    from kdfast.training.rehearsal import rehearse_all

    wanted = [(find_recipe(name), given, seeds) for name, given, seeds in json.loads(tasks)]
    if trust_code:
        trust_runs([value for _, given, _ in wanted for value in given.values()])
    rehearse_all([(recipe, recipe.resolve(given), seeds) for recipe, given, seeds in wanted], found, runs, jobs)


def joined(address):
    try:
        from kdfast.study import ray_cluster
    except ImportError as e:
        raise KdfastError("--ray needs a package that is not installed: pip install 'kdfast[ray]'") from e
    ray_cluster.join(address)
    return ray_cluster


def trains_many(command):
    "Give `command` the options of `train_all`, in place of **training"
    options = [
        p.replace(kind=p.KEYWORD_ONLY)
        for p in inspect.signature(train_all).parameters.values()
        if p.name not in ('wanted', 'images')
    ]
    return with_options(command, [*options, *data_parameters()], 'training')


def data_parameters():
    return [parameter(name, *COMMON[name]) for name in DATA_OPTIONS]


def with_options(command, options, name):
    "Give `command` those options, in place of its parameter of that name"
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(command).parameters.values() if p.name != name]
    command.__signature__ = inspect.Signature([*own[:1], *options, *own[1:]])
    command.__annotations__ |= {p.name: p.annotation for p in options}
    return command


app.command(hidden=True)(with_options(rehearse, data_parameters(), 'images'))


@app.command()
@trains_many
def study(
    recipe: Annotated[
        Optional[list[str]], typer.Argument(help='Recipes, or files of your own; those of the study, unless given.')
    ] = None,
    all_: Annotated[
        bool, typer.Option('--all', help='Every recipe of kdfast: the study\'s, and one a loss of the literature.')
    ] = False,
    epochs: EpochsOption = None,
    optimizer: OptimizerOption = None,
    teacher: TeacherOption = None,
    student: StudentOption = None,
    hint: HintOption = None,
    margin: MarginOption = 0.8,
    **training,
):
    "Train recipes × seeds, what is missing of them, side by side; then the table, and how far each is from the baseline."
    given = {
        name: value
        for name, value in dict(epochs=epochs, optimizer=optimizer, teacher=teacher, student=student, hint=hint).items()
        if value is not None
    }
    if all_ and recipe:
        raise KdfastError(f'--all beside {", ".join(recipe)}: expected one of them')
    stages = recipe_names() if all_ else STUDY
    found = [
        find_recipe(name) for name in recipe or [name for name in stages if name not in ('teacher', 'hint')]
    ]  # those two come with the others
    for r in found:
        check_names(r)
    unheard = [name for name in given if not any(name in (o.name for o in r.options) for r in found)]
    if unheard:
        raise found[0].unknown(unheard[0])
    wanted = [(r, {o.name: given[o.name] for o in r.options if o.name in given}) for r in found]
    name, failed = train_all(wanted, **training)
    try:
        compare(data=name, runs=training['runs'])
        for baseline, own in [(r, own) for r, own in wanted if r.name == 'baseline']:
            compare(
                data=name, runs=training['runs'], against=baseline.folder_name(baseline.resolve(own)), margin=margin
            )
    finally:
        complain_of(failed)


@app.command()
@trains_many
def matrix(
    epochs: EpochsOption = None,
    optimizer: OptimizerOption = None,
    margin: MarginOption = 0.8,
    json_: JsonOption = False,
    **training,
):
    "Does the extra matrix that a hint needs affect performance? Trains what is missing; premises, evidence, verdict."
    from kdfast.analysis.matrix import answer_question, question_runs
    from kdfast.report.matrix import question_view

    more = {name: value for name, value in dict(epochs=epochs, optimizer=optimizer).items() if value is not None}
    limit = fraction(margin)
    name, failed = train_all(question_runs(more), **training)
    try:
        found = answer_question(training['runs'], name, range(training['seeds']), more, limit)
        if json_:
            print(json.dumps(found, indent=1))
        else:
            out.print(question_view(found))
    finally:
        complain_of(failed)


def complain_of(failed):
    if failed:
        raise KdfastError('no result: ' + '; '.join(f'{task.name}: {task.failure}' for task in failed))


# Networks


@app.command()
def layers(
    network: Annotated[str, typer.Argument(help=f'The student: {names.ANY_NETWORK}.')],
    teacher: Annotated[
        Optional[str],
        typer.Option(help='Another network, or the folder of a run: which of its layers meet the student\'s.'),
    ] = None,
    size: Annotated[int, typer.Option(min=8, help='Height and width of the images.')] = 32,
    trust_code: TrustOption = False,
    json_: JsonOption = False,
):
    "A network's layers, with their shapes; with a teacher, the pairs that a hint can join."
    from dataclasses import asdict

    import_quietly()
    from kdfast.models import layers
    from kdfast.models.saved import load_or_build

    if trust_code:
        trust_runs((network, teacher))
    known = {name: layers.layers(load_or_build(name, size=(size, size)), size) for name in (network, teacher) if name}
    if json_:
        print(json.dumps({name: [asdict(layer) for layer in those] for name, those in known.items()}, indent=1))
    else:
        out.print(layers.view(known))


# Looking at runs


@app.command()
def ls(
    data: DataNameOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_: JsonOption = False,
):
    "Recipes and what each is for; runs so far."
    from rich.table import Table

    from kdfast.report.tables import run_table
    from kdfast.runs.find import find_runs

    found, known = find_runs(runs, data), [find_recipe(name) for name in recipe_names()]
    if json_:
        return print(
            json.dumps(
                dict(
                    recipes={r.name: r.described() for r in known},
                    runs=[dict(path=str(f), status=f.status, reason=f.run.get('reason')) for f in found],
                ),
                indent=1,
            )
        )
    table = Table.grid(padding=(0, 2))
    for r in known:
        table.add_row(f'[bold]{r.name}[/]', r.purpose)
    out.print(table)
    out.print()
    out.print(run_table(found) if found else Text(f'no runs in {runs} yet; start with: kdfast run exp1'))


@app.command()
def compare(
    data: DataNameOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_: JsonOption = False,
    csv_: Annotated[bool, typer.Option('--csv', help='Print CSV.')] = False,
    against: Annotated[
        Optional[str],
        typer.Option(help='A recipe: show how far the others differ from it, with 95 % intervals and verdicts.'),
    ] = None,
    margin: MarginOption = 0.8,
):
    "The report's table, from what has been run."
    from kdfast.analysis.aggregate import aggregate, flat_table
    from kdfast.report.tables import compare_table, run_remarks
    from kdfast.runs.find import find_runs

    found = find_runs(runs, data)
    by_data = {name: [f for f in found if f.data == name] for name in dict.fromkeys(f.data for f in found)}
    tables = {name: aggregate(folders) for name, folders in by_data.items()}
    rows = [row for table in tables.values() for row in table]
    if not rows:
        raise KdfastError(f'no finished run{f" on {data}" if data else ""} in {runs}; start with: kdfast run exp1')
    if against:
        return compare_against(by_data, against, fraction(margin), json_, csv_)
    if json_:
        return print(json.dumps(rows, indent=1))
    if csv_:
        return write_rows(flat_table(rows))
    for name, table in tables.items():
        out.print(f'\n[bold]{name}[/]\n')
        for part in compare_table(table, out.width):
            out.print(part, '')
        for remark in run_remarks(by_data[name]):
            out.print(remark, style='dim')


def fraction(margin):
    "Percentage points as a fraction"
    if not isfinite(margin):
        raise KdfastError(f'--margin {margin}: expected a number of percentage points')
    return margin / 100


def compare_against(by_data, against, margin, as_json, as_csv):
    from kdfast.analysis.differences import differences_from
    from kdfast.report.differences import difference_remarks, difference_table

    tables = {name: differences_from(folders, against, margin) for name, folders in by_data.items()}
    rows = [dict(data=name) | row for name, table in tables.items() for row in table]
    if as_json:
        return print(json.dumps(rows, indent=1))
    if as_csv:
        columns = list(dict.fromkeys(name for row in rows for name in row if name != 'seeds'))
        return write_rows([columns, *([row.get(name) for name in columns] for row in rows)])
    for name, table in tables.items():
        out.print(f'\n[bold]{name}[/]\n')
        if not table:
            out.print(f'nothing but {against} has been run')
        else:
            out.print(difference_table(table), *difference_remarks(table), sep='\n')


def write_rows(rows):
    import csv

    from kdfast.core.atomic import escape_csv_cell

    csv.writer(sys.stdout, lineterminator='\n').writerows([escape_csv_cell(cell) for cell in row] for row in rows)


@app.command()
def confusion(
    run: Annotated[str, typer.Argument(help='A recipe that has been run, or the folder of a run.')],
    against: Annotated[Optional[str], typer.Option(help='Another one, to look at side by side.')] = None,
    data: DataNameOption = None,
    seed: SeedOption = None,
    shares: Annotated[bool, typer.Option('--shares', help='Percentages of each row in place of counts.')] = False,
    runs: RunsOption = DEFAULT_RUNS,
    json_: JsonOption = False,
):
    "Which classes a run takes for which, and where it is ahead of another."
    from kdfast.analysis.confusion import confusion_summary
    from kdfast.report.confusion import confusion_view
    from kdfast.runs.find import find_run

    folder = find_run(runs, run, data, seed)
    other = find_run(runs, against, data or folder.data, folder.seed if seed is None else seed) if against else None
    found = confusion_summary(folder, other)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        out.print(confusion_view(found, (folder.recipe, other and other.recipe), out.width, shares))


@app.command('report')
def report_command(
    data: DataNameOption = None,
    out_: Annotated[Path, typer.Option('--out', help='The file to write.')] = Path('report.html'),
    margin: MarginOption = 0.8,
    runs: RunsOption = DEFAULT_RUNS,
):
    "One HTML page with all of it: the question, the table, curves, confusion, analyses, provenance."
    from kdfast.core.atomic import write
    from kdfast.report.page import write_page
    from kdfast.runs.find import find_runs

    found = find_runs(runs, data)
    names = sorted({folder.data for folder in found})
    if not any(folder.finished for folder in found):
        raise KdfastError(f'no finished run in {runs}; start with: kdfast run exp1')
    if len(names) > 1:
        raise KdfastError(f'there are runs on {", ".join(names)}: choose one with --data')
    if not out_.parent.is_dir():
        raise KdfastError(f'{out_.parent} is no folder')
    write(out_, write_page(found, runs, fraction(margin)))
    out.print(f'wrote {out_}', soft_wrap=True, markup=False)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help='A recipe that has been run, or the folder of a run.')],
    to: Annotated[
        Path, typer.Option(help='The file to write: .onnx, normalisation inside, or .safetensors, for kdfast.')
    ],
    images: Annotated[
        Optional[str], typer.Option(help='Where the images of the run are, if they have been moved.')
    ] = None,
    data: DataNameOption = None,
    seed: SeedOption = None,
    trust_code: TrustOption = False,
    runs: RunsOption = DEFAULT_RUNS,
):
    "A run's network as one file, checked against the run on its validation images."
    from kdfast.export import export
    from kdfast.models.saved import trust_code
    from kdfast.runs.find import find_run

    folder = find_run(runs, run, data, seed)
    if to.suffix not in ('.onnx', '.safetensors'):
        raise KdfastError(f'--to {to}: expected a name that ends in .onnx or .safetensors')
    if not to.parent.is_dir():
        raise KdfastError(f'{to.parent} is no folder')
    import_quietly()
    if trust_code:
        trust_code(folder / 'weights.safetensors')
    with err.status(f'writing {to}') if err.is_terminal else nullcontext():
        changed, difference, n = export.export(folder, to, images)
    out.print(
        f'wrote {to}: {to.stat().st_size / 1e6:.2f} MB; of {n:,} validation images it takes {changed} for another class than the run did; '
        f'probabilities differ by {difference:.1g} at most',
        soft_wrap=True,
        markup=False,
    )


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help='A recipe that has been run, the folder of a run, or an exported file.')],
    image: Annotated[list[Path], typer.Argument(help='Images.')],
    data: DataNameOption = None,
    seed: SeedOption = None,
    trust_code: TrustOption = False,
    runs: RunsOption = DEFAULT_RUNS,
    json_: JsonOption = False,
):
    "What a run's network takes images for."
    from kdfast.export import predict
    from kdfast.models.saved import trust_code
    from kdfast.runs.find import find_run

    file = (
        Path(run)
        if Path(run).suffix in ('.onnx', '.safetensors')
        else find_run(runs, run, data, seed) / 'weights.safetensors'
    )
    import_quietly()
    if trust_code and file.suffix == '.safetensors':
        trust_code(file)
    found = predict.predict(*predict.classifier(file), image)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        out.print(predict.view(found), soft_wrap=True)


def check(
    what: Annotated[str, typer.Argument(help='A run directory, a folder of runs, or what --data takes.')] = str(
        DEFAULT_RUNS
    ),
    json_: JsonOption = False,
    **options,
):
    "Verify run directories, or describe a data set."
    from kdfast.runs.run_dir import RunDir

    folders = [RunDir(file.parent) for file in sorted(Path(what).rglob('run.json'))]
    if not folders:
        return check_data(what, json_, options)
    changed = flags(**options)
    if changed:
        raise KdfastError(f'{changed[0]} is of images, and {what} is a folder of runs')
    found = {folder: folder.problems() for folder in folders}
    if json_:
        print(json.dumps({str(folder): problems for folder, problems in found.items()}, indent=1))
    else:
        for folder, problems in found.items():
            out.print(f'{folder}: {"; ".join(problems) or "whole"}', soft_wrap=True, markup=False)
    wrong = sum(bool(problems) for problems in found.values())
    if wrong:
        raise KdfastError(f'{wrong} of {len(found)} runs are not whole: remove their folders and run them again')


app.command()(with_options(check, [p for p in data_parameters() if p.name != 'data'], 'options'))


def check_data(source, as_json, options):
    from kdfast.data import overview

    found = overview.facts(source, **options)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        out.print(overview.view(found), soft_wrap=True)


cache = typer.Typer(cls=WholeHelp, rich_markup_mode=None)
app.add_typer(cache, name='cache')


@cache.callback(invoke_without_command=True)
def cache_alone(ctx: typer.Context):
    "List, measure and clear decoded data sets."
    if ctx.invoked_subcommand is None:
        cache_list()


@cache.command('list')
def cache_list(json_: JsonOption = False):
    "List decoded data sets: size, last use, whether their images have changed since."
    from kdfast.core.cache_home import cache_home
    from kdfast.data import cache_entries

    found = cache_entries.entries()
    if json_:
        return print(json.dumps([entry.facts for entry in found], indent=1, ensure_ascii=False))
    if found:
        out.print(cache_entries.table(found), soft_wrap=True)
    n_bytes = sum(entry.n_bytes for entry in found)
    out.print(f'{cache_entries.written(n_bytes)} in {cache_home()}', soft_wrap=True, markup=False)


@cache.command('size')
def cache_size():
    "Print how many bytes the cache takes."
    from kdfast.data import cache_entries

    print(sum(entry.n_bytes for entry in cache_entries.entries()))


@cache.command('clear')
def cache_clear(
    name: Annotated[
        Optional[list[str]], typer.Argument(help='Data sets by their names, or folders of the cache.')
    ] = None,
    stale: Annotated[
        bool, typer.Option('--stale', help='What was decoded from images that have changed since.')
    ] = False,
    all_: Annotated[bool, typer.Option('--all', help='Everything, downloads of published data sets too.')] = False,
):
    "Remove decoded data sets. Images themselves are never touched."
    from kdfast.data import cache_entries

    gone = cache_entries.clear(cache_entries.entries(), name or [], stale, all_)
    out.print(f'removed {len(gone)}: {cache_entries.written(sum(entry.n_bytes for entry in gone))}', soft_wrap=True)


@app.command()
def cp(
    recipe: Annotated[str, typer.Argument(help='A recipe of kdfast.')],
    file: Annotated[Path, typer.Argument(help='The file to write, which must not exist.')],
):
    "Copy a recipe, to change it and run it as your own."
    source = find_recipe(recipe).file
    if file.is_dir():
        file = file / source.name
    if file.exists():
        raise KdfastError(f'{file} exists already: choose another name')
    if file.suffix != '.py':
        raise KdfastError(f'{file}: a recipe is a Python file; call it {file}.py')
    if file.stem in recipe_names():
        raise KdfastError(f'{file} would have the name of a recipe of kdfast: choose another, such as my_{file.name}')
    if not file.parent.is_dir():
        raise KdfastError(f'{file.parent} is no folder')
    shutil.copyfile(source, file)
    out.print(f'copied; run it with: kdfast run {file if file.is_absolute() else f"./{file}"}', soft_wrap=True)


# Errors


def explain(error):
    "A usage error in one line; for an option that a recipe has not got, the nearest one"
    command = error.ctx.command if error.ctx else None
    if type(error).__name__ == 'NoSuchOption' and hasattr(command, 'recipe'):
        return command.recipe.unknown(error.option_name.lstrip('-'), COMMON).message
    return error.format_message()


SPINS = '20000'  # looks at its neighbors before a thread of GNU's OpenMP sleeps: as fast as its default when all cores are free
WAITING = 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'  # a user's own choice, if there is one


def share_cores(
    environment: dict = os.environ,  # Read when OpenMP is loaded, before torch is imported
):
    "Let threads that wait for each other sleep after a while; by default they keep their cores busy, and other work slows them down many times."
    if not any(name in environment for name in WAITING):
        environment['GOMP_SPINCOUNT'] = SPINS


def main():
    "Run the command line; every error is one line, and its exit status says whose turn it is"
    share_cores()
    debug = '--debug' in sys.argv
    sys.argv = [a for a in sys.argv if a != '--debug']
    signals.install_handlers()
    try:
        status = app(standalone_mode=False)
    except signals.Interrupted as e:
        complain(f'{e.message}; {AGAIN}')
        status = e.code
    except Exception as error:
        if debug:
            raise
        status, message = verdict(error)
        alike = isinstance(error, (KdfastError, UsageError, OSError))  # in all processes; the first says it
        if distributed.rank and not signals.received and not alike:
            sys.stderr = sys.__stderr__  # one of several, and it alone knows
        complain(message)
    sys.exit(status)


def complain(message):
    "One line; what a file's name would do to a terminal is shown, not done"
    said = ''.join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    err.print(f'kdfast: error: {said}', style='red', soft_wrap=True, markup=False)


def verdict(error):
    "Exit status and message: 2 the user can fix it, 3 another process trains it, 4 diverged, 1 a defect of ours"
    if isinstance(error, KdfastError):
        return error.exit_status, error.message
    if isinstance(error, UsageError):
        return 2, explain(error)
    if isinstance(error, OSError) and error.filename:
        return 2, f'{error.filename}: {error.strerror}'
    kept = '. '.join(['', *getattr(error, '__notes__', [])])
    if where := users_line(error):
        return 2, f'{where}: {reason(error)}{kept}'
    return 1, f'{reason(error)}; this is a defect of kdfast: --debug shows where{kept}'
