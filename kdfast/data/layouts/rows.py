"Read tables as text: comma- and tab-separated files, JSON and JSON lines, pandas DataFrames."

import csv
import io
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError
from kdfast.data.files import read_file
from kdfast.data.labels import is_missing

SUFFIXES = ('.csv', '.tsv', '.jsonl', '.ndjson', '.json', '.txt')
DELIMITERS = ',;\t|'
BOMS = BOM_UTF16_LE, BOM_UTF16_BE  # begin a text that Excel saves as "Unicode Text"
LIST_SEPARATOR = '\x1f'  # between the labels of a list


class Table(NamedTuple):
    "A table as text."

    where: str  # Name of the table in errors
    header: list[str]  # Names of the columns
    rows: list  # (number, cells); errors name a row by its number
    row: str = 'line'  # What errors call a row


def is_table(
    path: Path,  # A file
) -> bool:
    "Return whether a file is a table, by its suffix."
    return path.suffix.lower() in SUFFIXES


def read_table(
    where: str,  # Name of the table in errors
    name: str,  # Of the file
    open_file: Callable,  # Return the file, opened for binary reading
) -> Table:
    "Read a table from a file. Raises KdfastError, with the line, for text that is not a table."
    text = _read_text(where, open_file)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == '.json':
        return _from_records(where, _json_records(where, text))
    if suffix.startswith(('.json', '.ndjson')):
        return _from_records(where, _json_lines_records(where, text))
    return _from_delimited_text(where, text)


def problems_by_kind(
    problems: list[tuple[str, str, str]],  # Of each wrong row: its number in words, what is wrong, the image it names
) -> list[str]:
    "Return the first row of each kind of problem, with the number of such rows."
    kinds = defaultdict(list)
    for row, problem, name in problems:
        kind = problem.replace(repr(name), '').replace(name, '') if name else problem
        kinds[kind].append(f'{row}: {problem}')
    return [first + (f' ({1 + len(more):,} such rows)' if more else '') for first, *more in kinds.values()]


def read_lines(
    where: str,  # Name of the file in errors
    open_file: Callable,  # Return the file, opened for binary reading
) -> list[tuple[int, str]]:  # (line number, text)
    "Read the lines of a text file, without empty lines and comments."
    return [
        (number, line.strip())
        for number, line in enumerate(_lines(_read_text(where, open_file)), 1)
        if line.strip() and not line.startswith('#')
    ]


def _read_text(where, open_file):
    content = read_file(open_file)
    if isinstance(content, Exception):
        raise KdfastError(f'cannot read {where} ({content})') from content
    codec, name = ('utf-16', 'UTF-16') if content.startswith(BOMS) else ('utf-8-sig', 'UTF-8')
    try:
        text, reason, cause = content.decode(codec), 'it has a NUL', None
    except UnicodeDecodeError as e:
        text, reason, cause = content[: e.start].decode(codec, 'ignore') + '\0', e.reason, e
    before, nul, _ = text.partition('\0')  # as of UTF-16 and UTF-32 that do not begin as expected
    if not nul:
        return text
    remedy = 'save it as UTF-8, in Excel as "CSV UTF-8"'
    raise KdfastError(f'{where}, line {before.count(chr(10)) + 1}: not {name} ({reason}): {remedy}') from cause


def _lines(text):
    "Lines as files have them: `str.splitlines` also ends them at characters within a text, such as U+2028"
    return io.StringIO(text, newline=None)


def _from_delimited_text(where, text):
    "The delimiter is the one that occurs most in the first line that is not empty"
    first = next((line for line in _lines(text) if line.strip()), '')
    delimiter = max(DELIMITERS, key=first.count) if any(map(first.count, DELIMITERS)) else ' '  # lists have spaces
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as e:
        raise KdfastError(f'{where}, line {reader.line_num}: {e}') from e
    (_, header), *rows = rows or [(1, [])]
    return Table(where, header, rows)


def _json_records(where, text):
    "(number, value) of each row: of a list of objects, or of an object that maps names to labels"
    content = _parse_json(where, text, 1)
    if isinstance(content, dict):
        return [(n, dict(name=name, label=label)) for n, (name, label) in enumerate(content.items(), 1)]
    return list(enumerate(content, 1)) if isinstance(content, list) else [(1, content)]


def _json_lines_records(where, text):
    "(line number, value) of each line that is not empty"
    return [(number, _parse_json(where, line, number)) for number, line in enumerate(_lines(text), 1) if line.strip()]


def _parse_json(where, text, line):
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise KdfastError(f'{where}, line {line + e.lineno - 1}: not JSON ({e.msg})') from e


def _from_records(where, records, row='line'):
    "A table whose columns are all the keys of the records"
    wrong = next((number for number, record in records if not isinstance(record, dict)), None)
    if wrong:
        raise KdfastError(f'{where}, line {wrong}: expected an object with a name and a label')
    header = list(dict.fromkeys(key for _, record in records for key in record))
    rows = [(number, [_to_cell(record.get(key)) for key in header]) for number, record in records]
    return Table(where, header, rows, row)


def read_frame(
    where: str,  # Name of the table in errors
    frame,  # A pandas DataFrame
) -> Table:
    "Return a DataFrame as a table whose rows are numbered by the index."
    names = [str(column) for column in frame.columns]
    records = [
        (index, dict(zip(names, values)))
        for index, values in zip(frame.index, frame.itertuples(index=False, name=None))
    ]
    return _from_records(where, records, 'row')


def _to_cell(value):
    "The text that a delimited file would have for a value"
    if is_missing(value):
        return ''
    if hasattr(value, 'tolist'):
        value = value.tolist()  # a scalar or an array of NumPy
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(map(_to_cell, value))
    if isinstance(value, (list, tuple)):
        return LIST_SEPARATOR.join(map(_to_cell, value))
    return str(value).strip()
