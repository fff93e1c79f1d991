"Weights of classes: from their frequencies, or from a table."

from math import isfinite
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError, listed
from kdfast.data.dataset import Data
from kdfast.data.layouts.rows import read_table

COLUMNS = ({'class', 'weight'}, {'name', 'label'})  # the latter are what a JSON object is read as


def class_weights(
    setting: str,  # none, auto, or the file of a table
    data: Data,  # Its training images decide the frequencies
) -> dict[str, float]:  # By class, in the order of the labels; empty for none
    """Return the weights of the classes; their mean over the training images is 1.

    `auto` is the inverse of a class's frequency, as scikit-learn's `balanced`. A class without training images, which
    no loss is weighted by, has the weight that a single image would give it. Raises KdfastError for a table that does
    not have one weight above 0 for every class.
    """
    if setting == 'none':
        return {}
    if data.several:
        raise KdfastError(f'--class-weights {setting}: {data.name} has several labels per image, expected one class')
    counts = np.bincount(data.train[1], minlength=len(data.classes))
    weights = 1 / np.maximum(counts, 1) if setting == 'auto' else weights_in_table(setting, data.classes)
    weights = weights * counts.sum() / (weights * counts).sum()
    return dict(zip(data.classes, weights.tolist()))


def weights_in_table(
    file: str,  # CSV, TSV or JSON
    classes: list[str],  # In the order of the labels
) -> np.ndarray:  # (classes,)
    "Read the weights of classes. Raises KdfastError unless every class has one, and nothing else has."
    table = read_table(file, file, lambda: Path(file).open('rb'))
    if set(table.header) not in COLUMNS or len(table.header) != 2:
        raise KdfastError(f'{file} has the columns {listed(table.header)}: expected class and weight')
    name, weight = (table.header.index(column) for column in sorted(table.header, key=is_weight))
    weights = {}
    for number, cells in table.rows:
        where = f'{file}, {table.row} {number}'
        if len(cells) != 2:
            raise KdfastError(f'{where}: expected a class and a weight, found {len(cells)} cells')
        if cells[name] in weights:
            raise KdfastError(f'{where}: a second weight of {cells[name]}')
        weights[cells[name]] = parsed_weight(cells[weight], where)
    if missing := [c for c in classes if c not in weights]:
        raise KdfastError(f'{file} has no weight for {listed(missing)}: add a row for each')
    if unknown := [c for c in weights if c not in classes]:
        raise KdfastError(f'{file} has a weight for {listed(unknown)}, not a class of the data set: {listed(classes)}')
    return np.array([weights[c] for c in classes])


def is_weight(
    column,  # Of a table
):
    "Return whether a column has the weights; a JSON object is read as names and labels."
    return column in ('weight', 'label')


def parsed_weight(
    text,  # Of the cell
    where,  # File and row, for errors
):
    "Return the number of a cell. Raises KdfastError unless it is finite and above 0."
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if isfinite(weight) and weight > 0:
        return weight
    raise KdfastError(f'{where}: the weight of a class is {text or "missing"}, expected a number above 0')
