"The directory of a run: its state, its lock, how a run starts and ends. Imports no torch."

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from kdfast.core import distributed
from kdfast.core.atomic import remove_half_written, sha256, write, write_json
from kdfast.core.errors import KdfastError, Locked
from kdfast.core.file_lock import is_held
from kdfast.runs import resume_check
from kdfast.runs.run_files import RunFiles

FORMAT = 2  # of run.json; format 1 had one upstream run per recipe, so that a second teacher replaced the first
NAME = re.compile(r'[\w=+,-][\w=+,. -]{0,199}')


class RunDir(RunFiles):
    """One run's directory, `<runs>/<data>/<recipe>/<seed>`.

    - run.json: what was requested, the state (running, finished, interrupted, failed, diverged) and, at the end, the
      SHA-256 of every file
    - result.json: the numbers of a finished run
    - resume: the checkpoints of an unfinished run
    - metrics.csv, steps.csv: the curves
    - recipe.py, weights.safetensors, predictions.npz, test_predictions.npz, confused.npz, confusion.csv; labels.csv
      instead of the last two if images have several labels

    Files are written atomically.
    """

    @property
    def status(self) -> str | None:
        """The state; None before the start, and if `flaw` says why it, or the result, is unknown.

        A run that is recorded as running, and whose process is gone, was interrupted.
        """
        if self.flaw:
            return None
        recorded = self.run['status']
        return 'interrupted' if recorded == 'running' and not self.is_locked else recorded

    @property
    def finished(self) -> bool:
        "Whether the run has finished."
        return self.status == 'finished'

    @property
    def has_checkpoints(self) -> bool:
        "Whether the run is unfinished and has left checkpoints."
        return resume_check.has_checkpoints(self)

    # Lock

    @property
    def lock(self) -> Path:
        "The lock file, beside the directory."
        return self.path.with_name(f'.{self.path.name}.lock')

    @property
    def is_locked(self) -> bool:
        "Whether a process is training this run."
        return is_held(self.lock)

    @contextmanager
    def locked(
        self,
        wait: bool = False,  # Whether to wait as long as another process holds it
    ) -> Iterator[None]:
        """Hold the lock of this run. Raises Locked, naming the process, if another process holds it.

        The operating system releases the lock when its process ends, however it ends.
        """
        if distributed.rank:  # rank 0 holds it for all
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0.5)  # seconds: `is_locked` of another process is in the way for microseconds
        except Timeout:
            self.check_holder(wait)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def check_holder(
        self,
        wait: bool,  # Whether another process may hold the lock
    ):
        "Raise KdfastError if this process holds the lock, and Locked, unless `wait`, if another one does."
        holder = self.run if self.status else {}
        pid, host = holder.get('pid', 'unknown'), holder.get('host', 'this machine')
        if (holder.get('pid'), holder.get('host')) == (os.getpid(), platform.node()):
            raise KdfastError(f'{self} is being trained already: its recipe needs itself')
        if not wait:
            raise Locked(f'{self} is being trained by process {pid} on {host}: wait for it, or stop it')

    # Start and end

    def start(
        self,
        config: dict,  # What decides the result, by key of run.json
        source: str,  # Of the recipe
    ) -> dict:  # The content of run.json
        """Start or resume the run.

        Without checkpoints, what an earlier start has left is removed. Raises KdfastError if the run cannot be resumed,
        or if the directory is not that of a run.
        """
        resumed = {}
        if self.path.exists():
            self.check_is_run_dir()
            resumed = resume_check.resume_record(self, self.status, config, source)
            if not resumed:
                self.remove()
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (self.path, self.path / 'resume'):
            remove_half_written(path)
        self.record = dict(
            format=FORMAT,
            **config,
            **resumed or dict(changed=[], stands_on=[]),
            pid=os.getpid(),
            host=platform.node(),
            started=utc_now(),
        )
        self.set_status('running')
        write(self.path / 'recipe.py', source)
        return self.record

    def check_is_run_dir(self):
        "Raise KdfastError for a directory that this version of kdfast must not remove."
        self.check_record()
        if self.status and self.run.get('format', FORMAT) > FORMAT:
            raise KdfastError(f'{self} was made by a newer kdfast: update, or use --runs')

    def check_record(self):
        "Raise KdfastError for a directory with files, but without a run.json that tells its state."
        if not self.path.exists():
            return
        found = [file.name for file in self.path.iterdir() if not file.name.startswith('.run.json.')]
        if found and 'run.json' not in found:
            raise KdfastError(f'{self} is not the folder of a run, for it has no run.json: move it away, or use --runs')
        if found and self.flaw:
            raise KdfastError(self.flaw)

    def remove(self):
        "Remove the directory; it is renamed first, so that a killed process leaves it whole or not at all."
        aside = self.path.with_name(f'.{self.path.name}.removed')
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.path, aside)
        shutil.rmtree(aside)

    def set_status(
        self,
        status: str,  # running, finished, interrupted, failed or diverged
        **more,  # Other entries of run.json
    ):
        "Write the state to run.json."
        self.record |= dict(status=status, **more)
        write_json(self.path / 'run.json', self.record)

    def finish(
        self,
        result: dict,  # The content of result.json
    ):
        "Write the result, then the state with the SHA-256 of every file; remove the checkpoints."
        write_json(self.path / 'result.json', result)
        found = [file for pattern in ('*', 'source/**/*') for file in self.path.glob(pattern)]
        files = sorted(file for file in found if file.is_file() and file.name != 'run.json')
        hashes = {file.relative_to(self.path).as_posix(): sha256(file) for file in files}
        self.set_status('finished', finished=utc_now(), files=hashes)
        shutil.rmtree(self.path / 'resume', ignore_errors=True)

    def problems(self) -> list[str]:
        "Verify the run: return why it is not finished, or what is missing or has changed."
        return self.damage() if self.flaw or self.finished else [f'it is {self.status}, not finished']

    def damage(self) -> list[str]:
        "Return what is missing or has changed since the run finished; of an unfinished run, nothing."
        if problem := self.problem('run.json'):
            return [problem]
        found = [f'{name} {problem}' for name, hash in self.files.items() if (problem := self.difference(name, hash))]
        return found or [problem for problem in [self.problem('result.json')] if problem and self.flaw]

    def difference(
        self,
        name: str,  # Of a file
        hash: str,  # Its SHA-256, as recorded
    ) -> str:
        "Return what is wrong with a file, by its checksum alone; empty if nothing is."
        if not (self.path / name).exists():
            return 'is missing'
        try:
            return '' if sha256(self.path / name) == hash else 'has changed since it was written'
        except OSError as e:
            return f'cannot be read ({e.strerror})'


def utc_now() -> str:
    "Return the time in ISO 8601, to the second."
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def locate_run(
    runs: Path,  # The directory of all runs
    data: str,  # Name of the data set
    recipe: str,  # Name of the recipe, followed by the arguments that are not its defaults
    seed: int,  # Of the run
) -> RunDir:
    "Return the directory of a run. Raises KdfastError for a wrong name, and for a damaged run.json."
    for name in (data, recipe):
        if not NAME.fullmatch(name):
            raise KdfastError(
                f'{name!r} cannot name a folder of runs: expected up to 200 letters, digits, spaces and any of '
                '. _ - = + , and no dot in front'
            )
    folder = RunDir(Path(runs) / data / recipe / str(seed))
    folder.check_record()  # before anything is trained
    return folder
