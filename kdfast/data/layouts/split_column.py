"Read columns of tables that say the split of each image: by its name, or by a truth value (is_valid)."

from collections.abc import Iterable

from kdfast.data.layouts.name_column import normalize_name
from kdfast.data.layouts.splits import find_splits

SPLIT_COLUMNS = tuple(
    'split set subset partition usage phase fold dataset data_set '
    'is_valid is_val is_validation is_test is_train'.split()
)

TRUE = ('true', '1', 'yes', 'y', 't')
FALSE = ('false', '0', 'no', 'n', 'f')

# Splits of a column of truth values: (where true, where false)
SPLITS_BY_TRUTH = dict(
    is_valid=('valid', 'train'),
    is_val=('valid', 'train'),
    is_validation=('valid', 'train'),
    is_test=('test', 'train'),
    is_train=('train', 'valid'),
)
CERTAIN_SPLIT_COLUMNS = ('split', *SPLITS_BY_TRUTH)  # columns of splits, whatever their cells hold


def splits_of_cells(
    cells: Iterable[str],  # Of a column
) -> dict[str, str]:
    "Return train, valid or test of the cells that stand for one, as names of folders do."
    return {cell: split for (cell,), split in find_splits((cell,) for cell in cells).items()}


def split_in_cell(
    cell: str,  # Of a column of splits
    column: str,  # Name of the column
    splits: dict[str, str],  # Of all cells of the column, as of `splits_of_cells`
) -> tuple[str | None, str]:  # (split, problem)
    "Return the split that a cell stands for."
    if normalize_name(column) not in SPLITS_BY_TRUTH:
        problem = f'{cell!r} in column {column}: expected train, valid or test'
        return splits.get(cell), '' if cell in splits else problem
    if_true, if_false = SPLITS_BY_TRUTH[normalize_name(column)]
    value = cell.lower().removesuffix('.0')
    if value in TRUE:
        return if_true, ''
    if value in FALSE:
        return if_false, ''
    return None, f'{cell!r} in column {column}: expected true or false, or 1 or 0'
