"""Capture what is launched on a GPU, and leave everything else as it was."""

import gc
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

WARM_UP = 3  # passes on a stream of their own, which PyTorch asks for before a capture


def on_gpu(
    x,  # Any input of a network
):
    "Return whether an input is a tensor on a GPU."
    return isinstance(x, Tensor) and x.is_cuda


def detached(
    x: Tensor,  # Any tensor
):
    "Return a tensor without autograd history and without a subclass of Tensor."
    return x.detach().as_subclass(Tensor)


def as_type_of(
    x: Tensor,  # The input of a network
    output: Tensor,  # Its output
):
    "Return an output as the input's subclass of Tensor, such as fastai's TensorImage."
    return output if type(x) is Tensor else output.as_subclass(type(x))  # as fastai's tensors stay what they are


@contextmanager
def state_preserved(
    network: nn.Module,  # Whose buffers are restored
    device: torch.device,  # Whose random state is restored
):
    "Restore batch-norm statistics and random states afterwards, whatever is computed in between."
    buffers = list(network.buffers())
    kept = [t.clone() for t in buffers]
    try:
        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            yield
    finally:
        with torch.no_grad():
            for t, before in zip(buffers, kept):
                t.copy_(before)


@contextmanager
def parameters_replaced(
    network: nn.Module,  # Whose parameters are replaced
    leaves: dict,  # New parameters, by id of the old ones
):
    "Let a network compute with other parameters in between."
    places = [(m._parameters, name, p) for m in network.modules() for name, p in m._parameters.items() if p is not None]
    for held, name, p in places:
        held[name] = leaves[id(p)]
    try:
        yield
    finally:
        for held, name, p in places:
            held[name] = p


@lru_cache(None)
def stream_of(
    device: torch.device,  # A GPU
):
    "Return the stream on which graphs of a device are captured."
    return torch.cuda.Stream(device)


@contextmanager
def stream_kept(
    device: torch.device,  # A GPU, which is the current one in between
):
    "Return to the GPU and the stream that were current: a capture that fails stays on its own."
    before = torch.cuda.current_stream(device)
    with torch.cuda.device(device):
        try:
            yield
        finally:
            torch.cuda.set_stream(before)  # which makes its GPU the current one


def capture(
    compute: Callable,  # Launches kernels, and reads nothing from the device
    device: torch.device,  # A GPU
    warm_up: Callable | None = None,  # Launches the same, and what follows, before
) -> tuple:  # What `compute` gave, and what fills that again
    """Capture a CUDA graph of what `compute` launches.

    Raises whatever prevents it; the current stream and the garbage collector are then as before.
    """
    graph, stream, ahead = (torch.cuda.CUDAGraph(), stream_of(device), torch.cuda.current_stream(device))
    if 2 * torch.cuda.max_memory_allocated(device) > torch.cuda.mem_get_info(device)[0]:
        raise MemoryError('the GPU has no room for it')
    collecting, generator = gc.isenabled(), torch.cuda.default_generators[device.index or 0]
    random_state = generator.clone_state()
    gc.disable()  # it may free what CUDA frees in no capture
    try:
        with stream_kept(device):
            stream.wait_stream(ahead)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP if warm_up else 0):
                    warm_up()
            ahead.wait_stream(stream)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode='thread_local'):
                output = compute()
    except BaseException:
        generator.graphsafe_set_state(random_state)  # a capture that fails leaves it in the middle of one
        raise
    finally:
        if collecting:
            gc.enable()
    return output, graph.replay
