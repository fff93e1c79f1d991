"Read the files of a run directory, with their checksums verified. Imports no torch."

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

from kdfast.core.atomic import unescape_csv_cell
from kdfast.core.errors import KdfastError

OF_CLASSIFIERS = 'predictions.npz', 'confusion.csv'  # of runs of earlier versions, too, which list no files
STATES = 'running', 'finished', 'interrupted', 'failed', 'diverged'
ENTRIES = dict(  # of run.json, whose types commands rely on
    arguments=dict,
    files=dict,
    images=dict,
    packages=dict,
    versions=dict,
    sources=dict,
    stands_on=(list, dict),
    changed=list,
    recipe=str,
    reason=str,
    format=int,
    threads=int,
)
RESULTS = dict(recipe=str, data=str, seed=int, teacher_sha256=(str, type(None)))  # of every result.json
TRACES = 'recipe.py', 'result.json', 'weights.safetensors', 'metrics.csv', 'resume'  # of a run that lost its run.json
NO_RECORD = 'move it away and run it again, or put run.json back'
DAMAGE = (ValueError, KeyError, TypeError, EOFError, RecursionError, BadZipFile, csv.Error)  # why parsing fails
NO_CLASSES = 'its recipe classifies nothing'  # why a run may lack predictions.npz and confusion.csv


class MissingFile(KdfastError):
    "A finished run has lost a file."

    reason = 'a file is missing'


class RunFiles:
    "The files of a run directory, `<runs>/<data>/<recipe>/<seed>`."

    def __init__(
        self,
        path: Path,  # The directory; it may not exist yet
    ):
        self.path = Path(path)

    def __str__(self):
        return str(self.path)

    def __truediv__(self, name):
        return self.path / name

    @property
    def data(self) -> str:
        "The name of the data set."
        return self.path.parent.parent.name if is_seed(self.path.name) else self.result['data']

    @property
    def recipe(self) -> str:
        "The name of the recipe, followed by the arguments that are not its defaults."
        return self.path.parent.name if is_seed(self.path.name) else self.result['recipe']

    @property
    def seed(self) -> int:
        "The seed: the name of the directory or, of a copy under another name, that of its result."
        return int(self.path.name) if is_seed(self.path.name) else self.result['seed']

    def parsed(
        self,
        name: str,  # Of a file
        parse: Callable,  # From bytes to any value
        missing: str = 'this run is not finished',  # Why the file may be missing
    ):  # What `parse` returns
        "Read and parse a file. Raises KdfastError if it is missing, damaged or changed."
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError:
            if self.had(name):
                raise MissingFile(f'{self.path / name} is missing: remove {self} and run it again') from None
            raise KdfastError(f'{self} has no {name}: {missing}') from None
        except OSError as e:
            raise KdfastError(
                f'{self.path / name} cannot be read ({e.strerror}): make it a readable file, or remove {self}'
            ) from None
        if name != 'run.json' and self.files.get(name) not in (None, hashlib.sha256(content).hexdigest()):
            raise KdfastError(f'{self.path / name} has changed since it was written: remove {self} and run it again')
        try:
            return parse(content)
        except DAMAGE as e:
            raise KdfastError(f'{self.path / name} is damaged ({e}): remove {self} and run it again') from e

    def had(
        self,
        name: str,  # Of a file
    ) -> bool:
        "Return whether the run has written a file, which may be gone, as run.json and result.json say."
        if name == 'run.json':
            return False
        if name in self.files:
            return True
        result = self.result if name in OF_CLASSIFIERS and (self.path / 'result.json').is_file() else {}
        return result.get('valid_accuracy') is not None or (name == 'predictions.npz' and 'label_counts' in result)

    @property
    def run(self) -> dict:
        "The content of run.json: what was requested, the state of the run, its files."
        return self.parsed('run.json', parse_record, NO_RECORD)

    @property
    def flaw(self) -> str:
        "Why run.json does not tell the state of the run, and what to do; empty if it does."
        try:
            self.run  # noqa: B018 (is read and checked)
        except KdfastError as e:
            return e.message
        return ''

    @property
    def result(self) -> dict:
        "The content of result.json: the numbers of a finished run."
        return self.parsed('result.json', parse_result)

    @property
    def files(self) -> dict[str, str]:
        "SHA-256 of every file of a finished run, by name."
        return self.run.get('files', {})

    def confusion(self) -> tuple[list[str], list[list[int]]]:
        "Return the class names and the confusion matrix: rows are actual, columns predicted classes."

        def parse(content):
            header, *rows = csv.reader(io.StringIO(content.decode()))
            return [unescape_csv_cell(name) for name in header[1:]], [[int(n) for n in row[1:]] for row in rows]

        return self.parsed('confusion.csv', parse, NO_CLASSES)

    def metrics(
        self,
        name: str = 'metrics.csv',  # Or steps.csv
    ) -> list[dict[str, str]]:  # Text by column
        "Return the rows that a CSV file holds so far."
        if not (self.path / name).exists():
            return []
        return self.parsed(name, lambda content: list(csv.DictReader(io.StringIO(content.decode()))))

    def correct(self) -> list[bool]:
        "Return whether each validation image is classified correctly, in the order of the data set."
        predictions = self.arrays('predictions.npz')
        return (predictions['actual'] == predictions['predicted']).tolist()

    def arrays(
        self,
        name: str,  # predictions.npz or confused.npz
    ) -> dict:
        """Return the arrays of a file by name.

        predictions.npz holds the actual and the predicted class of each validation image, or (images, labels) of 0 and
        1, and up to 10 million logits.
        """
        import numpy as np

        def parse(content):
            with np.load(io.BytesIO(content)) as stored:
                return {name: stored[name] for name in stored.files}

        return self.parsed(name, parse, NO_CLASSES)


def parse_object(
    content: bytes,  # JSON
) -> dict:
    "Parse a JSON object. Raises ValueError for any other content."
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError('it holds no object')
    return found


def parse_record(
    content: bytes,  # Of run.json
) -> dict:
    "Parse run.json. Raises ValueError for an unknown state, and for entries of other types."
    found = parse_object(content)
    if (state := found.get('status')) not in STATES:
        raise ValueError(f'unknown state {state}' if state else 'unknown state')
    check_types(found, {name: kind for name, kind in ENTRIES.items() if found.get(name) is not None})
    return found


def parse_result(
    content: bytes,  # Of result.json
) -> dict:
    "Parse result.json. Raises ValueError if it lacks what every run has."
    found = parse_object(content)
    check_types(found, RESULTS)
    return found


def check_types(
    found: dict,  # Content of a file
    kinds: dict,  # Types of the entries that it must have
):
    "Raise ValueError for an entry that is missing, or of another type."
    for name, kind in kinds.items():
        if name not in found or not isinstance(found[name], kind):
            raise ValueError(f'{name} is {"wrong" if name in found else "missing"}')


def is_run_place(
    path: Path,  # Of a directory
) -> bool:
    "Return whether a directory is that of a run, also of one that has lost its run.json."
    return is_seed(path.name) and any(os.path.lexists(path / name) for name in ('run.json', *TRACES))


def find_run_places(
    root: Path,  # A directory of runs, or any other path
) -> list[Path]:
    "Return all directories of runs below a path, and those elsewhere that hold a run.json."
    walked = ((Path(folder), {*folders, *files}) for folder, folders, files in os.walk(root))
    return sorted(
        folder for folder, found in walked if 'run.json' in found or is_seed(folder.name) and found & {*TRACES}
    )


def is_seed(
    name: str,  # Of a directory
) -> bool:
    "Return whether a directory is called as that of a run: 0, 1, 2, …; 00 is a copy of another name."
    return name.isascii() and name.isdecimal() and (name == '0' or name[0] != '0')
