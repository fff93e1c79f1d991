"Check, in memory and with random images, that a network can be trained, saved and loaded."

import hashlib
import json
import re
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from kdfast.core.errors import KdfastError, listed
from kdfast.core.explain import error_reason
from kdfast.core.format import shape_text
from kdfast.core.suggest import short_list
from kdfast.data.dataset import Data
from kdfast.models import state
from kdfast.models.channels_last import channels_last
from kdfast.models.probabilities import reject_probabilities

STEP = 0.02  # standard deviation of what is added to parameters, in place of training


def examine(
    network: nn.Module,  # Its weights are changed
    other: nn.Module,  # The same network, built once more
    name: str,  # Of the network, for errors
    data: Data,  # To train it on
) -> str:  # The digest that `structure` returns
    """Run a network, save it, and load it into the other one. Raises KdfastError if one of these fails.

    Its parameters are changed before it is saved, as in training, so that state which is not saved is noticed.
    """
    for net in (network, other):
        to_channels_last(net, name)
    with eager(), torch.autocast('cpu', enabled=False):
        check_logits(network, name, tuple(data.shape), len(data.classes))
        if data.grow < 1:
            check_start_size(network, name, data)
        check_steady(network, name, tuple(data.shape))
        perturb(network, name)
        check_equal(network, saved_and_loaded(network, other, name), name, tuple(data.shape))
    return structure(network)


def check_start_size(
    network: nn.Module,  # To check
    name: str,  # Of the network, for errors
    data: Data,  # With progressive resizing
):
    "Raise KdfastError if a network cannot process the images that progressive resizing starts with."
    try:
        check_logits(network, name, tuple(data.shape_at(0)), len(data.classes))
    except KdfastError as e:
        raise KdfastError(f'{e.message}; training begins at that size with --grow {data.grow}') from e


def eager() -> AbstractContextManager:
    """Return a context in which compiled networks run eagerly.

    If torch._dynamo, which imports slowly, has not been imported, no network is compiled.
    """
    return torch.compiler.set_stance('force_eager') if 'torch._dynamo' in sys.modules else nullcontext()


def to_channels_last(
    network: nn.Module,  # Changed in place
    name: str,  # Of the network, for errors
):
    "Convert weights to the memory format used in training. Raises KdfastError."
    try:
        channels_last(network)
    except RuntimeError as e:
        raise KdfastError(
            f'{name} cannot be trained: its weights cannot be ordered channels-last ({error_reason(e)})'
        ) from e


def check_logits(
    network: nn.Module,  # To check
    name: str,  # Of the network, for errors
    shape: tuple[int, int],  # Height and width of the images
    n_classes: int,  # Expected columns
):
    "Raise KdfastError unless the output is logits (images, classes), in both modes, also for one image."
    modes = [(True, 2), (False, 2), (False, 1)]
    for (training, n), output in zip(modes, try_forward(network, name, modes, shape)):
        is_tensor = isinstance(output, Tensor)
        if is_tensor and output.shape == (n, n_classes) and output.is_floating_point():
            if n > 1:
                reject_probabilities(output, name)
            continue
        gives = shape_text(output.shape) if is_tensor else type(output).__name__
        if is_tensor and not output.is_floating_point():
            gives += f' of {output.dtype}'
        images = 'two images' if n == 2 else 'one image'
        hint = '' if is_tensor else ': let its forward return them alone'
        raise KdfastError(
            f'{name} gives {gives} for {images}, expected {n}×{n_classes}: logits, a column a class; '
            f'in {"training" if training else "evaluation"} mode{hint}'
        )


def try_forward(
    network: nn.Module,  # To run; left in the mode of the last call
    name: str,  # Of the network, for errors
    modes: list[tuple[bool, int]],  # For each call: whether in training mode, and the number of images
    shape: tuple[int, int],  # Height and width of the images
    seed: int = 0,  # Of the images
) -> list:  # The output of each call
    "Run a network on random images. Raises KdfastError if it cannot process them."
    device = next(network.parameters(), torch.zeros(0)).device

    def images(n, channels=3):
        return torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(seed)).to(device)

    try:
        with torch.no_grad():
            return [network.train(training)(images(n)) for training, n in modes]
    except Exception as e:
        if others := {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}:
            raise KdfastError(
                f'{name} has weights of {listed(sorted(map(dtype_name, others)))}, expected float32 like its images: '
                'let the function that builds it return it with .float()'
            ) from e
        height, width = shape
        channels = next((n for n in (1, 2, 4) if accepts(network, images(2, n))), None)
        if channels:
            raise KdfastError(
                f'{name} takes images of {channels} channel{"s" * (channels > 1)}, expected 3 channels (red, green, '
                'blue), also for gray images: build it for 3 (in_chans=3 in timm)'
            ) from e
        raise KdfastError(
            f'{name} cannot process images of {width}×{height}: {error_reason(e)}; choose another --size or network'
        ) from e


def dtype_name(
    dtype: torch.dtype,  # Of a tensor
) -> str:
    "Return the name of a type, such as float64."
    return str(dtype).removeprefix('torch.')


def accepts(
    network: nn.Module,  # Switched to evaluation mode
    images: Tensor,  # (N, C, H, W)
) -> bool:
    "Return whether a network can process images."
    try:
        with torch.no_grad():
            network.eval()(images)
    except Exception:  # networks of users may raise anything
        return False
    return True


def check_steady(
    network: nn.Module,  # Called in evaluation mode
    name: str,  # Of the network, for errors
    shape: tuple[int, int],  # Height and width of the images
):
    "Raise KdfastError if outputs depend on earlier images, which change buffers in evaluation mode."
    before = {key: b.clone() for key, b in network.named_buffers()}
    logits = []
    for seed in (1, 2, 1):
        torch.manual_seed(0)  # for networks that draw random numbers in evaluation mode
        logits += try_forward(network, name, [(False, 2)], shape, seed)
    if torch.allclose(logits[0], logits[2], rtol=0, atol=0, equal_nan=True):
        return
    now = {key: b for key, b in network.named_buffers() if key in before and b.layout is torch.strided}
    if changed := [key for key, b in now.items() if not torch.equal(b, before[key])]:
        raise KdfastError(
            f'{name} changes {short_list(changed)} in evaluation mode, so that its outputs depend on earlier images: '
            'let it change them in training mode only; of networks prepared for quantization, give the unprepared one'
        )


@torch.no_grad()
def perturb(
    network: nn.Module,  # Changed in place
    name: str,  # Of the network, for errors
):
    "Change every parameter a little, in place. Raises KdfastError if one cannot be changed."
    for key, p in network.named_parameters():
        try:
            p.add_(torch.randn_like(p) * STEP)
        except (RuntimeError, NotImplementedError) as e:
            raise KdfastError(f'{name} cannot be trained: {key} cannot be changed ({error_reason(e)})') from e


def saved_and_loaded(
    network: nn.Module,  # To save
    other: nn.Module,  # The same network, into which its state is loaded
    name: str,  # Of the network, for errors
) -> nn.Module:  # The other one
    "Save a network in memory and load it into another one. Raises KdfastError."
    try:
        state.serialized(network, {})
        state.restore(other, *state.tensors_and_json(network))
    except KdfastError as e:
        raise KdfastError(f'{name} could be trained, but not saved: {e.message}') from e
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KdfastError(f'{name} could be trained and saved, but not loaded: {error_reason(e)}') from e
    return other


def check_equal(
    network: nn.Module,  # The original
    restored: nn.Module,  # With its state loaded
    name: str,  # Of the network, for errors
    shape: tuple[int, int],  # Height and width of the images
):
    "Raise KdfastError if two networks have different outputs for the same images."
    logits = []
    for net in (network, restored):
        torch.manual_seed(0)  # for networks that draw random numbers in evaluation mode
        logits += try_forward(net, name, [(False, 2)], shape, seed=1)
    scale = float(logits[0].nan_to_num().abs().max())
    if torch.allclose(*logits, rtol=1e-4, atol=1e-4 * scale, equal_nan=True):
        return
    raise KdfastError(
        f'{name} has different outputs after it is saved and loaded, because they depend on more than its state dict: '
        'register tensors with register_buffer and lists of modules as nn.ModuleList, and initialize nothing but '
        'weights at random'
    )


def structure(
    network: nn.Module,  # Any network
) -> str:  # 16 hexadecimal digits
    "Compute a digest of a network's modules, their settings, and the types and shapes of its state."
    modules = [(name, type(module).__qualname__, module.extra_repr()) for name, module in network.named_modules()]
    tensors = [
        (name, str(getattr(value, 'dtype', '')), str(getattr(value, 'shape', '')))
        for name, value in network.state_dict().items()
    ]
    text = re.sub(r' at 0x[0-9a-f]+', '', json.dumps([modules, tensors]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
