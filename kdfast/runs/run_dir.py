"A run's folder: where it lies, how it starts and ends, what it holds, and how it is found again. Imports no torch."

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from zipfile import BadZipFile

from filelock import FileLock, Timeout

from kdfast.core import distributed
from kdfast.core.atomic import as_it_was, remove_half_written, sha256, write, write_json
from kdfast.core.errors import KdfastError, Locked

FORMAT = (
    2  # of run.json; 1 named what a run was built on by recipe, so that a second teacher took the place of the first
)
CIRCUMSTANCES = {
    'recipe',
    'recipe_sources',
    'sources',
    'packages',
    'versions',
    'device',
    'machine',
    'threads',
    'processes',
}  # none decides what is trained on what
GOES_ON = 'running', 'interrupted', 'failed', 'diverged'  # whatever ended it, its checkpoints serve
NAME = re.compile(r'[\w=+,-][\w=+,. -]{0,199}')


class RunDir:
    """One run's folder, `<runs>/<data>/<recipe>/<seed>`.

    run.json is what was asked, how it stands (running, finished, interrupted, failed, diverged), and in the end every file's SHA-256;
    result.json, the numbers of a finished run; resume, the checkpoints of an unfinished one; metrics.csv and steps.csv,
    the curves; recipe.py, weights.safetensors, predictions.npz, confused.npz and confusion.csv, the rest. Every file is written whole.
    """

    def __init__(
        self,
        path: Path,  # The folder
    ):
        self.path = Path(path)

    def __str__(self):
        return str(self.path)

    def __truediv__(self, name):
        return self.path / name

    @property
    def data(self):
        return self.path.parent.parent.name

    @property
    def recipe(self):
        return self.path.parent.name

    @property
    def seed(self):
        return int(self.path.name)

    def parsed(
        self,
        name: str,  # Of a file
        parse: Callable,  # Makes something of its bytes
        missing: str = 'this run is not finished',  # Why it may not be there
    ):
        "What is in a file of this run. Raises KdfastError where it is missing, not as the finished run wrote it, or not to be understood."
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError:
            raise KdfastError(f'{self} has no {name}: {missing}') from None
        if name != 'run.json' and self.files.get(name) not in (None, hashlib.sha256(content).hexdigest()):
            raise KdfastError(f'{self.path / name} is not as it was written: remove {self} and run it again')
        try:
            return parse(content)
        except (ValueError, KeyError, TypeError, EOFError, BadZipFile, csv.Error) as e:
            raise KdfastError(f'{self.path / name} is damaged ({e}): remove {self} and run it again') from e

    @property
    def run(self):
        return self.parsed('run.json', parse_object)

    @property
    def result(self):
        return self.parsed('result.json', parse_object)

    @property
    def files(self):
        "SHA-256 of every file, by name, of a finished run"
        return self.run.get('files', {})

    @property
    def status(self):
        "How it stands; None before it began. A run that says `running`, and whose process is gone, was interrupted"
        said = self.run.get('status') if (self.path / 'run.json').exists() else None
        return 'interrupted' if said == 'running' and not self.held else said

    @property
    def finished(self):
        return self.status == 'finished'

    def confusion(self):
        "Class names and the confusion matrix: rows are actual, columns predicted"

        def parse(content):
            header, *rows = csv.reader(io.StringIO(content.decode()))
            return [as_it_was(name) for name in header[1:]], [[int(n) for n in row[1:]] for row in rows]

        return self.parsed('confusion.csv', parse, 'its recipe classifies nothing')

    def metrics(self, name='metrics.csv'):
        "The rows of metrics.csv or steps.csv so far, as text"
        if not (self.path / name).exists():
            return []
        return self.parsed(name, lambda content: list(csv.DictReader(io.StringIO(content.decode()))))

    def right(self):
        "Whether the run has each validation image right, in the order of the data set"
        predictions = self.arrays('predictions.npz')
        return (predictions['actual'] == predictions['predicted']).tolist()

    def arrays(self, name):
        """What is in confused.npz or predictions.npz.

        The latter: actual and predicted class of the validation images, and up to 10 million logits.
        """
        import numpy as np

        def parse(content):
            with np.load(io.BytesIO(content)) as kept:
                return {name: kept[name] for name in kept.files}

        return self.parsed(name, parse, 'its recipe classifies nothing')

    @property
    def lock(self):
        return self.path.with_name(f'.{self.path.name}.lock')

    @property
    def held(self):
        "Whether a process trains this run"
        if not self.lock.exists():
            return False
        try:
            with FileLock(self.lock, timeout=0):
                return False
        except Timeout:
            return True

    @contextmanager
    def locked(self):
        """Keep other processes from writing this run. Raises Locked, naming the holder, where one does already.

        The lock is the kernel's, beside the folder: it ends with its process, however that ends.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = (
            FileLock(self.lock, timeout=0.5) if not distributed.rank else nullcontext()
        )  # the first holds it for all that train together
        try:
            with lock:
                yield  # who only asks whether it is `held` holds it for microseconds
        except Timeout:
            holder = self.run if self.status else {}
            if (holder.get('pid'), holder.get('host')) == (os.getpid(), platform.node()):
                raise KdfastError(f'{self} is being trained already: its recipe needs itself') from None
            raise Locked(
                f'{self} is being trained by process {holder.get("pid", "unknown")} on {holder.get("host", "this machine")}: '
                'wait for it, or stop it'
            ) from None

    def start(self, facts: dict, source: str) -> dict:  # What is on record from now on
        "Begin, or go on from what an unfinished run left here; where that holds no checkpoint, it is removed"
        goes_on = {}
        if self.path.exists():
            self.check_ours()
            goes_on = self.goes_on(facts, source)
            if not goes_on:
                self.remove()
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (self.path, self.path / 'resume'):
            remove_half_written(path)
        self.facts = dict(
            format=FORMAT,
            **facts,
            **goes_on or dict(changed=[], stands_on=[]),
            pid=os.getpid(),
            host=platform.node(),
            started=utc_now(),
        )
        self.set('running')
        write(self.path / 'recipe.py', source)
        return self.facts

    def remove(self):
        "In one step, whatever ends this process"
        aside = self.path.with_name(f'.{self.path.name}.removed')
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.path, aside)
        shutil.rmtree(aside)

    def check_ours(self):
        "Raise KdfastError for a folder that no run of this kdfast made: it is not to be removed"
        if not self.status and [file.name for file in self.path.iterdir() if not file.name.startswith('.run.json.')]:
            raise KdfastError(f'{self} is not the folder of a run, for it has no run.json: move it away, or use --runs')
        if self.status and self.run.get('format', FORMAT) > FORMAT:
            raise KdfastError(f'{self} was made by a newer kdfast: update, or use --runs')

    @property
    def has_checkpoints(self):
        "Whether an unfinished run left something to go on from"
        return any((self.path / 'resume').glob('[!.]*'))

    def goes_on(self, facts, source):
        """What goes on of an unfinished run that left checkpoints here; nothing where none did.

        Raises KdfastError where it was another one, for it could not end with the same bits. Other software and hardware is let pass
        where the user has taken recipe.py away, and stays on record.
        """
        if not self.has_checkpoints or self.run['status'] not in GOES_ON:
            return {}
        from kdfast.runs.upstream_paths import rebased_entries  # which knows this module

        was, file = self.run, self.path / 'recipe.py'
        changed = {
            name: '{} was {}, is {}'.format(name, *differing_values(was.get(name), value))
            for name, value in facts.items()
            if was.get(name) != value
        }
        if file.exists() and file.read_text() != source:
            changed['recipe'] = 'its recipe is another version'
        may_pass = changed.keys() <= CIRCUMSTANCES
        if changed and (file.exists() or not may_pass):
            nevertheless = f'; remove {file} to go on nevertheless, which will be on record' if may_pass else ''
            raise KdfastError(
                f'{self} was {self.status} and cannot go on: {"; ".join(changed.values())}. Its checkpoints are kept: '
                f'change that back to go on{nevertheless}; move the folder away to start over'
            )
        if not file.exists():
            changed.setdefault('recipe', 'its recipe may be another version')
        return dict(changed=[*was.get('changed', []), *changed.values()], stands_on=rebased_entries(self))

    def set(self, status: str, **more):
        "Put the run's state on record"
        self.facts |= dict(status=status, **more)
        write_json(self.path / 'run.json', self.facts)

    def finish(self, result: dict):
        "The numbers first; the word `finished`, with the SHA-256 of every file, last"
        write_json(self.path / 'result.json', result)
        files = sorted(
            file
            for pattern in ('*', 'source/**/*')
            for file in self.path.glob(pattern)
            if file.is_file() and file.name != 'run.json'
        )
        self.set(
            'finished',
            finished=utc_now(),
            files={file.relative_to(self.path).as_posix(): sha256(file) for file in files},
        )
        shutil.rmtree(self.path / 'resume', ignore_errors=True)

    def problems(self) -> list[str]:
        "What is wrong with this run, in plain words: that it is not finished, files that are missing or not as they were written"
        if not self.finished:
            return [f'it is {self.status}, not finished']
        files = self.files
        missing = [f'{name} is missing' for name in files if not (self.path / name).is_file()]
        return missing + [
            f'{name} is not as it was written'
            for name, was in files.items()
            if (self.path / name).is_file() and sha256(self.path / name) != was
        ]


def differing_values(was, value):
    "Two values as they are; of two dictionaries what differs; of a SHA-256 its beginning"
    if isinstance(was, dict) and isinstance(value, dict):
        pairs = {
            key: differing_values(was.get(key), value.get(key))
            for key in sorted(was.keys() | value.keys())
            if was.get(key) != value.get(key)
        }
        return tuple({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
    return tuple(one[:8] if isinstance(one, str) and re.fullmatch('[0-9a-f]{64}', one) else one for one in (was, value))


def parse_object(content):
    "A JSON object"
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError('it holds no object')
    return found


def utc_now():
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def locate_run(
    runs: Path,  # Where runs are kept
    data: str,  # Name of the data set
    recipe: str,  # Name of the recipe, with the arguments that are not its defaults
    seed: int,
) -> RunDir:
    "Where that run lies. Raises KdfastError for a name that would lead elsewhere."
    for name in (data, recipe):
        if not NAME.fullmatch(name):
            raise KdfastError(
                f'{name!r} cannot name a folder of runs: expected up to 200 letters, digits, spaces and any of . _ - = + , and no dot in front'
            )
    return RunDir(Path(runs) / data / recipe / str(seed))
