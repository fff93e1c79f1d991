"""What a network costs: multiply-adds, latency."""

from contextlib import contextmanager
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

LOOKS, LONGEST = 40, 10  # a latency is the shortest of so many times, or of as many as take so many seconds


def to_half(logits):
    "In half precision, where that can hold them"
    return logits.half() if logits.abs().max() <= torch.finfo(torch.half).max else logits


def count_macs(network, run):
    "Multiply-adds for one image; None where PyTorch counts none"
    with FlopCounterMode(display=False) as counter, parameters_frozen(network), torch.no_grad():
        inference_ready(network, run)()
    return counter.get_total_flops() // 2 or None


@contextmanager
def parameters_frozen(network):
    "What counts looks for gradients even where none are computed, and stops at some networks whose parameters could have them"
    trained = [p for p in network.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def measure_latency(network, run):
    "Seconds for one image, alone in its batch, with this run's threads: the shortest of many"
    classify_one, took = inference_ready(network, run), []
    with torch.no_grad():
        while len(took) < (1 if run.rehearsal else LOOKS) and sum(took) < LONGEST:
            began = perf_counter()
            classify_one()
            took.append(perf_counter() - began)
    return round(min(took), 6)


def inference_ready(network, run):
    "The network at work on one validation image, until the device is done"
    x = run.dls.valid.one_batch()[0][:1].as_subclass(torch.Tensor)
    network.to(x.device).eval()  # where not all of stage one's student went

    def classify_one():
        network(x)
        if x.device.type != 'cpu':
            torch.accelerator.synchronize(x.device)

    return classify_one
