"""Layouts × containers × formats: each is written, read and compared with what was written. Prints read/tried.

python tests/slow/layouts.py            all of it
python tests/slow/layouts.py sources    one part: table, sources, refused or trained
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.data import load

SCRATCH = tempfile.TemporaryDirectory(prefix='layouts-')
os.environ['XDG_CACHE_HOME'] = f'{SCRATCH.name}/cache'
sys.path.insert(0, str(Path(__file__).parents[1]))

import written


def attempt(make, **options):
    "What is wrong with what was read; nothing where it is right"
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    try:
        with redirect_stderr(StringIO()):
            path, compare = make(folder / 'photos')
            return compare(load(str(path), **options))
    except KdfastError as e:
        return e.message
    except Exception as e:
        return f'{type(e).__name__}: {e}'
    finally:
        shutil.rmtree(folder), shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


def table():
    "Rows of layouts, columns of containers: of how many formats"
    counts, wrong = defaultdict(int), []
    for layout in written.LAYOUTS:
        for container, put in written.CONTAINERS.items():
            for kind in written.FORMATS:
                said = attempt(
                    lambda path: (
                        put(path, written.files_of(layout, kind)),
                        lambda data: written.right(data, layout, kind),
                    )
                )
                counts[layout, container] += not said
                if said:
                    wrong.append(f'{layout}, {container}, {kind}: {said[:200]}')
    width = max(map(len, written.LAYOUTS))
    print(' ' * width, *written.CONTAINERS, sep=' | ')
    for layout in written.LAYOUTS:
        print(
            f'{layout:{width}}',
            *(f'{f"{counts[layout, c]}/{len(written.FORMATS)}":>{len(c)}}' for c in written.CONTAINERS),
            sep=' | ',
        )
    n = len(written.LAYOUTS) * len(written.CONTAINERS) * len(written.FORMATS)
    return n - len(wrong), n, wrong


def sources():
    "Forms of their own, in every container"
    wrong, n = [], 0
    for name, (make, splits, how) in written.SOURCES.items():
        for container, put in written.CONTAINERS.items():
            n += 1
            said = attempt(lambda path: (put(path, make()), lambda data: written.compare(data, splits, **how)))
            if said:
                wrong.append(f'{name}, {container}: {said[:200]}')
    for name, (make, splits) in written.ARRAYS.items():
        n += 1
        said = attempt(
            lambda path: (
                next(written.to_folder(path, make()).iterdir()),
                lambda data: written.compare(data, splits, classes=['0', '1', '2']),
            )
        )
        if said:
            wrong.append(f'{name}: {said[:200]}')
    return n - len(wrong), n, wrong


def refused():
    "What is not read: the error has the cause and the remedy"
    wrong = []
    for name, (files, words) in written.REFUSED.items():
        said = attempt(lambda path: (written.to_folder(path, files()), lambda data: 'it was read'))
        if not all(word in said for word in words):
            wrong.append(f'{name}: {said[:300]}')
    return len(written.REFUSED) - len(wrong), len(written.REFUSED), wrong


def learnt(data, name, more=()):
    "What is wrong with experiment 2 on a data set whose classes are colors; nothing where the student knows them"
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    command = [
        sys.executable,
        '-m',
        'kdfast',
        'run',
        'exp2',
        '--data',
        str(data),
        '--epochs',
        '4',
        '--json',
        '--runs',
        str(folder),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    if done.returncode:
        return f'{name}: {done.stderr.strip().splitlines()[-1]}'
    accuracy = json.loads(done.stdout)['valid_accuracy']
    return '' if accuracy > 0.95 else f'{name}: validation accuracy {accuracy:.1%}'


def trained():
    "Experiment 2 from every form of data to the right accuracy; and two commands from photographs to a verdict"
    import numpy as np
    import pandas as pd
    import torch

    from kdfast.data.from_python import from_arrays, from_dataset, from_frame

    written.N.update(train=24, valid=8, test=4)
    root, results = Path(tempfile.mkdtemp(dir=SCRATCH.name)), {}
    files = {
        'Hugging Face Parquet': written.parquet,
        'WebDataset': written.shards,
        'CIFAR-100, official archive': written.cifar100,
    }
    for name, make in files.items():
        path = (written.to_tar if 'archive' in name else written.to_folder)(
            root / name.split()[0], make(), *(['gz'] if 'archive' in name else [])
        )
        results[name] = learnt(path, name)
    written.to_folder(root, written.npz())
    results['MedMNIST npz'] = learnt(root / 'set.npz', 'MedMNIST npz')
    (train, valid) = ((np.stack(images), np.array(labels)) for images, labels in map(written.stack, ('train', 'valid')))
    names = {(split, label, i): f'{split}{label}-{i}.png' for split, label, i, _ in written.all_pixels()}
    written.to_folder(root / 'frame', {name: written.plain('PNG')(written.pixels(*key)) for key, name in names.items()})
    frame = pd.DataFrame(
        [dict(name=name, label=written.CLASSES[label], split=split) for (split, label, _), name in names.items()]
    )

    def tensors(images, labels):
        return torch.utils.data.TensorDataset(torch.from_numpy(images).movedim(-1, 1) / 255, torch.from_numpy(labels))

    with redirect_stderr(StringIO()):
        made = {
            'DataFrame': from_frame(frame, root / 'frame'),
            'torch Dataset': from_dataset(tensors(*train), tensors(*valid)),
            'arrays': from_arrays(train, valid),
        }
    for name, data in made.items():
        results[name] = learnt(data.asked['source'], name)
    results['two commands'] = two_commands(root)
    wrong = [said for said in results.values() if said]
    return len(results) - len(wrong), len(results), wrong


def two_commands(root):
    "kdfast check PHOTOS, and what it says to type next"
    photos = written.to_folder(
        root / 'my photos',
        {
            f'{name}/{i}.jpg': written.plain('JPEG')(written.pixels('train', label, i, 32 + i))
            for label, name in enumerate(written.CLASSES)
            for i in range(20)
        },
    )

    def run(*words):
        return subprocess.run(
            [sys.executable, '-m', 'kdfast', *words],
            capture_output=True,
            text=True,
            cwd=root,
            env=os.environ | dict(OMP_NUM_THREADS='1', COLUMNS='140'),
        )

    first = run('check', str(photos))
    if first.returncode:
        return first.stderr
    second = run(*shlex.split(first.stdout.splitlines()[-1].removeprefix('next  '))[1:])
    right = second.returncode == 0 and 'kd' in second.stdout and 'verdict' in second.stdout
    return '' if right else f'two commands: {second.stderr[-300:]}{second.stdout[-300:]}'


DONE = dict(refused='named with cause and remedy', trained='trained to the right accuracy')
PARTS = dict(table=table, sources=sources, refused=refused, trained=trained)

if __name__ == '__main__':
    failed = 0
    for name in sys.argv[1:] or PARTS:
        done, tried, wrong = PARTS[name]()
        print(*wrong, sep='\n')
        print(f'{name}: {done}/{tried} {DONE.get(name, "read")}')
        failed += len(wrong)
    sys.exit(bool(failed))
