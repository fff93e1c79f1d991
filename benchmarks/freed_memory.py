"""Compare training steps that keep freed memory with steps that return it to the system; interleaved processes.

python benchmarks/freed_memory.py [--rounds 3] [--steps 8] [--threads 2]

Forward and backward passes in bfloat16 on random images. Every cell is a process of its own. Prints medians of
milliseconds and of page faults a step, and the median of the ratios with its range over rounds.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
NETWORKS = {  # images in a batch, and their side
    'student of the study': (128, 32),
    'teacher of the study': (128, 32),
    'resnet18, 64×64': (64, 64),
    'resnet18, 224×224': (32, 224),
}


def build(name: str):
    "The network of a name"
    from torchvision.models import resnet18

    from kdfast.models.study_networks import thin, wide

    if name.startswith('resnet18'):
        return resnet18(num_classes=10)
    return thin(10) if name.startswith('student') else wide(10)


def train(name: str, keep: bool, steps: int, threads: int):
    "Milliseconds and page faults of a step, the median and the mean of several"
    from kdfast.core.memory import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit('this C library does not support it')
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(threads)
    images, side = NETWORKS[name]
    network = build(name).to(memory_format=torch.channels_last)
    x, y = torch.rand(images, 3, side, side).to(memory_format=torch.channels_last), torch.arange(images) % 10
    times, faults = [], 0
    for step in range(steps + 3):  # three to warm up
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = perf_counter()
        with torch.autocast('cpu', torch.bfloat16):
            out = network(x).float()
        cross_entropy(out, y).backward()
        network.zero_grad()
        if step >= 3:
            times.append((perf_counter() - began) * 1000)
            faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(json.dumps([median(times), faults / steps]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--cell', nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        name, keep = options.cell
        return train(name, keep == 'True', options.steps, options.threads)
    for name in NETWORKS:
        found = {False: [], True: []}
        for _ in range(options.rounds):
            for keep in found:
                command = [sys.executable, __file__, '--steps', str(options.steps), '--threads', str(options.threads)]
                done = subprocess.run([*command, '--cell', name, str(keep)], check=True, capture_output=True, text=True)
                found[keep].append(json.loads(done.stdout))
        (returned, many), (kept, few) = (map(median, zip(*found[keep])) for keep in found)
        ratios = [ours / theirs for (ours, _), (theirs, _) in zip(found[True], found[False])]
        print(
            f'{name:<24} returned {returned:6.1f} ms, {many:7,.0f} page faults; kept {kept:6.1f} ms, {few:6,.0f}; '
            f'ratio {median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})',
            flush=True,
        )


if __name__ == '__main__':
    main()
