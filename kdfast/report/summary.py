"The summary of a finished run for the terminal: its main result first. Imports no torch."

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from kdfast.analysis.measures import LOSSES, MEASURES, SCORES
from kdfast.analysis.results import completed_result, has_several_labels, main_score
from kdfast.core.format import duration, percent, signed_points
from kdfast.core.tables import Table
from kdfast.report.headline import baseline_sentence, change_text, compare_command, headline, on_same_images
from kdfast.runs.lookup import baseline_of
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import find_upstream, teachers_of
from kdfast.runs.upstream_paths import upstream_entries

SHOWN_PAIRS = 3  # most confused pairs
EXTREMES = 3  # best and worst classes that are shown
FEW_CLASSES = 6  # that are all shown
BORDERS = 4  # columns of a box around its content
ROUNDING = 5e-5  # of an accuracy that is shown with two decimals of a percentage


def run_summary(
    folder: RunDir,  # A finished run
    others: Sequence[RunDir] = (),  # Runs on the same data, of which one may be its baseline
    boxed: bool = False,  # Whether to draw a box around the main result
    flags: Sequence[str] = (),  # That choose the data set and the directory of the runs, for commands
    width: int = 80,  # Columns of the terminal
) -> Group:
    """Return the main result of a run, key figures beside its teacher's, and details, a line each.

    A command that is wider than its place is on a line of its own, below the box: print it without cropping.
    """
    result, teachers = completed_result(folder), teachers_of(folder)
    sentences, below = [Text(headline(folder, teachers), style='bold')], []
    if main_score(result) is not None and (baseline := baseline_of(folder, others)):
        inside, below = command_lines(compare_command(baseline.recipe, flags), width - BORDERS * boxed)
        sentences += [Text(baseline_sentence(folder, baseline)), *inside]
    title = f'{result["recipe"]} on {result["data"]}, seed {result["seed"]}'
    top = [Text(), result_box(title, sentences, width)] if boxed else [Text(f'\n{title}', style='dim'), *sentences]
    figures = figure_table(folder, result, teachers)
    return Group(*top, *below, Text(), figures, Text(), detail_table(folder, result))


def result_box(
    title,  # Of the run
    sentences,  # Its main result
    width,  # Columns of the terminal
):
    "Return a box; a title that its border would cut is inside."
    fits = cell_len(title) <= width - BORDERS - 2
    return Panel(
        Group(*sentences) if fits else Group(Text(title, style='dim'), *sentences),
        title=Text(title) if fits else None,
        title_align='left',
        expand=False,
        border_style='green',
    )


def command_lines(
    command,  # That judges the difference from the baseline
    width,  # Columns for the sentences
):
    "Return what stands behind the sentences and, of a command that a line break would cut, below them."
    if cell_len(command) <= width:
        return [Text(f'{command} tells whether that exceeds chance.')], []
    whole = Text(command, no_wrap=True, overflow='ignore')
    return [], [Text('Whether that exceeds chance is told by'), whole]


# Key figures


def figure_table(
    folder,  # A finished run
    result,  # Its completed result
    teachers,  # Its teachers
):
    "Return scores, size and time of a run, next to its teachers'; with one teacher, also the changes."
    table = Table(box=None, padding=(0, 3, 0, 0), header_style='dim', show_header=bool(teachers))
    table.add_column('', overflow='fold')
    table.add_column(Text(result['recipe'].split(',')[0]), justify='right')
    numbered = len(teachers) > 1
    for n, _ in enumerate(teachers, 1):
        table.add_column(f'teacher {n}' if numbered else 'teacher', justify='right')
    table.add_column('change' if len(teachers) == 1 else '')
    for measure, own, of_teachers in figure_rows(result, [completed_result(teacher) for teacher in teachers]):
        texts = ['–' if value is None else measure.format(value) for value in of_teachers]
        style = 'bold green' if measure.name in ('valid_accuracy', 'valid_map') else ''
        change = change_cell(folder, measure, own, teachers, of_teachers)
        table.add_row(Text(measure.label, style='dim'), Text(measure.format(own), style), *texts, change)
    return table


def figure_rows(
    result,  # Of a run, completed
    of_teachers,  # The same, of its teachers
):
    "Yield measure, value and the teachers' values; no balanced accuracy that equals the accuracy."
    for measure in MEASURES:
        own = measure.value(result)
        if own is None or measure.group == LOSSES:
            continue
        if measure.name == 'valid_balanced_accuracy' and not any(map(is_unbalanced, [result, *of_teachers])):
            continue
        yield measure, own, [measure.value(teacher) for teacher in of_teachers]


def is_unbalanced(
    result,  # Of a run, completed
):
    "Return whether balanced accuracy and accuracy differ by more than rounding."
    accuracy, balanced = (result.get(name) for name in ('valid_accuracy', 'valid_balanced_accuracy'))
    return None not in (accuracy, balanced) and abs(accuracy - balanced) > ROUNDING


def change_cell(
    folder,  # A finished run
    measure,  # Of the row
    own,  # Its value
    teachers,  # Teachers of the run
    of_teachers,  # Their values
):
    "Return the change from the only teacher; behind the training time, that of other runs it needs."
    if measure.name == 'seconds':
        return upstream_times(folder)
    if len(teachers) != 1 or of_teachers[0] is None or measure.name == 'epochs':
        return ''
    if measure.group != SCORES:
        return change_text(own, of_teachers[0])
    return f'{signed_points(own - of_teachers[0])} points' if on_same_images(folder, teachers[0]) else ''


def upstream_times(
    folder,  # A finished run
):
    "Return the training times of the runs other than teachers that a run continues: and hint 30 s."
    entries = [entry for entry in upstream_entries(folder) if entry['recipe'] != 'teacher']
    found = {entry['recipe']: find_upstream(folder, entry) for entry in entries}
    times = [f'{name} {duration(other.result["seconds"])}' for name, other in found.items() if other]
    return f'and {", ".join(times)}' if times else ''


# Details


def detail_table(
    folder,  # A finished run
    result,  # Its completed result
):
    "Return losses, best epoch, classes, confusions, notes and the directory, a line or two each."
    table = Table.grid(padding=(0, 2))
    for label, content in detail_rows(folder, result):
        table.add_row(Text(label, style='dim'), content)
    return table


def detail_rows(
    folder,  # A finished run
    result,  # Its completed result
) -> Iterator[tuple[str, RenderableType]]:
    "Yield label and content of each line."
    known = {m.label.removesuffix(' loss'): m for m in MEASURES if m.group == LOSSES and m.value(result) is not None}
    if known:
        yield 'losses', Text(', '.join(f'{name} {m.format(m.value(result))}' for name, m in known.items()))
    if epoch := result.get('best_epoch'):
        best = percent(result['best_valid_map' if has_several_labels(result) else 'best_valid_accuracy'])
        is_last = epoch == result['epochs']
        yield 'best epoch', Text(f'{epoch}, {"the last" if is_last else f"{best}; other numbers: the last epoch"}')
    yield from class_rows(result)
    if result.get('worst_pairs'):
        pairs = [f'{actual} → {predicted} {n}' for actual, predicted, n in result['worst_pairs'][:SHOWN_PAIRS]]
        yield 'most confused', Text.assemble(', '.join(pairs), (' (actual → predicted)', 'dim'))
    for note in folder.run.get('notes', []):
        yield 'note', Text(note, overflow='fold')
    yield 'saved to', Text(str(folder), overflow='fold')


def class_rows(
    result: dict,  # Content of result.json
) -> Iterator[tuple[str, Text]]:  # Label and content
    "Yield the accuracies of few classes, or of the best and the worst of many; of labels their F1."
    scores = class_scores(result)
    kind = 'F1' if has_several_labels(result) else 'classes'
    ranked = sorted(scores, key=scores.get, reverse=True)

    def joined(names):
        return Text(', '.join(f'{name} {percent(scores[name])}' for name in names))

    if len(ranked) > FEW_CLASSES:
        yield f'best {kind}', joined(ranked[:EXTREMES])
        yield f'worst {kind}', joined(ranked[: -EXTREMES - 1 : -1]).append(f' (of {len(ranked):,})', style='dim')
    elif ranked:
        yield kind, joined(ranked)


def class_scores(
    result,  # Content of result.json
):
    "Return the accuracy of each class or the F1 of each label that has validation images."
    if not has_several_labels(result):
        return {name: value for name, value in (result.get('class_accuracy') or {}).items() if value is not None}
    from kdfast.report.labels import label_rows  # imports numpy, which takes a while

    rows = label_rows(result, len(result['label_counts']))
    return {name: f1 for name, *_, f1, average in rows if average is not None}
