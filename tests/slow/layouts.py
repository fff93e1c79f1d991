"""Write, read and compare every layout in every container and format. Prints how many are right.

python tests/slow/layouts.py            all parts
python tests/slow/layouts.py sources    one part: table, sources, rejected or trained
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

sys.path.insert(0, str(Path(__file__).parents[1]))

import samples

from kdfast.core.errors import KdfastError
from kdfast.data import load

SCRATCH = tempfile.TemporaryDirectory(prefix='layouts-')
os.environ['XDG_CACHE_HOME'] = f'{SCRATCH.name}/cache'
NUMBERED_CLASSES = [str(label) for label in range(len(samples.CLASSES))]
MIN_ACCURACY = 0.95


def attempt(write, compare, **options):
    "What is wrong with a data set that `write` writes, given a path; empty if `compare` finds no difference"
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    try:
        with redirect_stderr(StringIO()):
            return compare(load(str(write(folder / 'photos')), **options))
    except KdfastError as e:
        return e.message
    except Exception as e:
        return f'{type(e).__name__}: {e}'
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


def table():
    "Every layout in every container and format; prints the number of right formats by layout and container"
    n_right, wrong = defaultdict(int), []
    for layout in samples.LAYOUTS:
        for container, put in samples.CONTAINERS.items():
            for kind in samples.FORMATS:
                problem = attempt(
                    lambda path: put(path, samples.layout_files(layout, kind)),
                    lambda data: samples.layout_difference(data, layout, kind),
                )
                n_right[layout, container] += not problem
                if problem:
                    wrong.append(f'{layout}, {container}, {kind}: {problem[:200]}')
    width = max(map(len, samples.LAYOUTS))
    print(' ' * width, *samples.CONTAINERS, sep=' | ')
    for layout in samples.LAYOUTS:
        cells = [
            f'{f"{n_right[layout, container]}/{len(samples.FORMATS)}":>{len(container)}}'
            for container in samples.CONTAINERS
        ]
        print(f'{layout:{width}}', *cells, sep=' | ')
    n = len(samples.LAYOUTS) * len(samples.CONTAINERS) * len(samples.FORMATS)
    return n - len(wrong), n, wrong


def sources():
    "Every official source in every container, and every file of arrays"
    problems = {}
    for name, (make, splits, arguments) in samples.SOURCES.items():
        for container, put in samples.CONTAINERS.items():
            problems[f'{name}, {container}'] = attempt(
                lambda path: put(path, make()), lambda data: samples.find_difference(data, splits, **arguments)
            )
    for name, (make, splits) in samples.ARRAYS.items():
        problems[name] = attempt(
            lambda path: next(samples.to_folder(path, make()).iterdir()),
            lambda data: samples.find_difference(data, splits, classes=NUMBERED_CLASSES),
        )
    return counts(problems)


def rejected():
    "Every kind of data that is rejected: the error has the cause and the remedy"
    problems = {}
    for name, (files, words) in samples.REJECTED.items():
        message = attempt(lambda path: samples.to_folder(path, files()), lambda data: 'no error')
        problems[name] = '' if all(word in message for word in words) else message
    return counts(problems)


def counts(problems):
    "(right, tried, texts of what is wrong)"
    wrong = [f'{name}: {problem[:300]}' for name, problem in problems.items() if problem]
    return len(problems) - len(wrong), len(problems), wrong


def kdfast(*words, **options):
    "Run a command of kdfast"
    return subprocess.run(
        [sys.executable, '-m', 'kdfast', *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1', COLUMNS='140'),
        **options,
    )


def trained():
    "Train experiment 2 on every form of data; and run the two commands from photographs to a verdict"
    samples.N_IMAGES.update(train=24, valid=8, test=4)
    root = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    problems = {name: train(path) for name, path in (file_sources(root) | python_sources(root)).items()}
    return counts(problems | {'two commands': two_commands(root)})


def train(path):
    "What is wrong with experiment 2 on a data set; empty if its accuracy is right, as classes differ in color"
    runs = tempfile.mkdtemp(dir=SCRATCH.name)
    done = kdfast('run', 'exp2', '--data', path, '--epochs', 4, '--lr', 0.02, '--json', '--runs', runs)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    accuracy = json.loads(done.stdout)['valid_accuracy']
    return '' if accuracy > MIN_ACCURACY else f'validation accuracy {accuracy:.1%}'


def file_sources(root):
    "Paths by name"
    samples.to_folder(root, samples.npz())
    return {
        'Hugging Face Parquet': samples.to_folder(root / 'parquet', samples.parquet()),
        'WebDataset': samples.to_folder(root / 'webdataset', samples.shards()),
        'CIFAR-100, official archive': samples.to_tar(root / 'cifar100', samples.cifar100(), 'gz'),
        'MedMNIST npz': root / 'set.npz',
    }


def python_sources(root):
    "Paths in the cache by name"
    import numpy as np
    import pandas as pd
    import torch

    from kdfast.data.from_python import from_arrays, from_dataset, from_frame

    train_arrays, valid_arrays = (
        (np.stack(images), np.array(labels)) for images, labels in map(samples.images_and_labels, samples.BOTH)
    )
    rows = [
        dict(name=f'{split}{label}-{i}.png', label=samples.CLASSES[label], split=split, image=image)
        for split, label, i, image in samples.all_images()
    ]
    samples.to_folder(root / 'frame', {row['name']: samples.writer('PNG')(row.pop('image')) for row in rows})

    def tensors(images, labels):
        return torch.utils.data.TensorDataset(torch.from_numpy(images).movedim(-1, 1) / 255, torch.from_numpy(labels))

    with redirect_stderr(StringIO()):
        data_sets = {
            'DataFrame': from_frame(pd.DataFrame(rows), root / 'frame'),
            'torch Dataset': from_dataset(tensors(*train_arrays), tensors(*valid_arrays)),
            'arrays': from_arrays(train_arrays, valid_arrays),
        }
    return {name: data.load_arguments['source'] for name, data in data_sets.items()}


def two_commands(root):
    "What is wrong with `kdfast check PHOTOS` and the command that it suggests"
    files = {
        f'{name}/{i}.jpg': samples.writer('JPEG')(samples.make_image('train', label, i, 32 + i))
        for label, name in enumerate(samples.CLASSES)
        for i in range(20)
    }
    check = kdfast('check', samples.to_folder(root / 'my photos', files), cwd=root)
    if check.returncode:
        return check.stderr
    suggested = shlex.split(check.stdout.splitlines()[-1].removeprefix('next  '))
    study = kdfast(*suggested[1:], cwd=root)
    is_right = study.returncode == 0 and 'kd' in study.stdout and 'verdict' in study.stdout
    return '' if is_right else study.stderr[-300:] + study.stdout[-300:]


PARTS = dict(table=table, sources=sources, rejected=rejected, trained=trained)

if __name__ == '__main__':
    failed = 0
    if unknown := set(sys.argv[1:]) - PARTS.keys():
        sys.exit(f'no part {", ".join(sorted(unknown))}; there are {", ".join(PARTS)}')
    for part in sys.argv[1:] or PARTS:
        n_right, n_tried, wrong = PARTS[part]()
        print(*wrong, sep='\n')
        print(f'{part}: {n_right}/{n_tried} right')
        failed += len(wrong)
    sys.exit(bool(failed))
