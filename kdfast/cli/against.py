"What `compare` prints: differences from one recipe, and CSV. Imports no torch."

import csv
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.text import Text

from kdfast.cli.app import out, print_json, print_line, print_note
from kdfast.cli.options import DEFAULT_RUNS, to_fraction
from kdfast.core.errors import KdfastError
from kdfast.core.ranges import MARGIN_POINTS
from kdfast.runs.find import find_runs
from kdfast.runs.options import option_flags

JudgedMarginOption = Annotated[
    Optional[float],
    typer.Option(
        min=0,
        help='Smallest difference that matters, in percentage points (default: what a declared design says, else '
        f'{MARGIN_POINTS:g}).',
    ),
]


def given_margin(
    margin: float | None,  # Value of --margin
) -> float | None:  # As a fraction
    "Return the margin to judge by; None for that of a declared design, else the default."
    return None if margin is None else to_fraction(margin)


def choice_flags(
    runs: Path,  # Directory of the runs
    data: str,  # Name of the data set
) -> list[str]:
    "Return the options that choose the runs on a data set: --data and --runs, where they are needed."
    others = {run.data for run in find_runs(runs)} - {data}
    chosen = dict(data=data) if others else {}
    return option_flags(chosen if runs == DEFAULT_RUNS else chosen | dict(runs=runs))


def needs_against(
    by_data,  # Runs by the name of their data set
    runs: Path,  # Directory of the runs
    metric: str | None,  # Value of --metric
    uncorrected: bool,  # Whether --uncorrected was given
) -> KdfastError:
    """Return the error for an option of differences without --against, with a command that works.

    Raises KdfastError for a metric that judges no data set here.
    """
    from kdfast.analysis.differences import runs_with
    from kdfast.analysis.metrics import metric_for, metric_named
    from kdfast.report.headline import compare_command
    from kdfast.runs.find import resolve_run_name

    why = 'decides what differences are judged on' if metric else 'is about the intervals of differences'
    why = f'{"--metric" if metric else "--uncorrected"} {why}: it needs --against, such as:'
    flags = option_flags(dict(metric=metric) if metric else {}) + ['--uncorrected'] * uncorrected
    failure = None
    if metric:
        metric_named(metric, several=False)  # raises KdfastError for an unknown one, also without runs
    for name, folders in by_data.items():
        try:
            known = runs_with(folders, metric_for(folders, metric))
        except KdfastError as e:
            failure = e
            continue
        if known:
            against = resolve_run_name(folders, 'baseline')
            command = compare_command(against if against in known else next(iter(known)), flags)
            chosen = shlex.join(choice_flags(runs, name))
            return KdfastError(f'{why} {command} {chosen}'.rstrip())
    return failure or KdfastError(f'{why} {compare_command("baseline", flags)}')


def tables_against(
    by_data,  # Runs by the name of their data set
    against,  # The run to compare with
    margin,  # Smallest difference that matters, as a fraction; default: as declared
    metric,  # What verdicts judge
    uncorrected,  # Whether every interval has a confidence of 95 %
):
    "Return rows by data set; one without the run `against` is left out, with a note, unless all are."
    from kdfast.analysis.differences import NoReference, differences_from  # scipy takes a while

    tables, lacking = {}, []
    for name, folders in by_data.items():
        try:
            tables[name] = differences_from(folders, against, margin, metric, uncorrected)
        except NoReference as e:
            lacking.append(e.message)
    if not tables:
        raise KdfastError('; '.join(lacking))
    for message in lacking:
        print_note(f'left out: {message}')
    return tables


def print_differences(
    tables,  # Rows of `differences_from` by the name of their data set
    by_data,  # Runs by the same
    against,  # The run that was compared with
    as_json,  # Print JSON instead of tables
    as_csv,  # Print CSV instead of tables
):
    "Print the differences from the recipe `against`; one table per data set."
    from kdfast.report.differences import difference_remarks, difference_table, verdict_texts
    from kdfast.report.left_out import unfinished_remarks
    from kdfast.report.tables import default_remarks

    rows = [dict(data=name) | row for name, table in tables.items() for row in table]
    alone = f'no other recipe than {against} has finished runs'
    for name in [name for name, table in tables.items() if not table and (as_json or as_csv)]:
        print_note(f'{name}: {alone}')  # on stderr, as scripts read the rows
    if as_json:
        return print_rows(tables, by_data)
    if as_csv:
        note_unfinished(by_data[name] for name in tables)
        columns = list(dict.fromkeys(name for row in rows for name in row if name != 'seeds'))
        return print_csv([columns, *([row.get(name) for name in columns] for row in rows)] if rows else [])
    for name, table in tables.items():
        print_heading(name)
        if table:
            out.print(
                *verdict_texts(table), Text(), difference_table(table), *map(Text, difference_remarks(table)), sep='\n'
            )
        else:
            print_line(alone)
        for remark in unfinished_remarks(by_data[name]) + default_remarks(by_data[name]):
            out.print(Text(remark))


def print_rows(
    tables,  # Rows by the name of their data set
    by_data,  # Runs by the same
):
    """Print rows as JSON, each with the unfinished runs on its data set.

    Those on a data set without rows are named in a note.
    """
    from kdfast.runs.unfinished import unfinished_runs

    note_unfinished(by_data[name] for name, table in tables.items() if not table)
    unfinished = {name: unfinished_runs(by_data[name]) for name in tables}
    print_json(
        [dict(data=name) | row | dict(unfinished=unfinished[name]) for name, table in tables.items() for row in table]
    )


def note_unfinished(
    data_sets: Iterable[Sequence],  # Runs on each
):
    "Print notes on the runs that the rows lack: on a data set as a whole, if no run on it is finished."
    from kdfast.report.left_out import unfinished_remarks
    from kdfast.runs.unfinished import none_finished

    for folders in data_sets:
        remarks = unfinished_remarks(folders)
        for remark in remarks if len(remarks) < len(folders) else [none_finished(folders)]:
            print_note(remark)


def print_heading(
    data,  # Name of the data set
):
    "Print the name of a data set above its table."
    out.print(Text(f'\n{data}\n', style='bold'))


def print_csv(
    rows: Iterable[Sequence],  # The header is the first
):
    "Print rows as CSV. Text that a spreadsheet would take for a formula is escaped."
    from kdfast.core.atomic import escape_csv_cell

    writer = csv.writer(sys.stdout, lineterminator='\n')
    writer.writerows([escape_csv_cell(cell) for cell in row] for row in rows)
