"""Time a step with other memory layouts, torch.compile, bfloat16, batch sizes, threads and Muon, against kdfast's.

python benchmarks/kernels.py [--rounds 5] [--threads 2] [--images 1024] [--side 32]

Every round times every variant on the same random images in memory. Prints medians of images per second, and ratios to
the first line with their range over rounds. torch.compile needs a C++ compiler; compilation is timed separately.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kdfast.models.folding import faster
from kdfast.models.study_networks import thin, wide
from kdfast.training.optimizers.muon import Muon
from kdfast.training.precision import multiplies_bfloat16

import torch
from fastai.optimizer import SGD
from torch.nn.functional import cross_entropy


@dataclass
class Variant:
    "One way to compute; the defaults are kdfast's."

    batch: int = 128
    threads: int = 2
    layout: torch.memory_format = torch.channels_last
    compiled: bool = False
    bfloat16: bool = False
    optimizer: Callable = SGD

    def prepare(self, network):
        network = network.to(memory_format=self.layout)
        return torch.compile(network) if self.compiled else network

    def precision(self):
        return torch.autocast('cpu', torch.bfloat16) if self.bfloat16 else nullcontext()


def trains(make: Callable, variant: Variant) -> Callable:
    "A training step of a network on labels"
    network = variant.prepare(make())
    optimizer = variant.optimizer(list(network.parameters()), lr=1e-4, mom=0.9)

    def step(x, y):
        with variant.precision():
            logits = network(x)
        cross_entropy(logits.float(), y).backward()
        optimizer.step(), optimizer.zero_grad()

    return step


def predicts(make: Callable, variant: Variant) -> Callable:
    "Return the forward pass of the teacher with folded batch norms"
    network = variant.prepare(faster(make().eval(), (torch.randn(2, 3, 32, 32),)))

    @torch.no_grad()
    def step(x, _):
        with variant.precision():
            network(x)

    return step


def images_a_second(step, variant, x, y):
    torch.set_num_threads(variant.threads)
    began = perf_counter()
    for start in range(0, len(x), variant.batch):
        step(x[start : start + variant.batch], y[start : start + variant.batch])
    return len(x) / (perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(rounds=5, threads=2, images=1024, side=32).items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args()
    torch.manual_seed(0)
    x, y = torch.randn(args.images, 3, args.side, args.side), torch.randint(10, (args.images,))
    same = dict(threads=args.threads)
    variants = {
        'as kdfast does': Variant(**same),
        'one thread': Variant(threads=1),
        'batches of 64': Variant(64, **same),
        'batches of 256': Variant(256, **same),
        'channels first': Variant(layout=torch.contiguous_format, **same),
        'torch.compile': Variant(compiled=True, **same),
    }
    if multiplies_bfloat16(x.device):
        variants['bfloat16'] = Variant(bfloat16=True, **same)
    for what, kind, make in (
        ('student trains', trains, thin),
        ('teacher trains', trains, wide),
        ('teacher predicts', predicts, wide),
    ):
        steps, inputs = {}, {}
        tried = variants | (dict(Muon=Variant(optimizer=Muon, **same)) if kind is trains else {})
        for name, variant in tried.items():
            steps[name], inputs[name] = kind(make, variant), x.to(memory_format=variant.layout)
            began = perf_counter()
            steps[name](inputs[name][: variant.batch], y[: variant.batch])  # warms up, and compiles
            if variant.compiled:
                print(f'{what}: compiled in {perf_counter() - began:.0f} s')
        rounds = [
            {name: images_a_second(steps[name], variant, inputs[name], y) for name, variant in tried.items()}
            for _ in range(args.rounds)
        ]
        for name in tried:
            ratios = [speeds[name] / speeds['as kdfast does'] for speeds in rounds]
            print(
                f'{what:<18}{name:<16}{median(speeds[name] for speeds in rounds):7.0f} images/s'
                f'{median(ratios):7.2f} ({min(ratios):.2f} … {max(ratios):.2f})',
                flush=True,
            )


if __name__ == '__main__':
    main()
