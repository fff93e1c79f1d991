"""Confusion matrices as tables and sentences."""

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.analysis.confusion import OF_CLASS, part_of_matrix
from kdfast.core.errors import listed
from kdfast.core.format import percent
from kdfast.stats.confusion import CHANCE, hardest

CLASSES = 40  # that are listed and, unless the terminal is narrower, drawn; of more, those that matter most


# In words


def confusion_view(
    found: dict,  # From `facts`
    names: tuple[str, str | None],  # What to call the run and the other
    width: int,  # Columns of the terminal
    as_shares: bool = False,  # Shares of the rows in place of counts
) -> Group:
    "The matrix as a heat map, accuracy by class, and the most confused pairs; of many classes, those that matter most."
    title = Text.assemble('\n', (names[0], 'bold'), ': rows are what an image shows, columns what it was taken for\n')
    tables = [heat_map(found, width, as_shares), class_table(found, names), pair_table(found, names)]
    parts = [title, *(part for table in tables for part in (table, Text()))]
    if found['most_alike']:
        parts.append(Text('Confused most, both ways together: {} and {}, {} images.'.format(*found['most_alike'])))
    return Group(*parts, *(Text(sentence) for sentence in (confusion_sentences(found, names) if names[1] else [])))


def confusion_sentences(found, names):
    "Where the run is ahead, and how far the two agree"
    ahead = [c for c, by in ahead_sentence(found).items() if by > 0]
    certain = [c for c in ahead if found['class_p'][c] < CHANCE]
    mine, other = names
    yield (
        f'{mine} is ahead of {other} in {listed(ahead) or "no class"}; '
        f'by more than chance (p < {CHANCE}) in {listed(certain) or "no class"}.'
    )
    yield (
        f'They agree on {percent(found["agreement"])} of {found["images"]:,} images; only {mine} has {found["only_right"]} right, '
        f'only {other} {found["only_against_right"]}.'
    )


def ahead_sentence(found):
    "By how much the run is ahead of the other, of each class that has images"
    numbers = {c: [found[of][c] for of in OF_CLASS] for c in found['classes']}
    return {c: mine - theirs for c, (mine, theirs, p) in numbers.items() if None not in (mine, theirs, p)}


def listed_classes(
    found: dict,  # From `facts`
) -> tuple[list[str], str]:  # Classes; what they are, where they are not all
    "The classes whose accuracy is listed: all; of more than 40 the worst or, beside another run, the most different."
    classes = found['classes']
    if len(classes) <= CLASSES:
        return classes, ''
    which = 'that differ most' if 'against' in found else 'of lowest accuracy'
    ranks = {c: -abs(by) for c, by in ahead_sentence(found).items()} if 'against' in found else found['class_accuracy']
    ranks = {c: rank for c, rank in ranks.items() if rank is not None}
    return sorted(ranks, key=ranks.get)[:CLASSES], f'the {min(CLASSES, len(ranks))} {which}, of {len(classes):,}'


def heat_map(found, width, as_shares=False):
    "Of so many classes as there is room for"
    matrix = np.array(found['confusion'])
    chosen = hardest(matrix, CLASSES)
    for n in range(len(chosen), 1, -1):
        some = sorted(chosen[:n])
        counts, of_row = part_of_matrix(matrix, some)
        numbers = of_row if as_shares else counts
        written = [[f'{100 * n:.1f}' if as_shares else str(n) for n in row] for row in numbers.tolist()]
        classes = [found['classes'][c] for c in some]
        label = min(max(map(cell_len, classes)), width // 3)
        cell_width = max(4, *(len(cell) for row in written for cell in row))
        if label + (cell_width + 1) * n > width:
            continue
        lines = heat_lines(classes, written, of_row, label, cell_width)
        rest = f'the {n} of {len(matrix):,} classes that are confused most; confusion.csv has all'
        return Group(*lines, *([Text(rest, style='dim')] if n < len(matrix) else []))
    return Text(f'(the matrix is wider than {width} columns; it is in confusion.csv)', style='dim')


def heat_lines(classes, written, of_row, label, cell_width):
    "A line of names, and one a class"

    def headed(name):
        cut = set_cell_size(name, min(cell_width, cell_len(name)))
        return ' ' * (cell_width - cell_len(cut)) + cut

    lines = [Text(' ' * label + ''.join(f' {headed(c)}' for c in classes), style='bold')]
    for row, (name, cells) in enumerate(zip(classes, written)):
        line = Text(set_cell_size(name, label))
        for column, (cell, share) in enumerate(zip(cells, of_row[row])):
            line.append(' ')
            line.append(f'{cell if share else "·":>{cell_width}}', style=heat(share, right=column == row))
        lines.append(line)
    return lines


def heat(share, right):
    "Green for the diagonal, redder for each further fiftieth of a class that is taken for another"
    if right:
        return 'bold green'
    return 'dim' if share < 0.01 else 'yellow' if share < 0.03 else 'red' if share < 0.08 else 'bold red reverse'


def class_table(found, names):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    chosen, which = listed_classes(found)
    table.add_column('accuracy by class')
    for name in (*filter(None, names), *(['points', 'p'] if names[1] else [])):
        table.add_column(name, justify='right')
    for c in chosen:
        numbers = [found[of][c] for of in (OF_CLASS if names[1] else OF_CLASS[:1])]
        if None in numbers:
            table.add_row(Text(c), '–')  # no validation images
        else:
            table.add_row(Text(c), percent(numbers[0]), *(beside(*numbers) if names[1] else []))
    notes = [which] if which else []
    if names[1]:
        notes.append('p: McNemar\'s exact test, corrected for the number of classes (Holm)')
    if notes:
        table.caption, table.caption_justify = '\n'.join(notes), 'left'
    return table


def beside(mine, theirs, p):
    style = 'green' if mine > theirs else 'red' if mine < theirs else ''
    points = f'{100 * (mine - theirs):+.1f}'.replace('-', '−')
    chance = Text(f'{p:.3f}' if p >= 0.001 else '<.001', style='bold' if p < CHANCE else 'dim')
    return percent(theirs), Text(points, style=style), chance


def pair_table(found, names):
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('most confused')
    for name in filter(None, names):
        table.add_column(name, justify='right')
    others = [str(n) for *_, n in found['against_worst_pairs']] if names[1] else None
    for row, (a, b, n) in enumerate(found['worst_pairs']):
        table.add_row(Text(f'{a} taken for {b}'), str(n), *([others[row]] if others else []))
    return table
