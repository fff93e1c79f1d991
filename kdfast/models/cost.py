"Measure the cost of inference: multiply-adds, latency."

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor, nn

from kdfast.models.multiply_adds import count_multiply_adds

LATENCY_REPEATS = 40  # the latency is the shortest of so many measurements
MAX_SECONDS = 10  # of all measurements together


def to_half(
    logits: Tensor,  # Floating point
) -> Tensor:
    "Convert logits to half precision if all values are in its range."
    return logits.half() if logits.abs().max() <= torch.finfo(torch.half).max else logits


def count_macs(
    network: nn.Module,  # Left in evaluation mode
    run,  # The `Run` whose first validation image is used
) -> int | None:  # None if PyTorch counts none
    "Count the multiply-adds for one image. Raises ValueError if those of an operator are unknown."
    with parameters_frozen(network), torch.no_grad():
        return count_multiply_adds(inference_fn(network, run)) or None


@contextmanager
def parameters_frozen(
    network: nn.Module,  # Any network
) -> Iterator[None]:
    "Freeze all parameters temporarily: FlopCounterMode fails for some networks otherwise."
    trained = [p for p in network.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def measure_latency(
    network: nn.Module,  # Left in evaluation mode
    run,  # The `Run` whose first validation image and threads are used
) -> float:  # Seconds
    "Measure the time of inference for one image, as the shortest of several measurements."
    classify_one = inference_fn(network, run)
    seconds = []
    with torch.no_grad():
        while len(seconds) < (1 if run.rehearsal else LATENCY_REPEATS) and sum(seconds) < MAX_SECONDS:
            began = perf_counter()
            classify_one()
            seconds.append(perf_counter() - began)
    return round(min(seconds), 6)


def inference_fn(
    network: nn.Module,  # Moved to the device of the images, in evaluation mode
    run,  # The `Run` whose first validation image is used
) -> Callable:
    "Return a function that classifies one image and waits until the device is done."
    x = run.dls.valid.one_batch()[0][:1].as_subclass(torch.Tensor)
    network.to(x.device).eval()  # stage one moves only the front of the student

    def classify_one():
        network(x)
        if x.device.type != 'cpu':
            torch.accelerator.synchronize(x.device)

    return classify_one
