"""The slow suite: what kdfast promises when things go wrong, tried many times over and printed as passed/tried.

python tests/slow/fault_injection.py [name …] [--share 0.1] [--seed 0]
"""

import argparse
import contextlib
import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = '1'  # equal bits whatever else runs
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import paths  # noqa: F401
import pytest
import torch
from conftest import draw
from test_record import Poison
from interruptions import same

from kdfast import cli
from kdfast.core import append, atomic
from kdfast.distill.fit import FitCallback
from kdfast.models.saved import load_network
from kdfast.runs.run_dir import RunDir
from kdfast.training import checkpoints, evaluation
from kdfast.training.checkpoint_files import END
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.run import Run

torch.set_num_threads(1)
EPOCHS = 2
PATIENCE = 10  # seconds that a signal may take
POINTS = ('half written', 'half appended', 'before fsync', 'before replace', 'after replace')
FAULTS = (errno.ENOSPC, errno.EIO, errno.EACCES)


class Bench:
    "Tiny images, every run on them as it ends undisturbed, and processes of the real command line to disturb."

    def __init__(self, home, seed):
        self.home, self.random, self.n = Path(home), random.Random(seed), 0
        self.command = [sys.executable, '-P', '-m', 'kdfast']  # of processes of their own
        draw(self.home / 'tiny' / 'train', 24, seed=0), draw(self.home / 'tiny' / 'valid', 12, seed=1)
        os.environ['XDG_CACHE_HOME'] = str(self.home / 'cache')
        self.whole = self.home / 'whole'
        for recipe in ('exp1', 'exp2', 'baseline', 'kd'):
            assert self.run(self.whole, recipe) == 0
        self.took = {}

    def seconds(self, recipe):
        "How long it takes undisturbed; measured when it is first asked for"
        if recipe not in self.took:
            kept_in, began = self.beside(recipe), time.perf_counter()
            assert self.run(kept_in, recipe) == 0
            self.took[recipe] = time.perf_counter() - began
        return self.took[recipe]

    def name(self, recipe):
        return recipe if recipe in ('teacher', 'hint') else f'{recipe},epochs={EPOCHS}'

    def folder(self, kept_in, recipe):
        return RunDir(kept_in / 'tiny' / self.name(recipe) / '0')

    def equal(self, kept_in, recipe):
        folder = self.folder(kept_in, recipe)
        return (
            folder.finished
            and not folder.problems()
            and not (folder / 'resume').exists()
            and same(folder, self.folder(self.whole, recipe))
        )

    def beside(self, recipe):
        "A new runs folder, with the teacher where the recipe needs one; exp2 trains its own stage one"
        self.n += 1
        kept_in = self.home / f'{self.n:05}'
        kept_in.mkdir()
        needed = dict(exp1=['teacher', 'hint'], exp2=['teacher'], kd=['teacher'], hint=['teacher']).get(recipe, [])
        for name in needed:
            shutil.copytree(
                self.whole / 'tiny' / name, kept_in / 'tiny' / name, ignore=shutil.ignore_patterns('outputs')
            )
        return kept_in

    def start(self, kept_in, recipe, prepare=None):
        "A process that runs the recipe; what it says goes to a file beside its runs"
        epochs = [] if recipe in ('teacher', 'hint') else ['--epochs', str(EPOCHS)]
        pid = os.fork()
        if pid:
            return pid
        status = 99
        try:
            said = os.open(kept_in.with_suffix('.said'), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1), os.dup2(said, 2)
            sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)
            sys.argv = ['kdfast', 'run', recipe, *epochs, '--data', str(self.home / 'tiny'), '--runs', str(kept_in)]
            if prepare:
                prepare()
            cli.main()
        except SystemExit as e:
            status = e.code or 0
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)

    def run(self, kept_in, recipe, prepare=None):
        return self.end(self.start(kept_in, recipe, prepare))

    def end(self, pid, after=None, number=signal.SIGKILL):
        "Its exit status; signalled after so many seconds, if it lives as long"
        began = time.perf_counter()
        while after is not None and time.perf_counter() - began < after:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        if after is not None:
            os.kill(pid, number)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def said(self, kept_in):
        return kept_in.with_suffix('.said').read_text()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def often():
    checkpoints.EVERY = 0  # a checkpoint every step


def rehearsed(path):
    return any(
        part.startswith('kdfast-') for part in Path(str(path)).parts
    )  # where runs are tried in small; disturbed otherwise


# SIGKILL


def killed(bench, recipe, prepare=None):
    "Killed once or more, at random moments or where `prepare` says; ends equal"
    kept_in, kills = bench.beside(recipe), 0
    while kills == 0 or bench.random.random() < 0.3:
        how = often if bench.random.random() < 0.5 else None
        if prepare and not kills:
            status = bench.run(kept_in, recipe, prepare)
        else:
            after = bench.random.uniform(0, bench.seconds(recipe))
            status = bench.end(bench.start(kept_in, recipe, how), after)
        if status == 0:  # it was faster than its killer: once more
            shutil.rmtree(kept_in)
            kept_in, kills = bench.beside(recipe), 0
        elif status != -signal.SIGKILL:
            return False
        else:
            kills += 1
    return bench.run(kept_in, recipe) == 0 and bench.equal(kept_in, recipe)


def die_in_checkpoint(bench):
    "While the k-th checkpoint is being written"
    k, point = bench.random.randint(1, 40), bench.random.choice(POINTS)

    def prepare():
        often()
        whole, count = atomic.write, [0]

        def write(file, content):
            count[0] += not rehearsed(file)
            if rehearsed(file) or count[0] < k:
                return whole(file, content)
            replace = os.replace
            if point == 'half written':
                file.with_name(f'.{file.name}.{os.getpid()}').write_bytes(content[: len(content) // 2])
                die()
            if point == 'before fsync':
                os.fsync = lambda _: die()
            if point == 'before replace':
                os.replace = lambda *_: die()
            if point == 'after replace':
                os.replace = lambda *names: (replace(*names), die())
            return whole(file, content)

        if point == 'half appended':
            half_appended(k)
        else:
            checkpoints.write = write

    return prepare


def half_appended(k):
    "Of the steps, in the k-th call"
    whole, count = append.AppendOnlyFile.write, [0]

    def write(self, sync=False):
        count[0] += 1
        if count[0] < k or not self.pending:
            return whole(self, sync)
        content = b''.join(self.pending)
        self.pending = [content[: len(content) // 2]]
        whole(self, True)
        die()

    append.AppendOnlyFile.write = write


def die_between_stages(bench):
    "When stage one ends, or stage two begins"
    what = bench.random.choice(['finish', 'set', 'start', 'mkdir', 'fit'])
    before = bench.random.random() < 0.5

    def around(owner, name, when):
        real = getattr(owner, name)

        def patched(self, *args, **kwargs):
            now = not rehearsed(getattr(self, 'folder', self)) and when(self, *args)
            if now and before:
                die()
            done = real(self, *args, **kwargs)
            if now:
                die()
            return done

        setattr(owner, name, patched)

    def prepare():
        if what == 'finish':
            around(RunDir, 'finish', lambda self, *_: self.recipe == 'hint')
        if what == 'set':
            around(RunDir, 'set_status', lambda self, status, **_: self.recipe == 'hint' and status == 'finished')
        if what == 'start':
            around(RunDir, 'start', lambda self, *_: self.recipe.startswith('exp2'))
        if what == 'mkdir':
            around(Path, 'mkdir', lambda self, *_: self.parent.name.startswith('exp2'))
        if what == 'fit':
            around(Checkpoints, 'save', lambda self, learn, where, *_: where == END and self.folder.recipe == 'hint')

    return prepare


def killed_anywhere(bench, n):
    return [killed(bench, 'exp2') for _ in range(n)]


def killed_in_checkpoints(bench, n):
    return [killed(bench, 'exp2', die_in_checkpoint(bench)) for _ in range(n)]


def killed_between_stages(bench, n):
    return [killed(bench, 'exp2', die_between_stages(bench)) for _ in range(n)]


def killed_others(bench, n):
    return [killed(bench, recipe) for recipe in ('teacher', 'hint', 'baseline', 'kd', 'exp1') for _ in range(n)]


def start_study(bench, kept_in):
    "Start a study of two recipes in a process."
    options = f'--seeds 1 --epochs {EPOCHS} --jobs 2'.split()
    return subprocess.Popen(
        [*bench.command, 'study', 'baseline', 'kd', *options, '--data', bench.home / 'tiny', '--runs', kept_in],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def descendants(pid):
    "Processes that a process or its descendants have started"
    found = subprocess.run(['pgrep', '-P', str(pid)], capture_output=True, text=True).stdout.split()
    return [one for child in map(int, found) for one in (child, *descendants(child))]


def killed_studies(bench, n):
    "Kill the study or one of its processes; after a second start each run is there once, and equal."

    def trial():
        pause = bench.random.uniform(0, bench.seconds('kd') / 4)  # a fork is over much sooner than a run alone
        kept_in = bench.beside('kd')
        first = start_study(bench, kept_in)
        while not list(kept_in.glob('tiny/[!t]*/0/run.json')) and first.poll() is None:
            time.sleep(0.01)  # until the first run begins
        after = time.perf_counter() + pause
        while time.perf_counter() < after and first.poll() is None:
            time.sleep(0.01)
        processes = descendants(first.pid)  # runs, and what forks them
        if processes and bench.random.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):  # it may be over by now
                os.kill(bench.random.choice(processes), signal.SIGKILL)
        else:
            first.kill()
        first.wait()
        again = start_study(bench, kept_in)
        again.wait()
        return (
            again.returncode == 0
            and all(bench.equal(kept_in, recipe) for recipe in ('baseline', 'kd'))
            and len(list(kept_in.rglob('result.json'))) == 3
        )

    return [trial() for _ in range(n)]


# Other misfortunes


def signalled(bench, n):
    "Ends within ten seconds with its status, leaves no process, and goes on"

    def trial(i):
        number, status = [(signal.SIGINT, 130), (signal.SIGTERM, 143)][i % 2]
        kept_in, pause = bench.beside('exp2'), bench.random.uniform(0, 0.8 * bench.seconds('exp2'))
        pid = bench.start(kept_in, 'exp2')
        while not list(kept_in.glob('tiny/hint/0/run.json')):
            time.sleep(0.001)  # it listens
        time.sleep(pause)
        began = time.perf_counter()
        os.kill(pid, number)
        ended = bench.end(pid)
        if ended == 0:
            return bench.equal(kept_in, 'exp2')  # it was over already
        polite = (
            ended == status
            and time.perf_counter() - began < PATIENCE
            and 'repeat the command to continue' in bench.said(kept_in)
        )
        return polite and bench.run(kept_in, 'exp2') == 0 and bench.equal(kept_in, 'exp2')

    return [trial(i) for i in range(n)]


def fails_at(k, fault, reached):
    "Let the k-th call that opens, writes, syncs, renames or makes a folder fail, and create the file `reached`."
    count = [0]

    def counted(real, name_of):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == k:
                os.close(os.open(reached, os.O_CREAT))
                raise OSError(fault, os.strerror(fault), name_of(args))
            return real(*args, **kwargs)

        return call

    class File:
        def __init__(self, file):
            self.file, self.write = file, counted(file.write, lambda _: None)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Path.open

    def open_file(self, mode='r', *args, **kwargs):
        return (
            File(counted(opened, lambda a: str(a[0]))(self, mode, *args, **kwargs))
            if set(mode) & set('wa+')
            else opened(self, mode, *args, **kwargs)
        )

    Path.open = open_file
    os.fsync, os.replace = counted(os.fsync, lambda _: None), counted(os.replace, lambda a: str(a[1]))
    os.mkdir = counted(os.mkdir, lambda a: str(a[0]))


def faults_of_the_disk(bench, n):
    "The k-th call fails, for every n-th k, until none is left"
    passed, k = [], 1
    while True:
        kept_in = bench.beside('kd')
        fault, reached = FAULTS[k % len(FAULTS)], kept_in.with_suffix('.reached')
        status = bench.run(kept_in, 'kd', lambda: fails_at(k, fault, reached))
        if not reached.exists():
            return passed if status == 0 else [*passed, False]
        said = bench.said(kept_in).splitlines()
        clear = (
            status == 0 or status == 2 and said[-1].startswith('kdfast: error: ') and os.strerror(fault) in said[-1]
        )  # to make a folder that is there may fail
        if not clear:
            print(f'k = {k}: exit {status}: {said[-1:]}')
        passed.append(clear and bench.run(kept_in, 'kd') == 0 and bench.equal(kept_in, 'kd'))
        k += n


def damaged_checkpoints(bench, n):
    "Cut short or with one bit turned: passed over, and the one before taken"
    kept_in = bench.beside('kd')
    end = Checkpoints.end

    def prepare():
        often()
        Checkpoints.end = lambda self, *args, **kwargs: end(self, *args, **kwargs) if rehearsed(self.path) else die()

    assert bench.run(kept_in, 'kd', prepare) == -signal.SIGKILL
    kept = Checkpoints(bench.folder(kept_in, 'kd'), print)
    kept.fit = 1
    last, before = (place.file for place in kept.places())
    whole = last.read_bytes()

    def trial(i):
        damaged = bytearray(whole)
        if i % 5:
            damaged[bench.random.randrange(len(whole))] ^= 1 << bench.random.randrange(8)
        else:
            del damaged[bench.random.randrange(len(whole)) :]
        last.write_bytes(damaged)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            return kept.newest().file == before and 'is damaged' in said.getvalue()

    return [trial(i) for i in range(n)]


def starters(bench, n):
    "Two to four at once on one folder: one trains, the others say so"

    def trial():
        kept_in = bench.beside('kd')
        reading, writing = os.pipe()

        def together():
            os.close(writing)
            os.read(reading, 1)  # until the gate opens

        pids = [bench.start(kept_in, 'exp2', together) for _ in range(bench.random.randint(2, 4))]
        os.close(reading), os.close(writing)
        ended = sorted(bench.end(pid) for pid in pids)
        return ended == [0] + [3] * (len(pids) - 1) and bench.equal(kept_in, 'exp2')

    return [trial() for _ in range(n)]


def not_finite(bench, n):
    "NaN or infinity somewhere: exit 4, no weights, the last good checkpoint kept"

    def trial():
        recipe, where = bench.random.choice(
            [
                ('kd', 'weight'),
                ('kd', 'teacher'),
                ('kd', 'gradient'),
                ('kd', 'loss'),
                ('hint', 'teacher'),
                ('hint', 'gradient'),
            ]
        )
        value, step = bench.random.choice([float('nan'), float('inf'), -float('inf')]), bench.random.randrange(9)
        kept_in, learner = bench.beside(recipe), Run.learner

        def poisoned(self, *args, **kwargs):
            learn = learner(self, *args, **kwargs)
            if self.folder.recipe.startswith(recipe) and not self.rehearsal:
                learn.add_cb(Poison(where, value, step))
            return learn

        status = bench.run(kept_in, recipe, lambda: setattr(Run, 'learner', poisoned))
        folder = bench.folder(kept_in, recipe)
        return (
            status == 4
            and folder.status == 'diverged'
            and not (folder / 'weights.safetensors').exists()
            and len(list((folder / 'resume').iterdir())) > 0
        )

    return [trial() for _ in range(n)]


ERRORS = (
    torch.OutOfMemoryError('CUDA out of memory.'),
    torch.distributed.DistBackendError('NCCL communicator was aborted'),
    ValueError('a defect'),
    KeyError('x'),
    AssertionError(),
    MemoryError(),
    RuntimeError('CUDA error: device-side assert triggered'),
)


WHERE = dict(  # function that fails, by the part of a run
    step=(Run, 'learner'),
    judge=(evaluation, 'evaluate'),
    save=(evaluation, 'save_network'),
    finish=(RunDir, 'finish'),
)


def failing_function(what, error, step):
    "Return a replacement of the function in WHERE that raises the error outside of rehearsals."
    real = getattr(*WHERE[what])

    class Fail(FitCallback):
        def after_step(self):
            if self.epoch * 9 + self.iter == step:
                raise error

    def fail(first, *args, **kwargs):
        if what == 'step':
            learn = real(first, *args, **kwargs)
            if not first.rehearsal:
                learn.watchers.append(Fail())  # the resumed run is without it
                learn.add_cb(learn.watchers[-1])
            return learn
        if rehearsed(str(args[0] if what == 'save' else getattr(first, 'folder', first))):
            return real(first, *args, **kwargs)
        raise error

    return fail


def failing(bench, n):
    "Fail in training, evaluation, saving or finishing: the training is saved, and resumes to an equal run."

    def trial():
        kept_in = bench.beside('kd')
        error = bench.random.choice(ERRORS)
        what = bench.random.choice(['step', 'step', 'judge', 'save', 'finish'])
        fail = failing_function(what, error, bench.random.randrange(2, 18))
        status = bench.run(kept_in, 'kd', lambda: (often(), setattr(*WHERE[what], fail)))
        folder = bench.folder(kept_in, 'kd')
        said = bench.said(kept_in).splitlines()[-1]
        kept = folder.status == 'failed' and folder.has_checkpoints and 'The training so far is saved' in said
        if not (status in (1, 2) and kept and bench.run(kept_in, 'kd') == 0 and bench.equal(kept_in, 'kd')):
            return False
        said = bench.said(kept_in)
        return ' resumes at ' in said if what == 'step' else 'epoch 1/' not in said  # it does not start over

    return [trial() for _ in range(n)]


def reloaded(bench, n):
    "Weights read by a process of its own give the same logits"
    code = (
        'import sys, torch; from kdfast.models.saved import load_network as load\n'
        'from kdfast.runs.run_dir import RunDir as Folder; from safetensors.torch import save_file\n'
        'torch.set_num_threads(1); x = torch.randn(1000, 3, 8, 8, generator=torch.Generator().manual_seed(0))\n'
        'with torch.no_grad(): save_file({"logits": load(Folder(sys.argv[1]))(x)}, sys.argv[2])'
    )

    def trial(recipe):
        folder, file = self_folder(recipe), bench.home / f'{recipe}.logits'
        subprocess.run([sys.executable, '-P', '-c', code, str(folder), file], check=True)
        from safetensors.torch import load_file

        x = torch.randn(1000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return bool((load_file(file)['logits'] == load_network(folder)(x)).all())

    def self_folder(recipe):
        return bench.folder(bench.whole, recipe)

    return [trial(recipe) for recipe in ('teacher', 'hint', 'baseline', 'kd', 'exp1', 'exp2')]


class Count:
    "Counts what pytest passes"

    def __init__(self):
        self.passed = []

    def pytest_runtest_logreport(self, report):
        if report.when == 'call':
            self.passed.append(report.passed)


def tests(*arguments):
    "An ordeal that the normal tests hold already"

    def ordeal(bench, n):
        count = Count()
        pytest.main(
            [
                '-q',
                '-n',
                '0',
                '--no-header',
                '-p',
                'no:cacheprovider',
                '-o',
                'console_output_style=classic',
                *arguments,
            ],
            plugins=[count],
        )
        return count.passed

    return ordeal


HERE = Path(__file__).parent
ORDEALS = {  # what it is, the ordeal, and how many
    'kill': ('exp2 killed at random moments', killed_anywhere, 65),
    'checkpoint': ('exp2 killed while a checkpoint is written', killed_in_checkpoints, 25),
    'stages': ('exp2 killed at the change of stage', killed_between_stages, 15),
    'recipes': ('the other five recipes killed', killed_others, 25),
    'failures': ('kd fails, in training or after it', failing, 25),
    'studies': ('a study of two jobs killed, or one of its runs', killed_studies, 25),
    'controls': (
        'an item left out of the checkpoint is noticed',
        tests(f'{HERE.parent}/training/test_resume.py', '-k', 'every_item'),
        1,
    ),
    'disk': ('the k-th call to the disk fails', faults_of_the_disk, 1),
    'damage': ('damaged checkpoints noticed', damaged_checkpoints, 250),
    'signals': ('SIGINT and SIGTERM', signalled, 50),
    'starters': ('two to four starters on one folder', starters, 50),
    'nan': ('NaN and infinity injected', not_finite, 40),
    'inputs': (
        'bad inputs',
        tests(
            f'{HERE.parent}/data/test_data.py',
            f'{HERE.parent}/data/test_photos.py',
            f'{HERE.parent}/data/test_pixels.py',
            f'{HERE.parent}/data/test_sources.py',
            f'{HERE.parent}/cli',
            f'{HERE.parent}/runs/test_recipe.py',
            '-k',
            'wrong or bad_input or usage or range or refused or unknown or no_recipe or broken or harm or limits '
            'or lying or leads',
        ),
        1,
    ),
    'hostile': ('hostile files', tests(f'{HERE.parent}/test_security.py'), 1),
    'reload': ('weights reloaded in a fresh process', reloaded, 1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='name', help=', '.join(ORDEALS))
    parser.add_argument('--share', type=float, default=1.0, help='of the trials')
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bench, failed = Bench(home, asked.seed), 0
        for name in asked.names or ORDEALS:
            what, ordeal, n = ORDEALS[name]
            began = time.perf_counter()
            passed = ordeal(bench, round(1 / asked.share) if name == 'disk' else max(1, round(n * asked.share)))
            failed += len(passed) - sum(passed)
            print(f'{what:<50} {sum(passed):>4}/{len(passed):<4} {time.perf_counter() - began:6.0f} s', flush=True)
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
