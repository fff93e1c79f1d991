"""Predictions of several labels per image, label by label: counts, F1 and average precision."""

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from kdfast.core.format import percent
from kdfast.core.tables import Table
from kdfast.stats.labels import f1_of_counts

SHOWN_LABELS = 20  # in a terminal; of more, those of the lowest F1
HEADINGS = ('true +', 'false +', 'false −', 'true −', 'F1', 'AP')


def label_rows(
    result: dict,  # Content of result.json
    n: int,  # Labels to show: of more, those of the lowest F1 among those that images have
) -> list[tuple]:  # (label, true +, false +, false −, true −, F1, average precision or None) of each
    "Return the numbers of each label on the validation images."
    names = list(result['label_counts'])
    counts = np.array(list(result['label_counts'].values()))
    f1 = f1_of_counts(counts).tolist()
    rows = [
        (name, *row, score, result['label_average_precision'][name])
        for name, row, score in zip(names, counts.tolist(), f1)
    ]
    if len(rows) <= n:
        return rows
    return sorted((row for row in rows if row[-1] is not None), key=lambda row: row[-2])[:n]


def label_cells(
    row: tuple,  # From `label_rows`
) -> list[str]:
    "Return the texts of a row; a dash for the average precision of a label that no image has."
    name, *counts, f1, average = row
    return [name, *map(str, counts), percent(f1), '–' if average is None else percent(average)]


def shown_labels(
    result: dict,  # Content of result.json
    n: int,  # Labels that are shown at most
) -> str:  # Empty if all are
    "Describe which labels `label_rows` returns."
    labels = len(result['label_counts'])
    return f'the {len(label_rows(result, n))} labels of the lowest F1, of {labels:,}' if labels > n else ''


def label_view(
    found: dict,  # From `label_summary`
    names: tuple[str, str | None],  # Of the run and of the other run
) -> Group:
    "Return the table of a run; with another run also its table, and how often each is better."
    parts: list[RenderableType] = [Text(names[0], 'bold'), label_table(found)]
    if names[1]:
        other = {name: found[f'against_{name}'] for name in ('label_counts', 'label_average_precision')}
        counts = f'{found["higher_f1"]:,} of {found["images"]:,} images, {names[1]} in {found["against_higher_f1"]:,}'
        parts += [Text(), Text(names[1], 'bold'), label_table(other), Text()]
        parts += [Text(f'{names[0]} has the higher F1 in {counts}.')]
    return Group(*parts)


def label_table(
    result: dict,  # Content of result.json
    n: int = SHOWN_LABELS,  # Labels to show
) -> Table:
    "Return a table with a row for each label; of many labels those of the lowest F1."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('label')
    for heading in HEADINGS:
        table.add_column(heading, justify='right')
    for row in label_rows(result, n):
        table.add_row(*map(Text, label_cells(row)))
    if which := shown_labels(result, n):
        table.caption, table.caption_justify = f'{which}; labels.csv has all', 'left'
    return table
