"""Measure how time and memory of an epoch of distillation grow with the number and size of images.

python benchmarks/work.py cifar10-images.tar.xz [--rounds 2] [--threads 2]

Each point is an epoch and the validation of 1,000 images as `kdfast run` computes them, in a process of its own; points
are interleaved. The last columns are images per second, time per pixel relative to the first row, and the most memory
above that of the imports, without pages of mapped files, which the system can take back.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Event, Thread

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))
POINTS = [
    (10_000, 32),
    (20_000, 32),
    (40_000, 32),
    (60_000, 32),
    (10_000, 64),
    (10_000, 96),
]  # number of images, side in pixels


def epoch(source, n, side, threads):
    "Seconds of an epoch of distillation"
    from time import perf_counter

    import numpy as np
    import torch
    from fastai.vision.all import SGD, CrossEntropyLossFlat, ProgressCallback, accuracy, noop

    from kdfast.core.memory import keep_freed_memory
    from kdfast.data import load
    from kdfast.data.arrays import Rows
    from kdfast.data.dataloaders import loaders
    from kdfast.distill.distill import Distill
    from kdfast.models.study_networks import thin, wide
    from kdfast.training.learner import RunLearner
    from kdfast.training.precision import Bfloat16, multiplies_bfloat16

    keep_freed_memory()
    torch.set_num_threads(threads)
    data = load(source, size=None if side == 32 else side)
    rows = np.arange(n) % len(data.train[1])  # what there is, from the beginning again where that is too little
    valid = tuple(part[:1000] for part in data.valid)
    dls = loaders(replace(data, train=(Rows(data.train[0], rows), data.train[1][rows]), valid=valid))
    learn = RunLearner(
        dls,
        thin(len(data.classes)).to(memory_format=torch.channels_last),
        CrossEntropyLossFlat(),
        opt_func=SGD,
        metrics=accuracy,
        cbs=[Bfloat16()] if multiplies_bfloat16(dls.device) else [],
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    teacher = wide(len(data.classes)).to(memory_format=torch.channels_last)
    began = perf_counter()
    learn.fit(1, 0.01, cbs=Distill(teacher))
    return perf_counter() - began


def measured(*arguments):
    "What `epoch` returns, and megabytes of memory that it took beyond the imports"
    import fastai.vision.all  # noqa: F401 (not counted)

    before = memory()
    most, over = [before], Event()

    def watch():
        while not over.wait(0.01):
            most[0] = max(most[0], memory())

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    seconds = epoch(*arguments)
    over.set()
    watcher.join()
    return seconds, most[0] - before


def memory():
    "Megabytes of memory of this process, without pages of files"
    status = Path('/proc/self/status').read_text()
    return int(status.partition('RssAnon:')[2].split()[0]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data')
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--point', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point is not None:
        return print(json.dumps(measured(args.data, *POINTS[args.point], args.threads)))
    found = {point: [] for point in POINTS}
    env = os.environ | dict(OMP_NUM_THREADS=str(args.threads), PYTHONWARNINGS='ignore')
    for _ in range(args.rounds):
        for i, point in enumerate(POINTS):
            said = subprocess.run(
                [sys.executable, HERE, args.data, '--threads', str(args.threads), '--point', str(i)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=env,
            )
            found[point].append(json.loads(said.stdout.splitlines()[-1]))
            print(
                f'{point[0]:,} images of {point[1]}×{point[1]}: {found[point][-1][0]:.1f} s',
                file=sys.stderr,
                flush=True,
            )
    seconds = {point: median(took for took, _ in those) for point, those in found.items()}
    per_pixel = {(n, side): took / n / side**2 for (n, side), took in seconds.items()}
    print(f'{"images":>8} {"pixels":>8} {"seconds":>26} {"images/s":>9} {"per pixel":>10} {"MB":>6}')
    for (n, side), those in found.items():
        took = [s for s, _ in those]
        seconds_text = f'{median(took):.1f} ({min(took):.1f} … {max(took):.1f})'
        print(
            f'{n:>8,} {f"{side}×{side}":>8} {seconds_text:>26} {n / median(took):>9.0f} '
            f'{per_pixel[n, side] / per_pixel[POINTS[0]]:>10.2f} {max(mb for _, mb in those):>6.0f}'
        )


if __name__ == '__main__':
    main()
