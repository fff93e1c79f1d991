"""Compare OpenMP settings for waiting threads, on a quiet and on a loaded machine; interleaved.

python benchmarks/waiting.py [--rounds 3] [--steps 40] [--threads 2] [--preload libiomp5.so]

Threads of a training step wait actively for the slowest one; if another process occupies its core, all threads lose
that time. Every cell is a process of its own that distills the study's student on random images in memory, in bfloat16
where the CPU multiplies it. Prints medians of images per second. --preload replaces torch's OpenMP library (by Intel's
or LLVM's). The last line tells whether equal settings gave equal losses, to the bit.
"""

import argparse
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import median

BATCH = 128
GNU = {
    'default': {},
    'passive': dict(OMP_WAIT_POLICY='PASSIVE'),
    **{f'spin {n}': dict(GOMP_SPINCOUNT=str(n)) for n in (2000, 20000, 200000)},
}
INTEL = {'default': {}, **{f'block {ms} ms': dict(KMP_BLOCKTIME=str(ms)) for ms in (0, 1, 10)}}
LOADS = ['quiet', 'busy process', 'busy threads']


def train(steps: int, threads: int):
    "A KD step of the study's networks, again and again; the images a second and the last loss"
    import torch
    from torch.nn.functional import cross_entropy

    from kdfast.distill.losses.logits import kd_loss
    from kdfast.models.study_networks import thin, wide
    from kdfast.training.precision import multiplies_bfloat16

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    teacher, student = (make(10).to(memory_format=torch.channels_last) for make in (wide, thin))
    x = torch.rand(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.arange(BATCH) % 10
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    teacher.eval()
    for step in range(steps + 3):
        if step == 3:
            began = time.perf_counter()
        with torch.autocast('cpu', torch.bfloat16, enabled=multiplies_bfloat16(x.device)):
            with torch.no_grad():
                target = teacher(x)
            logits = student(x)
        loss = torch.lerp(cross_entropy(logits.float(), y), kd_loss(logits, target), 0.9)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(BATCH * steps / (time.perf_counter() - began), loss.item().hex())


def burn(threads: int):
    "Other work: matrix products until the process is killed"
    import torch

    torch.set_num_threads(threads)
    a = torch.rand(512, 512)
    print('burning', flush=True)
    while True:
        a = (a @ a).tanh()


def child(what, *arguments, env=(), **kwargs):
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, __file__, '--child', what, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict(PYTHONPATH=root, PYTHONWARNINGS='ignore') | dict(env),
        **kwargs,
    )


def measure(env, load, options):
    "Images a second and the last loss, beside that load"
    burner = child('burn', 1 if load == 'busy process' else options.threads) if load != 'quiet' else None
    if burner:
        burner.stdout.readline()
    try:
        said = child('train', options.steps, options.threads, env=env).communicate()[0].split()
    finally:
        if burner:
            burner.kill()
    return float(said[0]), said[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3), parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--threads', type=int, default=2), parser.add_argument('--preload')
    options = parser.parse_args()
    settings = INTEL if options.preload else GNU
    own = dict(LD_PRELOAD=options.preload) if options.preload else {}
    rates, losses = {cell: [] for cell in product(settings, LOADS)}, set()
    for _ in range(options.rounds):
        for setting, load in rates:
            rate, loss = measure(settings[setting] | own, load, options)
            rates[setting, load].append(rate)
            losses.add(loss)
    print(f'{"images a second":<16}' + ''.join(f'{load:>28}' for load in LOADS))
    for setting in settings:
        cells = [rates[setting, load] for load in LOADS]
        print(f'{setting:<16}' + ''.join(f'{f"{median(c):,.0f} ({min(c):,.0f} … {max(c):,.0f})":>28}' for c in cells))
    print(f'the last loss is {"the same to the bit in all" if len(losses) == 1 else f"not the same: {losses}"}')


if __name__ == '__main__':
    if '--child' in sys.argv:
        dict(train=train, burn=burn)[sys.argv[2]](*map(int, sys.argv[3:]))
    else:
        main()
