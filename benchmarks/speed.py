"""Compare the training speed of kdfast with a bare loop and with other tools; interleaved, as ratios.

python benchmarks/speed.py cifar10-images.tar.xz [--images 6400] [--rounds 5] [--threads 2] [--peers .peers | --own]

All contenders use the same networks, images, batch size, augmentation and threads, each in a process of its own.
Contenders whose names end with bfloat16 compute in bfloat16, the others in float32. Other tools are installed from the
package index into an environment of their own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).parents[1]))
PEERS = ('fasterai', 'torchdistill')
LOADERS = ('torchvision', 'torchvision2', 'torchvision4')  # with so many workers
FLOORS, OWN, HALF = ['floor', 'floor bfloat16'], ['kdfast', 'kdfast bfloat16'], [f'{name} bfloat16' for name in LOADERS]
TASKS = {  # what is timed: its contenders
    'kd': [*FLOORS, *LOADERS, *HALF, *PEERS, *OWN],
    'kd+valid': [*FLOORS, *OWN],
    'kd cached': OWN,
    'baseline': [*FLOORS, *OWN],
    'hint': [*FLOORS, *OWN],
    'exp1 cached': OWN,
    'exp2 cached': OWN,
}
BEST = {'best peer': (*PEERS, *LOADERS), 'best bfloat16 peer': HALF}
RATIOS = [  # of seconds: what, against what, and the goal
    ('kd, against the floor', ('kd', 'kdfast'), ('kd', 'floor'), '<= 0.97'),
    ('kd in bfloat16, against its floor', ('kd', 'kdfast bfloat16'), ('kd', 'floor bfloat16'), '<= 1.00'),
    ('kd with validation, against the floor', ('kd+valid', 'kdfast'), ('kd+valid', 'floor'), '<= 1.05'),
    (
        'kd with validation in bfloat16, against its floor',
        ('kd+valid', 'kdfast bfloat16'),
        ('kd+valid', 'floor bfloat16'),
        '<= 1.05',
    ),
    ('baseline, against the floor', ('baseline', 'kdfast'), ('baseline', 'floor'), '<= 1.03'),
    (
        'baseline in bfloat16, against its floor',
        ('baseline', 'kdfast bfloat16'),
        ('baseline', 'floor bfloat16'),
        '<= 1.03',
    ),
    ('hint, against the floor', ('hint', 'kdfast'), ('hint', 'floor'), '<= 1.10'),
    ('hint in bfloat16, against its floor', ('hint', 'kdfast bfloat16'), ('hint', 'floor bfloat16'), '<= 1.10'),
    ('best peer\'s kd, against kd in bfloat16', ('kd', 'best peer'), ('kd', 'kdfast bfloat16'), '>= 2.5'),
    ('and with cached outputs', ('kd', 'best peer'), ('kd cached', 'kdfast bfloat16'), '>= 3.5'),
    ('best bfloat16 peer\'s, against the same', ('kd', 'best bfloat16 peer'), ('kd', 'kdfast bfloat16'), '>= 1.1'),
    ('and with cached outputs', ('kd', 'best bfloat16 peer'), ('kd cached', 'kdfast bfloat16'), '>= 1.5'),
    ('kd with cached outputs, against the baseline', ('kd cached', 'kdfast'), ('baseline', 'kdfast'), '<= 1.08'),
    ('stage two of exp1, against the baseline', ('exp1 cached', 'kdfast'), ('baseline', 'kdfast'), '<= 0.65'),
    ('kd in bfloat16, against float32', ('kd', 'kdfast bfloat16'), ('kd', 'kdfast'), ''),
    ('baseline in bfloat16, against float32', ('baseline', 'kdfast bfloat16'), ('baseline', 'kdfast'), ''),
]


def prepare(source, n, home):
    "The first images of both splits, the weights that everybody starts from, and the same images as files"
    import numpy as np
    import torch
    from PIL import Image

    from kdfast.data import load
    from kdfast.models.study_networks import thin, wide

    data = load(source)
    pick = np.random.default_rng(0)
    splits = {
        split: [part[np.sort(pick.permutation(len(labels))[:size])] for part in (images, labels)]
        for (split, (images, labels)), size in zip(dict(train=data.train, valid=data.valid).items(), (n, n // 5))
    }
    np.savez(
        home / 'images.npz',
        mean=data.mean,
        std=data.std,
        **{
            f'{split}_{what}': part
            for split, parts in splits.items()
            for what, part in zip(('images', 'labels'), parts)
        },
    )
    for split, (images, labels) in splits.items():
        for label in range(10):
            (home / 'files' / split / str(label)).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images, labels)):
            Image.fromarray(image).save(home / 'files' / split / str(label) / f'{i:05}.jpg', quality=95)
    torch.manual_seed(0)
    for factory in (wide, thin):
        np.savez(home / f'{factory.__name__}.npz', **{name: t.numpy() for name, t in factory(10).state_dict().items()})


def environment(path):
    "Python of the peers' environment, made where it is missing"
    python = path / 'bin' / 'python'
    if not python.exists():
        subprocess.run([sys.executable, '-m', 'venv', path], check=True)
        subprocess.run([python, '-m', 'pip', 'install', '-q', *PEERS], check=True)
    return python


class Process:
    "A contender, waiting for work"

    def __init__(self, name, home, threads, python):
        contender, _, precision = name.partition(' ')
        env = os.environ | dict(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), PYTHONWARNINGS='ignore')
        self.log = open(home / f'{name}.log', 'w')
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name('contender.py'), contender, home, str(threads), precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
        )

    def ask(self, what):
        self.process.stdin.write(json.dumps(what) + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f'a contender ended: {open(self.log.name).read()[-2000:]}')
        return json.loads(answer)


def start_up(source, threads):
    "Seconds from the command to the first step of a run whose data are decoded already"
    with tempfile.TemporaryDirectory() as runs:
        began = perf_counter()
        env = os.environ | dict(OMP_NUM_THREADS=str(threads), PYTHONPATH=str(Path(__file__).parents[1]))
        process = subprocess.Popen(
            [sys.executable, '-P', '-m', 'kdfast', 'run', 'baseline', '--data', source, '--runs', runs],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        while not list(Path(runs).glob('*/*/*/resume/*')):
            sleep(0.005)
        took = perf_counter() - began
        process.kill(), process.wait()
    return took


def scan(source):
    "Seconds to read, check and decode every image, which happens once"
    with tempfile.TemporaryDirectory() as cache:
        began = perf_counter()
        code = 'import sys; from kdfast.data import load; load(sys.argv[1])'
        subprocess.run(
            [sys.executable, '-c', code, source],
            check=True,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict(XDG_CACHE_HOME=cache, PYTHONPATH=str(Path(__file__).parents[1])),
        )
        return perf_counter() - began


def spread(values):
    return f'{median(values):.2f} ({min(values):.2f} … {max(values):.2f})'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (
        parser.add_argument('data'),
        parser.add_argument('--images', type=int, default=6400),
        parser.add_argument('--rounds', type=int, default=5),
    )
    (
        parser.add_argument('--threads', type=int, default=2),
        parser.add_argument('--peers', type=Path, default=Path('.peers')),
    )
    parser.add_argument('--own', action='store_true', help='kdfast and the bare loop alone')
    args = parser.parse_args()
    tasks = {task: [name for name in who if not args.own or name in (*FLOORS, *OWN)] for task, who in TASKS.items()}
    home = Path(tempfile.mkdtemp())
    prepare(args.data, args.images, home)
    peers = None if args.own else environment(args.peers)
    names = list(dict.fromkeys(name for who in tasks.values() for name in who))
    contenders = {name: Process(name, home, args.threads, peers if name in PEERS else sys.executable) for name in names}
    losses = {name: contender.ask('loss')['answer'] for name, contender in contenders.items()}
    assert max(losses.values()) - min(losses.values()) < 1e-4 * max(losses.values()), losses
    print(f'the same loss of a fixed batch: {", ".join(f"{name} {value:.5f}" for name, value in losses.items())}')
    seconds, memory = {(task, name): [] for task, who in tasks.items() for name in who}, {}
    for turn in range(args.rounds + 1):  # the first warms up, and fills the caches of outputs
        for task, who in tasks.items():
            for name in who[turn % len(who) :] + who[: turn % len(who)]:
                answer = contenders[name].ask(task)
                memory[name] = max(memory.get(name, 0), answer['megabytes'])
                if turn:
                    seconds[task, name].append(answer['answer'])
    for contender in contenders.values():
        contender.process.kill()
    print(
        f'\nimages per second: median (lowest … highest) of {args.rounds} rounds '
        f'of {args.images:,} images, {args.threads} threads'
    )
    for (task, name), took in seconds.items():
        print(f'{task:<12} {name:<16} {spread([args.images / s for s in took])}')
    print('\nratios of seconds, round by round')
    others = {} if args.own else BEST
    best = {what: min(names, key=lambda name: median(seconds['kd', name])) for what, names in others.items()}
    for what, *sides, goal in RATIOS:
        (ours, theirs), found = [(task, best.get(name, name)) for task, name in sides], seconds.get
        if found(ours) and found(theirs):
            print(f'{what:<50} {spread([a / b for a, b in zip(seconds[ours], seconds[theirs])])}  {goal}')
    print('; '.join(f'{what}: {name}' for what, name in best.items()))
    print('\nmegabytes above importing torch: ' + ', '.join(f'{name} {mb:.0f}' for name, mb in memory.items()))
    print(f'seconds to read and check {args.data} once: {scan(args.data):.1f}')
    print(
        f'seconds from the command to the first step: {spread([start_up(args.data, args.threads) for _ in range(3)])}'
    )
    shutil.rmtree(home)


if __name__ == '__main__':
    main()
