"""Commands for data sets and stored files: check, cache."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from kdfast.cli.app import DATA, CheckedTyper, PlainGroup, app, out, print_json, print_line, print_note
from kdfast.cli.options import DEFAULT_RUNS, DataOptions, JsonOption, changed_flags, expand_groups
from kdfast.cli.run import load_arguments
from kdfast.core.errors import KdfastError
from kdfast.core.format import size_text
from kdfast.runs.unfinished import diverged_advice


def check(
    path: Annotated[
        str, typer.Argument(metavar='PATH', help='A run directory, a directory of runs, or what --data accepts.')
    ] = str(DEFAULT_RUNS),
    as_json: JsonOption = False,
    *,
    images: DataOptions,
):
    """Verify run directories, or describe a data set.

    Files of runs are compared with their checksums. Images are decoded and counted by class.
    """
    from kdfast.runs.run_dir import RunDir
    from kdfast.runs.run_files import find_run_places

    run_dirs = [RunDir(folder) for folder in find_run_places(Path(path))]
    if run_dirs:
        check_runs(path, run_dirs, images, as_json)
    elif path == str(DEFAULT_RUNS) and not any(Path(path).glob('*')):
        raise KdfastError('no runs yet; start with: kdfast run exp1; for a data set, name it: kdfast check PATH')
    else:
        describe_data(replace(images, data=path), as_json)


app.command(rich_help_panel=DATA)(expand_groups(check, without=['data']))


def check_runs(
    path,  # Where the runs are, as given
    run_dirs,  # The run directories found there
    images,  # Options of the data set, which must have their defaults
    as_json,  # Print JSON instead of lines
):
    "Print the state of each run. Raises KdfastError for damaged ones, and for options of data sets."
    changed = changed_flags(images)
    if changed:
        raise KdfastError(f'{changed[0]} applies to data sets, but {path} contains runs')
    damage = {run_dir: run_dir.damage() for run_dir in run_dirs}
    states = {run_dir: run_dir.status for run_dir, found in damage.items() if not found}
    if as_json:
        print_json({str(run_dir): found or run_dir.problems() for run_dir, found in damage.items()})
    else:
        for run_dir, found in damage.items():
            print_line(f'{run_dir}: {"; ".join(found) or state_text(run_dir, states[run_dir])}')
    if unfinished := sum(state != 'finished' for state in states.values()):
        print_note(f'{unfinished} of {len(damage)} runs are not finished, which is no damage: keep their directories')
    if damaged := sum(map(bool, damage.values())):
        raise KdfastError(
            f'{damaged} of {len(damage)} runs are damaged: put their files back, or move their directories away and '
            'run them again'
        )


def state_text(
    run_dir,  # A run that is not damaged
    state,  # Its status
):
    "Return that a run is complete, or its state and what continues it."
    if state == 'finished':
        return 'complete'
    if state == 'running':
        return 'running: a process is training it'
    reason = run_dir.run.get('reason')
    because = f' ({reason})' if reason else ''
    if state == 'diverged':
        return f'{state}{because}: {diverged_advice(run_dir)}'
    return f'{state}{because}: the same command {"resumes" if run_dir.has_checkpoints else "starts"} it'


def describe_data(
    images,  # The data set and how it is read
    as_json,  # Print JSON instead of lines
):
    "Decode a data set; print its classes, its sizes, and what training will do with it."
    from kdfast.data import overview

    found = overview.facts(**load_arguments(images))
    if as_json:
        print_json(found, ensure_ascii=False)
    else:
        out.print(overview.view(found), soft_wrap=not out.is_terminal, crop=False)


cache = CheckedTyper(cls=PlainGroup, rich_markup_mode=None)
app.add_typer(cache, name='cache', rich_help_panel=DATA)


@cache.callback(invoke_without_command=True)
def cache_alone(ctx: typer.Context):
    "List, measure and clear decoded data sets."
    if ctx.invoked_subcommand is None:
        cache_list()


@cache.command('list')
def cache_list(as_json: JsonOption = False):
    """List decoded data sets.

    With size, last use, and whether their images have changed since they were decoded.
    """
    from kdfast.core.cache_home import cache_home
    from kdfast.data import cache_entries

    found = cache_entries.entries()
    if as_json:
        return print_json([entry.facts for entry in found], ensure_ascii=False)
    if found:
        out.print(cache_entries.table(found), soft_wrap=True)
    print_line(f'{total_size(found)} in {cache_home()}')


@cache.command('size')
def cache_size():
    "Print the size of the cache in bytes."
    from kdfast.data import cache_entries

    print(sum(entry.n_bytes for entry in cache_entries.entries()))


@cache.command('clear')
def cache_clear(
    name: Annotated[Optional[list[str]], typer.Argument(help='Data sets by name, or directories of the cache.')] = None,
    stale: Annotated[
        bool, typer.Option('--stale', help='Data sets whose images have changed or are gone since.')
    ] = False,
    everything: Annotated[
        bool, typer.Option('--all', help='All of them, and downloads of published data sets.')
    ] = False,
):
    "Delete decoded data sets, never your images themselves, nor the list of trusted code."
    from kdfast.data import cache_entries

    deleted = cache_entries.clear(cache_entries.entries(), name or [], stale, everything)
    print_line(f'removed {len(deleted)}: {total_size(deleted)}')


def total_size(
    entries,  # Of the cache
):
    "Return the total size of entries of the cache, as text."
    return size_text(sum(entry.n_bytes for entry in entries))
