"""Confusion matrices as tables and sentences."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from kdfast.analysis.confusion import CLASS_COLUMNS, part_of_matrix
from kdfast.core.errors import listed
from kdfast.core.format import percent
from kdfast.core.tables import Table
from kdfast.stats.confusion import SIGNIFICANT, hardest

MAX_CLASSES = 40  # that are listed and, if the terminal is wide enough, drawn


def confusion_view(
    found: dict,  # From `confusion_summary`
    names: tuple[str, str | None],  # Of the run and of the other run
    width: int,  # Columns of the terminal
    as_shares: bool = False,  # Percentages of the rows instead of counts
) -> Group:
    "Return a heat map, accuracy by class, and the most confused pairs; of many classes, only some."
    title = Text.assemble('\n', (names[0], 'bold'), ': rows are actual classes, columns predicted classes\n')
    parts = [title]
    for table in (heat_map(found, width, as_shares), class_table(found, names), pair_table(found, names)):
        parts += [table, Text()]
    if found['most_alike']:
        one, other, n = found['most_alike']
        parts.append(Text(f'Most confused, both directions together: {one} and {other}, {n} images.'))
    if names[1]:
        parts += [Text(sentence) for sentence in confusion_sentences(found, names)]
    return Group(*parts)


def confusion_sentences(
    found: dict,  # From `confusion_summary` of two runs
    names: Sequence[str],  # Of the two runs
) -> Iterator[str]:
    "Yield where the first run is more accurate than the second, and how far they agree."
    ahead = [c for c, lead in class_leads(found).items() if lead > 0]
    significant = [c for c in ahead if found['class_p'][c] < SIGNIFICANT]
    mine, other = names
    yield f'{mine} is more accurate than {other} in: {listed(ahead) or "no class"}.'
    yield f'Significant (p < {SIGNIFICANT}) in: {listed(significant) or "no class"}.'
    yield (
        f'They agree on {percent(found["agreement"])} of {found["images"]:,} images; only {mine} has '
        f'{found["only_right"]} correct, only {other} {found["only_against_right"]}.'
    )


def class_leads(
    found,  # From `confusion_summary` of two runs
):
    "Return by how much the accuracy of the first run is higher, for each class that has images."
    columns = {c: [found[column][c] for column in CLASS_COLUMNS] for c in found['classes']}
    return {c: mine - theirs for c, (mine, theirs, p) in columns.items() if None not in (mine, theirs, p)}


def listed_classes(
    found: dict,  # From `confusion_summary`
) -> tuple[list[str], str]:  # Classes, and which ones they are if they are not all
    "Return all classes; of more than 40 the least accurate or, with another run, the most different."
    classes = found['classes']
    if len(classes) <= MAX_CLASSES:
        return classes, ''
    if 'against' in found:
        ranks = {c: -abs(lead) for c, lead in class_leads(found).items()}
        which = 'that differ most'
    else:
        ranks = {c: accuracy for c, accuracy in found['class_accuracy'].items() if accuracy is not None}
        which = 'of lowest accuracy'
    return sorted(ranks, key=ranks.get)[
        :MAX_CLASSES
    ], f'the {min(MAX_CLASSES, len(ranks))} {which}, of {len(classes):,}'


# Tables


def heat_map(
    found,  # From `confusion_summary`
    width: int,  # Characters of a line
    as_shares: bool = False,  # Percentages of each row instead of counts
):
    "Draw the matrix of as many classes as fit into the width: all, or those that are confused most."
    matrix = np.array(found['confusion'])
    chosen = hardest(matrix, MAX_CLASSES)
    for n in range(len(chosen), 1, -1):
        shown = sorted(chosen[:n])
        counts, shares = part_of_matrix(matrix, shown)
        rows = (100 * shares).tolist() if as_shares else counts.tolist()
        cells = [[f'{x:.1f}' if as_shares else str(x) for x in row] for row in rows]
        classes = [found['classes'][c] for c in shown]
        cell_width = max(4, *(len(cell) for row in cells for cell in row))
        layouts = (heat_layout(classes, cell_width, width, numbered) for numbered in (False, True))
        if not (layout := next(filter(None, layouts), None)):
            continue
        lines = heat_lines(*layout, cells, shares)
        if n < len(matrix):
            remark = f'the {n} of {len(matrix):,} classes that are confused most; confusion.csv has all'
            lines.append(Text(remark, style='dim'))
        return Group(*lines)
    return Text(f'(the matrix is wider than {width} columns; it is in confusion.csv)', style='dim')


def heat_layout(
    classes: Sequence[str],  # Names of those shown
    cell_width: int,  # Characters of the longest cell
    width: int,  # Characters of a line
    numbered: bool,  # Number the rows, and head the columns with their numbers
) -> tuple[list[str], list[str], int, int] | None:  # None if it is too wide
    "Return labels of rows, heads of columns, and the characters of a label and of a cell."
    heads = [str(n) for n in range(1, len(classes) + 1)] if numbered else list(classes)
    labels = [f'{head} {name}' for head, name in zip(heads, classes)] if numbered else heads
    label_width = min(max(map(cell_len, labels)), width // 3)
    cell_width = max(cell_width, *map(cell_len, heads))
    return None if label_width + (cell_width + 1) * len(heads) > width else (labels, heads, label_width, cell_width)


def heat_lines(
    labels,  # Of the rows
    heads,  # Of the columns
    label_width: int,  # Characters of a label
    cell_width: int,  # Characters of a cell
    cells,  # Text of each cell, by row
    shares,  # Share of each cell in its row
):
    "Return one line with the heads of the columns, and one line per class."
    headings = [' ' * (cell_width - cell_len(head)) + head for head in heads]
    lines = [Text(' ' * label_width + ''.join(f' {heading}' for heading in headings), style='bold')]
    for row, (name, row_cells) in enumerate(zip(labels, cells)):
        line = Text(set_cell_size(name, label_width))
        for column, (cell, share) in enumerate(zip(row_cells, shares[row])):
            line.append(' ')
            line.append(f'{cell if share else "·":>{cell_width}}', style=heat(share, diagonal=column == row))
        lines.append(line)
    return lines


def heat(
    share: float,  # Of its row
    diagonal: bool,  # Whether it counts correct images
):
    "Return the style of a cell: green on the diagonal; elsewhere the redder, the larger its share."
    if diagonal:
        return 'bold green'
    if share < 0.01:
        return 'dim'
    if share < 0.03:
        return 'yellow'
    return 'red' if share < 0.08 else 'bold red reverse'


def class_table(
    found,  # From `confusion_summary`
    names,  # Recipes of both runs; None for a missing second one
):
    "Return a table of accuracies by class; with a second run, also its own, differences and p-values."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    chosen, which = listed_classes(found)
    table.add_column('accuracy by class')
    for name in (*filter(None, names), *(['points', 'p'] if names[1] else [])):
        table.add_column(name, justify='right')
    for c in chosen:
        numbers = [found[column][c] for column in (CLASS_COLUMNS if names[1] else CLASS_COLUMNS[:1])]
        if None in numbers:
            table.add_row(Text(c), '–')  # no validation images
        else:
            table.add_row(Text(c), percent(numbers[0]), *(other_cells(*numbers) if names[1] else []))
    notes = [which] if which else []
    if names[1]:
        notes.append("p: McNemar's exact test, corrected for the number of classes (Holm)")
    if notes:
        table.caption, table.caption_justify = '\n'.join(notes), 'left'
    return table


def other_cells(
    mine: float,  # Accuracy of the first run
    theirs: float,  # Accuracy of the second run
    p: float,  # P-value of the difference
):
    "Return the cells of the second run: its accuracy, the difference in points, the p-value."
    style = 'green' if mine > theirs else 'red' if mine < theirs else ''
    points = f'{100 * (mine - theirs):+.1f}'.replace('-', '−')
    p_value = Text(f'{p:.3f}' if p >= 0.001 else '<.001', style='bold' if p < SIGNIFICANT else 'dim')
    return percent(theirs), Text(points, style=style), p_value


def pair_table(
    found,  # From `confusion_summary`
    names,  # Recipes of both runs; None for a missing second one
):
    "Return a table of confused pairs with their numbers of images."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('most confused (actual → predicted)')
    for name in filter(None, names):
        table.add_column(name, justify='right')
    for row, (actual, predicted, n) in enumerate(found['worst_pairs']):
        cells = [str(n)]
        if names[1]:
            cells.append(str(found['against_worst_pairs'][row][-1]))
        table.add_row(Text(f'{actual} → {predicted}'), *cells)
    return table
