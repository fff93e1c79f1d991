"Read the files of a run directory, with their checksums verified. Imports no torch."

import csv
import hashlib
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

from kdfast.core.atomic import unescape_csv_cell
from kdfast.core.errors import KdfastError
from kdfast.runs.records import parse_record, parse_result

OF_CLASSIFIERS = 'predictions.npz', 'confusion.csv'  # of runs of earlier versions, too, which list no files
TRACES = 'recipe.py', 'result.json', 'weights.safetensors', 'metrics.csv', 'resume'  # of a run that lost its run.json
NO_RECORD = 'move it away and run it again, or put run.json back'
DAMAGE = (ValueError, KeyError, TypeError, EOFError, RecursionError, BadZipFile, csv.Error)  # why parsing fails
NO_CLASSES = 'its recipe classifies nothing'  # why a run may lack predictions.npz and confusion.csv


class DamagedFile(KdfastError):
    "A file of a finished run is missing, or not as it was written."

    reason = 'a file is damaged'

    def __init__(
        self,
        message: str,  # One line
        problem: str = '',  # The same without the directory and what to do
    ):
        super().__init__(message)
        self.problem = problem


class MissingFile(DamagedFile):
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
        "Read and parse a file. Raises DamagedFile, and KdfastError for a file that the run never had."
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError:
            if self.had(name):
                raise MissingFile(*self.refusal(name, 'is missing')) from None
            kind = partial(DamagedFile, problem=f'it has no {name}') if name == 'run.json' else KdfastError
            raise kind(f'{self} has no {name}: {missing}') from None
        except OSError as e:
            what_to_do = f'make it a readable file, or remove {self}'
            raise DamagedFile(*self.refusal(name, f'cannot be read ({e.strerror})', what_to_do)) from None
        if name != 'run.json' and self.files.get(name) not in (None, hashlib.sha256(content).hexdigest()):
            raise DamagedFile(*self.refusal(name, 'has changed since it was written'))
        try:
            return parse(content)
        except DAMAGE as e:
            why = e if content.strip() else 'it is empty'
            raise DamagedFile(*self.refusal(name, f'is damaged ({why})')) from e

    def refusal(
        self,
        name: str,  # Of a file
        problem: str,  # What is wrong with it
        what_to_do: str = '',  # Default: train the run again
    ) -> tuple[str, str]:
        "Return message and problem of a DamagedFile."
        return f'{self.path / name} {problem}: {what_to_do or f"remove {self} and run it again"}', f'{name} {problem}'

    def problem(
        self,
        name: str,  # Of a file
    ) -> str:
        "Return what is wrong with a file; empty if it is whole, or if the run never had it."
        if name != 'run.json' and not (self.path / name).exists():
            return f'{name} is missing' if self.had(name) else ''
        readers = {
            'run.json': lambda: self.run,
            'result.json': lambda: self.result,
            'recipe.py': lambda: self.parsed(name, bytes.decode),
            'confusion.csv': self.confusion,
            'metrics.csv': self.metrics,
            'steps.csv': lambda: self.metrics(name),
        }
        try:
            readers.get(name, lambda: self.arrays(name))()
        except DamagedFile as e:
            return e.problem
        return ''

    def has(
        self,
        name: str,  # Of a file
    ) -> bool:
        "Return whether a file is there, as it was written."
        return (self.path / name).is_file() and not self.problem(name)

    def had(
        self,
        name: str,  # Of a file
    ) -> bool:
        "Return whether the run has written a file, which may be gone, as run.json and result.json say."
        if name in ('run.json', 'result.json'):
            return name == 'result.json' and self.run['status'] == 'finished'
        if name in self.files:
            return True
        result = self.result if name in OF_CLASSIFIERS and (self.path / 'result.json').is_file() else {}
        return result.get('valid_accuracy') is not None or (name == 'predictions.npz' and 'label_counts' in result)

    @property
    def run(self) -> dict:
        "The content of run.json: what was requested, the state of the run, its files."

        def parse(content):
            record = parse_record(content)
            if is_seed(self.path.name) and record.get('seed') not in (None, int(self.path.name)):
                raise ValueError(f'it is the record of seed {record["seed"]}, as in a copy')
            return record

        return self.parsed('run.json', parse, NO_RECORD)

    @property
    def flaw(self) -> str:
        "Why run.json or, of a finished run, result.json cannot be used, and what to do; empty if both can."
        try:
            if self.run['status'] == 'finished':
                self.result  # noqa: B018 (is read and checked)
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
