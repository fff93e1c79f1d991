"Rows of a table: comma- and tab-separated text, JSON and JSON lines, a pandas DataFrame; cells as text."

import csv
import io
import json
from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError
from kdfast.data.archives import read_file

SUFFIXES = ('.csv', '.tsv', '.jsonl', '.ndjson', '.json', '.txt')
DELIMITERS = ',;\t|'
SEVERAL = '\x1f'  # between the labels of a list


class Table(NamedTuple):
    "A table as text."

    where: str  # What errors call it
    header: list[str]  # Names of its columns
    rows: list  # (number, cells), the number as errors say it
    row: str = 'line'  # What a row is called


def read_table(
    where: str,  # What errors call it
    name: str,  # Of the file
    open_file,  # Opens it
) -> Table:
    "The rows of a file. Raises KdfastError, naming the line, where it is no table."
    text = text_of(where, open_file)
    suffix = PurePosixPath(name).suffix.lower()
    return from_json(where, text, suffix) if suffix.startswith(('.json', '.ndjson')) else from_text(where, text)


def text_of(where, open_file):
    content = read_file(open_file)
    if isinstance(content, Exception):
        raise KdfastError(f'{where} cannot be read ({content})') from content
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        raise KdfastError(
            f'{where}, line {content.count(10, 0, e.start) + 1}: not UTF-8 ({e.reason}): save it as UTF-8'
        ) from e


def read_lines(where, open_file):
    "(number, text) of the lines of a file that are not empty and no comments"
    return [
        (number, line.strip())
        for number, line in enumerate(text_of(where, open_file).splitlines(), 1)
        if line.strip() and not line.startswith('#')
    ]


def from_text(where, text):
    "Separated by what separates most in the first line that is not empty"
    first = next((line for line in text.splitlines() if line.strip()), '')
    delimiter = max(DELIMITERS, key=first.count) if any(map(first.count, DELIMITERS)) else ' '  # of lists
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        rows = [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
    except csv.Error as e:
        raise KdfastError(f'{where}, line {reader.line_num}: {e}') from e
    (_, header), *rows = rows or [(1, [])]
    return Table(where, header, rows)


def from_json(where, text, suffix):
    "A list of objects, an object a line, or an object of names and labels"
    records = (
        [(1, text)]
        if suffix == '.json'
        else [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    )
    found = []
    for number, record in records:
        try:
            found.append((number, json.loads(record)))
        except json.JSONDecodeError as e:
            raise KdfastError(f'{where}, line {number + e.lineno - 1}: no JSON ({e.msg})') from e
    if suffix == '.json':
        ((_, whole),) = found
        found = (
            [(n, dict(name=name, label=label)) for n, (name, label) in enumerate(whole.items(), 1)]
            if isinstance(whole, dict)
            else list(enumerate(whole, 1))
            if isinstance(whole, list)
            else found
        )
    wrong = next((n for n, record in found if not isinstance(record, dict)), None)
    if wrong:
        raise KdfastError(f'{where}, line {wrong}: expected an object with a name and a label')
    return of_records(where, found)


def of_records(where, records, row='line'):
    header = list(dict.fromkeys(key for _, record in records for key in record))
    return Table(
        where, header, [(number, [cell(record.get(key)) for key in header]) for number, record in records], row
    )


def frame_table(
    where: str,  # What errors call it
    frame,  # A pandas DataFrame
) -> Table:
    "The rows of a DataFrame; rows are called by their index."
    return of_records(
        where,
        [
            (index, dict(zip(map(str, frame.columns), values)))
            for index, values in zip(frame.index, frame.itertuples(index=False, name=None))
        ],
        'row',
    )


def cell(value):
    "A value as a table of text would have it"
    if value is None or isinstance(value, float) and value != value:
        return ''
    if hasattr(value, 'item') and not getattr(value, 'shape', ()):
        value = value.item()  # of NumPy
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (list, tuple)):
        return SEVERAL.join(map(cell, value))
    return str(value).strip()
