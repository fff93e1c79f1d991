"Choose the column of a table that names images: file names rather than numbers, which may be those of rows."

import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import PurePosixPath

from kdfast.data.formats import image_suffixes

# Usual names of columns, the likeliest first
NAME_COLUMNS = tuple(
    'name fname file filename file_name filenames files image images img imgs image_id img_id image_name imagename '
    'img_name image_file image_filename image_path img_path path paths filepath file_path filepaths picture photo '
    'id id_code uid'.split()
)
UNCLEAR_NAMES = ('id', 'id_code', 'uid')  # may also be of rows or patients
ROW_NUMBERS = re.compile(r'|index|level_0|Unnamed: \d+')  # columns that pandas writes for the index


class Match(IntEnum):
    "How the cells of a column match images, the best last."

    NONE = 0
    SOME_NUMBERS = 1  # or numbers that repeat, such as those of classes
    SOME = 2
    NUMBERS = 3  # different numbers, most of which are names of images without their suffix
    NAMES = 4  # most are names of images without their suffix
    FILES = 5  # most are names of files


def normalize_name(
    column: str,  # Name of a column
) -> str:
    "Return the name in lower case, with an underscore for everything but letters and digits."
    return re.sub(r'[^a-z0-9]+', '_', column.lower()).strip('_')


def has_row_numbers(
    column: str,  # Name of a column
) -> bool:
    "Return whether a column has the name of an index of pandas."
    return bool(ROW_NUMBERS.fullmatch(column))


def choose_name_column(
    columns: dict[int, str],  # Names of the columns to choose from
    cells: dict[int, list[str]],  # Their cells in the first rows
    find: Callable,  # Return the image that a cell names, or nothing
) -> list[int]:  # Empty if there is none; several if the choice is not clear
    "Return the column whose cells match images best; of equal ones that with the likeliest name."
    names = {i: normalize_name(column) for i, column in columns.items()}
    known = {i: NAME_COLUMNS.index(name) for i, name in names.items() if name in NAME_COLUMNS}
    matches = {i: _match(cells[i], find) for i in columns}
    for i in columns if known else ():
        if matches[i] == Match.SOME_NUMBERS and i not in known:
            matches[i] = Match.NONE  # rather labels, beside names of images that are missing

    def rank(i):
        return -matches[i], known.get(i, len(NAME_COLUMNS)), has_row_numbers(columns[i])

    best = min(columns, key=rank, default=None)
    if best is None or not matches[best] and best not in known:
        return []
    if matches[best] not in (Match.SOME_NUMBERS, Match.NUMBERS):
        return [best]
    is_clear = best in known and names[best] not in UNCLEAR_NAMES
    images = [find(cell) for cell in cells[best]]

    def is_rival(i):
        if i == best or has_row_numbers(columns[i]):
            return False
        if i in known and (_are_files(cells[i]) or best not in known):
            return True
        differs = matches[i] == Match.NUMBERS and [find(cell) for cell in cells[i]] != images
        return not is_clear and (differs or _are_files(cells[i]))

    return [best, *filter(is_rival, columns)]


def _match(cells, find):
    "How the cells of a column match images"
    found = [cell for cell in cells if find(cell)]
    if not found:
        return Match.NONE
    are_numbers, are_most = all(map(str.isdigit, found)), 2 * len(found) >= len(cells)
    if are_numbers:
        return Match.NUMBERS if are_most and len(set(cells)) == len(cells) else Match.SOME_NUMBERS
    if not are_most:
        return Match.SOME
    return Match.FILES if _are_files(found) else Match.NAMES


def _are_files(cells):
    "Whether most cells end like names of image files, and are no addresses"
    named = [cell for cell in cells if '://' not in cell and PurePosixPath(cell).suffix.lower() in image_suffixes()]
    return 2 * len(named) > len(cells)
