"""Fixtures: a tiny data set, the command line in this process, one study for many tests; helpers."""

import json
import operator
import os
import shutil
import sys
import warnings
from contextlib import nullcontext
from functools import wraps
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

os.environ.setdefault(
    'CUDA_VISIBLE_DEVICES', ''
)  # tests compare bits, which a CPU reproduces; for GPUs: benchmarks/gpu.py
os.environ['OMP_NUM_THREADS'] = '1'  # small tensors; equal weights for any number of cores
os.environ['MKL_NUM_THREADS'] = '1'
os.fsync = lambda descriptor: None  # tests end processes, not the machine; it would take a tenth of their time
warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
CLASSES = ['ape', 'bee', 'cat']


# Slow files, which start first: no process waits for another at the end. Two without `study` follow the first that
# trains it, so that the other process has something to do meanwhile
LONG = [
    'resume',
    'fault_injection',
    'study',
    'rehearsal',
    'rehearsal_errors',
    'resume_checks',
    'recipes',
    'distributed',
    'docs',
    'signals',
    'cluster',
    'trust',
    'callbacks',
]


def pytest_collection_modifyitems(items):
    names = [f'test_{name}.py' for name in LONG]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


def draw(folder, n, seed):
    "Write n noisy images of each class; the class is a faint color, so that some are misclassified."
    random = np.random.default_rng(seed)
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            image = random.integers(0, 120, (8, 8, 3), dtype=np.uint8)
            image[..., k] += 10
            Image.fromarray(image).save(folder / name / f'{i:03}.png')


@pytest.fixture(scope='session', autouse=True)
def cache(tmp_path_factory):
    os.environ['XDG_CACHE_HOME'] = str(tmp_path_factory.mktemp('cache'))


@pytest.fixture(scope='session', autouse=True)
def one_fork_server():
    "Studies in these processes fork one server, as long as it has their environment: it imports PyTorch once"
    from kdfast.study import fork_server

    servers = {}

    def start(command, threads):
        key = os.getcwd(), os.environ['XDG_CACHE_HOME'], threads
        if key not in servers or servers[key].ended:
            servers[key] = fork_server.ForkServer(threads)
        return fork_server.Fork(servers[key], command)

    @wraps(fork_server.run_starter)  # whose source the reference shows
    def run_starter():
        return nullcontext(start)

    if sys.platform == 'linux':
        fork_server.run_starter = run_starter
    yield
    for server in servers.values():
        server.close()


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    "A folder with train/<class>/*.png and valid/<class>/*.png: 72 and 36 images"
    folder = tmp_path_factory.mktemp('data') / 'tiny'
    draw(folder / 'train', 24, seed=0)
    draw(folder / 'valid', 12, seed=1)
    return folder


@pytest.fixture(scope='session')
def data(images):
    from kdfast.data import load

    return load(str(images))


@pytest.fixture(scope='session')
def kdfast(tmp_path_factory):
    "Run a command line in this process; returns exit status, output and errors."
    import contextlib
    import io
    import signal

    from kdfast import cli

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        argv = sys.argv
        handlers = [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]
        sys.argv = ['kdfast', *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.main()
        except SystemExit as e:
            status = e.code or 0
        finally:
            sys.argv = argv
            for number, handler in handlers:
                signal.signal(number, handler)
        return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture
def one_core(monkeypatch):
    "A process with one core, on a machine for which torch takes more threads, as nothing else is set"
    from kdfast.training.devices import THREAD_VARIABLES, threads_used

    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1')
    with threads_used(3):
        yield


@pytest.fixture
def float32_setting():
    "Sets how float32 is computed, by the newer of PyTorch's two names, and sets it back"
    import torch

    before = []

    def set_to(library, value):
        library = operator.attrgetter(library)(torch.backends) if library else torch.backends
        before.append((library, library.fp32_precision))
        library.fp32_precision = value

    yield set_to
    for library, value in reversed(before):
        library.fp32_precision = value


FLOAT32 = [('', 'tf32'), ('', 'ieee'), ('cuda.matmul', 'tf32'), ('cudnn.conv', 'ieee'), ('cudnn.rnn', 'ieee')] + [
    (f'mkldnn.{operation}', value) for operation in ('matmul', 'conv') for value in ('bf16', 'tf32')
]  # settings after which PyTorch's older names may raise an error


@pytest.fixture(scope='session')
def study(kdfast, images, tmp_path_factory):
    "All six recipes on the tiny images, through the command line; trained once, copied by each process of the tests"
    runs, own = shared_folder(tmp_path_factory) / 'study', tmp_path_factory.mktemp('study') / 'runs'
    with FileLock(f'{runs}.lock'):
        for recipe in ('exp1', 'exp2', 'baseline', 'kd'):  # exp1 also trains the teacher and stage one
            done = kdfast('run', recipe, '--data', images, '--runs', runs)
            assert done.status == 0, done.err
        shutil.copytree(runs, own)
    return own / 'tiny'


def shared_folder(tmp_path_factory):
    "Return a folder that all processes of pytest-xdist have in common"
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / 'weights.safetensors')


def equal(a, b):
    "Return whether two state dicts have the same bits."
    return a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def make(
    runs, recipe, seed, data='pets', status='finished', confusion=None, classes='ab', right=None, recorded={}, **result
):
    "Create a run directory without training; `result` are its results, all others are null."
    from kdfast.analysis.measures import MEASURES
    from kdfast.core.atomic import write_csv
    from kdfast.runs.recipes import find_recipe, recipe_names
    from kdfast.runs.run_dir import RunDir

    folder = RunDir(runs / data / recipe / str(seed))
    name, *given = recipe.split(',')
    known = find_recipe(name) if name in recipe_names() else None

    def typed(kind, text):
        return text == 'True' if kind is bool else kind(text)

    given = dict(part.split('=', 1) for part in given)
    options = [*known.options, *known.settings] if known else []
    arguments = {o.name: typed(o.type, given[o.name]) for o in options if o.name in given}
    arguments = known.of_main(arguments) | known.settings_in(arguments) if known else {}
    folder.start(dict(recipe=name, arguments=arguments, **recorded), known.source if known else '')
    if confusion:
        write_csv(folder / 'confusion.csv', ['', *classes], ([c, *row] for c, row in zip(classes, confusion)))
    if right is not None:
        np.savez(folder / 'predictions.npz', actual=np.zeros(len(right)), predicted=1 - np.array(right, float))
        result |= dict(valid_accuracy=float(np.mean(right)), valid_images=len(right))
    if status == 'finished':
        facts = dict(recipe=recipe, data=data, seed=seed, arguments=arguments, teacher_sha256=None, valid_images=10**6)
        folder.finish(facts | dict.fromkeys(measure.name for measure in MEASURES) | result)
    else:
        folder.set_status(status, reason='no luck')
    return folder


def recipe(file, body, options='epochs:int=1'):
    "Write a user's recipe that passes the rehearsal and runs `body` in training."
    file.write_text(
        f'"Mine."\nfrom kdfast.all import *\nfrom kdfast.recipes import baseline\n\ndef main(run, {options}):\n'
        f'    if run.rehearsal: return baseline.main(run)\n    {body}\n'
    )
    return file


def seal(folder):
    "Update the checksums of a finished run to its current files."
    folder.record = folder.run
    folder.finish(json.loads((folder / 'result.json').read_text()))


def beside(study, runs, *needed):
    "Return a directory of runs with the runs that a recipe needs, copied from the study."
    for recipe in needed:
        shutil.copytree(study / recipe, runs / 'tiny' / recipe)
    return runs


def until(happens, over=lambda: False):
    "Wait until something happens, or is over, and leave the cores to the processes that make it happen"
    while not happens() and not over():
        Event().wait(0.01)


def begun(data, path, *watch):
    "Return a run that has begun, or resumes, in this directory."
    from kdfast.runs.run_dir import RunDir
    from kdfast.training.run import Run

    run = Run(RunDir(path), data, 0, path.parent, watch)
    run.folder.start({}, '')
    return run
