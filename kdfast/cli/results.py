"""Commands that read finished runs: ls, compare, confusion, report. None of them imports torch."""

from pathlib import Path
from textwrap import wrap
from typing import Annotated, Optional

import typer
from rich.cells import cell_len
from rich.text import Text

from kdfast.cli.against import (
    JudgedMarginOption,
    choice_flags,
    given_margin,
    needs_against,
    note_unfinished,
    print_csv,
    print_differences,
    print_heading,
    print_rows,
    tables_against,
)
from kdfast.cli.app import RESULTS, app, out, print_json, print_line
from kdfast.cli.options import (
    DEFAULT_RUNS,
    DataNameOption,
    JsonOption,
    MetricOption,
    RunArgument,
    RunSeedOption,
    RunsOption,
)
from kdfast.core.errors import KdfastError
from kdfast.core.names import is_run
from kdfast.runs.options import SETTINGS
from kdfast.runs.recipes import find_recipe, recipe_names

AgainstOption = Annotated[
    Optional[str],
    typer.Option(help='A recipe: print the differences of the others from it, with intervals and verdicts.'),
]

UncorrectedOption = Annotated[
    bool,
    typer.Option(
        '--uncorrected',
        help='Do not widen the intervals for the number of recipes: one of several verdicts is then wrong in more than '
        '5 % of studies.',
    ),
]


@app.command(rich_help_panel=RESULTS)
def ls(data: DataNameOption = None, runs: RunsOption = DEFAULT_RUNS, as_json: JsonOption = False):
    "List recipes and runs."
    from kdfast.analysis.results import scores
    from kdfast.core.tables import Table
    from kdfast.report.tables import run_view
    from kdfast.runs.find import find_runs
    from kdfast.runs.unfinished import reason_of

    found = find_runs(runs, data)
    known = [find_recipe(name) for name in recipe_names()]
    if as_json:
        recipes = {recipe.name: recipe.described() for recipe in known}
        listed = [dict(path=str(run), status=run.status, reason=reason_of(run)) | scores(run) for run in found]
        settings = [setting.described() for setting in SETTINGS]
        return print_json(dict(recipes=recipes, settings=settings, runs=listed))
    table = Table.grid(padding=(0, 2))
    for recipe in known:
        table.add_row(Text(recipe.name, style='bold'), Text(recipe.purpose))
    out.print(table)
    out.print()
    if not found:
        return out.print(Text(f'no runs in {runs} yet; start with: kdfast run exp1'))
    for part in run_view(found, out.width):
        out.print(part)


@app.command(rich_help_panel=RESULTS)
def compare(
    data: DataNameOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option('--csv', help='Print the result as CSV.')] = False,
    against: AgainstOption = None,
    margin: JudgedMarginOption = None,
    metric: MetricOption = None,
    uncorrected: UncorrectedOption = False,
):
    """Print a table of finished runs.

    One column per recipe, with means and standard deviations over its seeds. With --against, one row per recipe.
    """
    from kdfast.analysis.aggregate import aggregate, flat_table
    from kdfast.runs.find import find_runs, no_finished_run

    found = find_runs(runs, data)
    by_data = {name: [run for run in found if run.data == name] for name in dict.fromkeys(run.data for run in found)}
    if not against and (metric or uncorrected):
        raise needs_against(by_data, runs, metric, uncorrected)
    tables = {name: aggregate(of_data) for name, of_data in by_data.items()}
    rows = [row for table in tables.values() for row in table]
    if not rows:
        raise no_finished_run(runs, data)
    if against:
        limit = given_margin(margin)
        tables = tables_against(by_data, against, limit, metric, uncorrected)
        return print_differences(tables, by_data, against, as_json, as_csv)
    if as_json:
        return print_rows(tables, by_data)
    if as_csv:
        note_unfinished(by_data.values())
        return print_csv(flat_table(rows))
    print_comparison(tables, by_data, runs)


def print_comparison(
    tables,  # Rows of `aggregate` by the name of their data set
    by_data,  # Runs by the same
    runs,  # Directory of the runs
):
    "Print a table for each data set, with its remarks."
    from kdfast.report.headline import comparison_sentences
    from kdfast.report.tables import compare_table, run_remarks
    from kdfast.runs.unfinished import none_finished

    for name, table in tables.items():
        print_heading(name)
        if not table:
            out.print(Text(none_finished(by_data[name])))
            continue
        if sentences := comparison_sentences(table, choice_flags(runs, name)):
            sentence, _, command = sentences.partition('\n')
            out.print(Text(sentence))
            for line in whole_command(command, out.width) if out.is_terminal else [command] * bool(command):
                out.print(Text(line), soft_wrap=True)  # commands are whole, so that they can be copied
            out.print()
        for part in compare_table(table, out.width):
            out.print(part, '')
        for remark in run_remarks(by_data[name]):
            out.print(Text(remark, style='dim'))


def whole_command(
    line,  # A command and what it does; may be empty
    width,  # Columns of the terminal
):
    "Return lines of which only the command is wider than the terminal."
    command, tells, what = line.partition(' tells ')
    if cell_len(line) <= width or not tells:
        return [line] * bool(line)
    return [*wrap(f'{what[0].upper()}{what[1:-1]} is told by', width), command]


@app.command(rich_help_panel=RESULTS)
def confusion(
    run: RunArgument,
    against: Annotated[Optional[str], typer.Option(help='A second run, to show next to the first.')] = None,
    data: DataNameOption = None,
    seed: RunSeedOption = None,
    shares: Annotated[bool, typer.Option('--shares', help='Print percentages of each row instead of counts.')] = False,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
):
    """Show the confusion matrix of a run.

    Also accuracy per class and the most confused classes; with --against, next to those of a second run. For images
    with several labels: right and wrong predictions of each label.
    """
    from kdfast.analysis.confusion import confusion_summary
    from kdfast.analysis.labels import label_summary
    from kdfast.analysis.results import has_several_labels
    from kdfast.report.confusion import confusion_view
    from kdfast.report.labels import label_view
    from kdfast.runs.find import find_run

    first = find_run(runs, run, data, seed)
    chosen = {} if not against or is_run(against) else dict(data=first.data, seed=first.seed)
    second = find_run(runs, against, **chosen) if against else None
    names = pair_names(first, second)
    several = has_several_labels(first.result)
    if several and shares:
        raise KdfastError('--shares is for images with one label each; these have several')
    found = label_summary(first, second) if several else confusion_summary(first, second)
    if as_json:
        print_json(found)
    else:
        out.print(label_view(found, names) if several else confusion_view(found, names, out.width, shares))


def pair_names(
    first,  # A run
    second,  # Another run, or None
):
    "Return the names of both recipes; with their seeds if these differ."
    if second and second.seed != first.seed:
        return tuple(f'{run.recipe}, seed {run.seed}' for run in (first, second))
    return first.recipe, second and second.recipe


@app.command(rich_help_panel=RESULTS)
def report(
    data: DataNameOption = None,
    file: Annotated[Path, typer.Option('--out', help='The file to write.')] = Path('report.html'),
    margin: JudgedMarginOption = None,
    metric: MetricOption = None,
    runs: RunsOption = DEFAULT_RUNS,
):
    """Write an HTML report.

    One page that needs nothing else: the answer, the table, curves, confusion matrices, analyses and provenance.
    """
    from kdfast.core.atomic import write
    from kdfast.report.page import render_page
    from kdfast.runs.find import find_runs, no_finished_run

    found = find_runs(runs, data)
    names = sorted({run.data for run in found})
    if not any(run.finished for run in found):
        raise no_finished_run(runs, data)
    if len(names) > 1:
        raise KdfastError(f'there are runs on {", ".join(names)}: choose one with --data')
    if not file.parent.is_dir():
        raise KdfastError(f'{file.parent} is not a directory')
    write(file, render_page(found, runs, given_margin(margin), metric))
    print_line(f'wrote {file}')
