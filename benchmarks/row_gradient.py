"""Compare training steps with weight gradients from joined images and with PyTorch's, in bfloat16; interleaved.

python benchmarks/row_gradient.py [--rounds 10] [--threads 2]

For CPUs with AMX (`kdfast.training.row_gradient`). First single convolutions, then whole steps of networks on random
images in memory. Prints medians of milliseconds, and the median of their ratios with its range over rounds.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy
from torchvision.models import resnet18

from kdfast.models.study_networks import thin, wide
from kdfast.training.row_gradient import convolution_backward, convolve, weight_gradient

CONVOLUTIONS = [  # in and out channels, side of the output, stride; kernels of 3×3
    *[(channels, channels, side, 1) for side, channels in ((4, 48), (4, 88), (4, 184), (4, 512), (7, 512))],
    *[(channels, channels, 8, 1) for channels in (40, 64, 84, 128, 256)],
    *[(64, 64, 14, 1), (256, 256, 14, 1), (40, 88, 4, 2), (84, 184, 4, 2), (128, 256, 8, 2)],
]
NETWORKS = [  # name, network, images in a batch, their side
    ('student of the study', lambda: thin(10), 128, 32),
    ('teacher of the study', lambda: wide(10), 128, 32),
    ('resnet18', lambda: resnet18(num_classes=10), 64, 64),
    ('resnet18', lambda: resnet18(num_classes=10), 32, 224),
]


def milliseconds(compute: Callable, *arguments):
    began = perf_counter()
    compute(*arguments)
    return (perf_counter() - began) * 1000


def report(name: str, rounds: list[tuple[float, float]]):
    "Print the times of both ways; the first round warms up"
    ours, theirs = zip(*rounds[1:])
    ratios = [a / b for a, b in zip(ours, theirs)]
    print(
        f'{name:<36} PyTorch {median(theirs):8.2f} ms, joined {median(ours):8.2f} ms; '
        f'ratio {median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})',
        flush=True,
    )


def compare_convolution(inputs: int, outputs: int, side: int, stride: int, rounds: int):
    "Time the weight gradient of one convolution on 128 images"
    weight = torch.randn(outputs, inputs, 3, 3, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    x = torch.randn(128, inputs, side * stride, side * stride, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last)
    geometry = [stride, stride], [1, 1], [1, 1]
    of_output = torch.randn_like(conv2d(x, weight, None, *geometry))

    def by_pytorch():
        convolution_backward(of_output, x, weight, None, *geometry, False, [0, 0], 1, [False, True, False])

    def joined():
        weight_gradient(of_output, x, weight, *geometry)

    name = f'{inputs} → {outputs} channels, {side}×{side}, stride {stride}'
    report(name, [(milliseconds(joined), milliseconds(by_pytorch)) for _ in range(rounds + 1)])


def compare_network(name: str, network: nn.Module, images: int, side: int, rounds: int):
    "Time the forward and backward pass of a network"
    network = network.to(memory_format=torch.channels_last)
    x, y = torch.rand(images, 3, side, side).to(memory_format=torch.channels_last), torch.arange(images) % 10
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]

    def step(joins):
        for conv in convolutions:
            conv._conv_forward = partial(convolve if joins else nn.Conv2d._conv_forward, conv)
        with torch.autocast('cpu', torch.bfloat16, cache_enabled=False):
            out = network(x).float()
        cross_entropy(out, y).backward()
        network.zero_grad()

    times = [(milliseconds(step, True), milliseconds(step, False)) for _ in range(rounds + 1)]
    report(f'{name}, {images} × {side}×{side}', times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--threads', type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for convolution in CONVOLUTIONS:
        compare_convolution(*convolution, options.rounds)
    for name, make, images, side in NETWORKS:
        compare_network(name, make(), images, side, options.rounds)


if __name__ == '__main__':
    main()
