"""Commands for one recipe: run, lr-find, cp."""

import shlex
import shutil
import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kdfast.cli.app import TRAIN, app, err, help_if_alone, out, print_json, print_line, print_note, status
from kdfast.cli.options import DataOptions, RunOptions, changed_flags
from kdfast.cli.recipes import RecipeGroup
from kdfast.core import distributed, signals
from kdfast.core.errors import KdfastError
from kdfast.core.imports import without_collection
from kdfast.core.memory import keep_freed_memory
from kdfast.runs.options import option_flags
from kdfast.runs.recipes import Recipe, find_recipe, recipe_names


def run_recipe(
    recipe: Recipe,  # To run
    images: DataOptions,  # The data set
    options: RunOptions,  # Seed, directory, output
    given: dict,  # Arguments of `main` by name
):
    """Train a recipe and the runs that it needs, and print the result.

    Arguments and data are checked before fastai is imported, which takes seconds.
    """
    arguments = recipe.resolve(given)
    data = load_data(images, options.runs, options.seed, options.resplit)
    from kdfast.runs.run_dir import locate_run

    run_dir = locate_run(options.runs, data.name, recipe.folder_name(arguments), options.seed)
    finished_before = run_dir.finished
    with quiet_imports():
        import kdfast.all  # noqa: F401 (as recipes do)
        from kdfast.training.execute import train
        from kdfast.training.other_load import OtherLoad
        from kdfast.training.progress import ConsoleProgress, live_bars
    if options.trust_code:
        trust_runs(arguments.values())
    with live_bars(err) as bars:
        callbacks = [partial(ConsoleProgress, console=err, bars=bars), lambda _: OtherLoad(print_note)]
        if options.tensorboard and not distributed.rank:
            callbacks.append(tensorboard_callback())
        rehearsed = signals.is_study_child()  # a study has rehearsed its runs
        run_dir = train(
            recipe, data, options.seed, given, options.runs, callbacks, rehearsed=rehearsed, threads=options.threads
        )
    if finished_before:  # and it is the run that was asked for, or `train` had refused it
        print_note(f'{run_dir} is finished; nothing to train')
    if options.json:
        print_json(run_dir.result)
    else:
        print_summary(run_dir, images, options)


def find_rate(
    recipe: Recipe,  # To run
    images: DataOptions,  # The data set
    options: RunOptions,  # Seed, directory, output
    given: dict,  # Arguments of `main` by name
):
    """Run the learning rate range test on the first fit of a recipe, and print the suggestion.

    Trains the runs that this fit needs.
    """
    arguments = recipe.resolve(given)
    data = load_data(images, options.runs, options.seed, options.resplit)
    with quiet_imports():
        from kdfast.training import lr_find
        from kdfast.training.devices import threads_used
    if options.trust_code:
        trust_runs(arguments.values())
    with status('trying learning rates'), threads_used(options.threads):
        found = lr_find.find(recipe, data, options.seed, given, options.runs)
    if options.json:
        print_json(dict(suggested=found.suggested, rates=found.rates, losses=found.losses))
    else:
        out.print(lr_find.view(found))


class RunGroup(RecipeGroup):
    "Commands that train a recipe."

    action = staticmethod(run_recipe)


class LRFindGroup(RecipeGroup):
    "Commands that find a learning rate for a recipe."

    action = staticmethod(find_rate)


def join_processes(ctx: typer.Context):
    """Run a recipe and the runs it depends on.

    For example: kdfast run exp1; kdfast run ./mine.py --data photos/; kdfast run kd --help
    """
    distributed.init()  # before anything is printed: only the first of several processes prints
    help_if_alone(ctx)


def start_lr_find(ctx: typer.Context):
    """Find a learning rate for a recipe.

    For example: kdfast lr-find baseline --data photos/
    """
    help_if_alone(ctx)


for name, group, callback in (('run', RunGroup, join_processes), ('lr-find', LRFindGroup, start_lr_find)):
    recipes = typer.Typer(cls=group, callback=callback, invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(recipes, name=name, rich_help_panel=TRAIN)


@app.command(rich_help_panel=TRAIN)
def cp(
    recipe: Annotated[str, typer.Argument(help='A recipe of kdfast.')],
    file: Annotated[Path, typer.Argument(help='The file to write. It must not exist.')],
):
    "Copy a recipe to edit and run as your own."
    source = find_recipe(recipe).file
    if file.is_dir():
        file = file / source.name
    if file.exists():
        raise KdfastError(f'{file} exists already: choose another name')
    if file.suffix != '.py':
        raise KdfastError(f'{file}: a recipe is a Python file; name it {file}.py')
    if file.stem in recipe_names():
        raise KdfastError(f'{file} has the name of a recipe of kdfast: choose another name, such as my_{file.name}')
    if not file.parent.is_dir():
        raise KdfastError(f'{file.parent} is not a directory')
    shutil.copyfile(source, file)
    print_line(f'copied; run it with: kdfast run {file if file.is_absolute() else f"./{file}"}')


# What the commands share


def load_data(
    images: DataOptions,  # What to load
    runs_dir: Path,  # Directory of the runs
    seed: int = 0,  # On which the data depend with `resplit` only
    resplit: bool = False,  # Whether each seed has a split of its own
):
    """Load the data set, under a name that no other data set has in `runs_dir`.

    Raises KdfastError for a negative seed, and for data that cannot be read.
    """
    if seed < 0:
        raise KdfastError(f'--seed {seed}: expected 0 or more')
    keep_freed_memory()  # decoding allocates the same blocks again and again, as training does
    with without_collection():
        from kdfast.data.sources import load, with_own_name

    data = load(**load_arguments(images), resplit=seed if resplit else None)
    named = with_own_name(data, runs_dir)
    if named.name != data.name:
        print_note(
            f'kdfast: {runs_dir / data.name} has runs on other images; runs on these are in {runs_dir / named.name}'
        )
    return named


def load_arguments(
    images: DataOptions,  # As given
) -> dict:  # Of `kdfast.data.load`
    "Set how many threads decode images, which is no part of the data; return the other options."
    from kdfast.data import decoding_threads

    settings = dict(vars(images))
    decoding_threads.number = settings.pop('workers')
    return dict(source=settings.pop('data'), **settings)


@contextmanager
def quiet_imports():
    """Show that imports take a while, and hide warnings from torch that users cannot act on.

    Afterwards torch uses no more threads than this process has cores.
    """
    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    with status('importing fastai'), without_collection():
        yield
        from kdfast.training.devices import limit_threads

        limit_threads()


def trust_runs(
    values: Iterable,  # Arguments of a recipe; those that are run directories are trusted, others are ignored
):
    "Allow code that came with the named runs, such as a teacher's, to be executed."
    from kdfast.core.names import is_run
    from kdfast.models.saved import trust_code

    for value in values:
        if isinstance(value, str) and is_run(value):
            trust_code(Path(value) / 'weights.safetensors')


def tensorboard_callback() -> type:
    "Return the callback class for TensorBoard. Raises KdfastError if its package is missing."
    try:
        from kdfast.training.tensorboard import TensorBoard
    except ImportError as e:
        needed = "pip install 'kdfast[tensorboard]'"
        raise KdfastError(f'--tensorboard needs a package that is not installed: {needed}') from e
    return TensorBoard


def print_summary(
    run_dir,  # Of the finished run
    images,  # Options of the data set
    options,  # Seed and directory
):
    "Print the result of a run, and the command for the next recipe of the study with the same options."
    from kdfast.cli.against import choice_flags
    from kdfast.report.summary import run_summary
    from kdfast.runs import lookup
    from kdfast.runs.find import find_runs

    others = find_runs(options.runs, run_dir.data)
    following = lookup.next_recipe(run_dir, others)
    next_command = ['compare', *changed_flags(options, only=['runs'])]
    if following:
        recipe, given = following
        shared = [
            *changed_flags(images),
            *changed_flags(options, only=['seed', 'runs', 'threads', 'resplit', 'trust_code']),
        ]
        next_command = ['run', recipe, *option_flags(given), *shared]
    flags = choice_flags(options.runs, run_dir.data)
    out.print(run_summary(run_dir, others, out.is_terminal, flags, out.width), crop=False)
    command = shlex.join(['kdfast', *next_command])
    out.print(Text.assemble(('\nnext  ', 'dim'), (command, 'bold')), soft_wrap=True)  # whole, so that it can be copied
