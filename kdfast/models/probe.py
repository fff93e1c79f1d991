"Whether a network can be trained and kept: shown images, saved and loaded in memory, before anything is written."

import hashlib
import json
import re
import sys
from contextlib import nullcontext

import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.source import error_reason
from kdfast.data.dataset import Data
from kdfast.models import state
from kdfast.models.weights import size

MOVED = 0.02  # standard deviation of what is added to parameters, in place of training


def examine(
    network: nn.Module,  # To be looked at; its weights are changed
    other: nn.Module,  # The same, built once more
    name: str,  # For the error
    data: Data,  # What it is for
) -> str:  # A digest of its structure
    """Show it images, save it, and load that into the other one; raise KdfastError where it cannot be trained on the data and kept.

    Weights are moved before it is saved, as training would move them, so that what is not saved shows.
    """
    for net in (network, other):
        as_trained(net, name)
    with eager(), torch.autocast('cpu', enabled=False):
        check_logits(network, name, tuple(data.shape), len(data.classes))
        if data.grow < 1:
            check_growing(network, name, data)
        move(network, name)
        check_equal(network, copied(network, other, name), name, tuple(data.shape))
    return structure(network)


def check_growing(network, name, data):
    try:
        check_logits(network, name, tuple(data.shape_at(0)), len(data.classes))
    except KdfastError as e:
        raise KdfastError(f'{e.message}; training begins at that size with --grow {data.grow}') from e


def eager():
    "What was compiled runs as it is written; whoever compiles has imported what does it, which takes its time"
    return torch.compiler.set_stance('force_eager') if 'torch._dynamo' in sys.modules else nullcontext()


def as_trained(network, name):
    try:
        network.to(memory_format=torch.channels_last)
    except RuntimeError as e:
        raise KdfastError(
            f'{name} cannot be trained: its weights cannot be ordered channels-last ({error_reason(e)})'
        ) from e


def check_logits(network, name, shape, n_classes):
    "Raise KdfastError where it gives anything but a column a class, in training or in evaluation, of several images or one"
    modes = [(True, 2), (False, 2), (False, 1)]
    for (training, n), found in zip(modes, look(network, name, modes, shape)):
        if isinstance(found, torch.Tensor) and found.shape == (n, n_classes) and found.is_floating_point():
            continue
        gives = (
            type(found).__name__
            if not isinstance(found, torch.Tensor)
            else size(found) + (f' of {found.dtype}' if not found.is_floating_point() else '')
        )
        hint = '' if isinstance(found, torch.Tensor) else ': let its forward return them alone'
        raise KdfastError(
            f'{name} gives {gives} for {"two images" if n == 2 else "one image"}, expected {n}×{n_classes}: logits, a column a class; '
            f'in {"training" if training else "evaluation"} mode{hint}'
        )


def look(network, name, modes, shape, seed=0):
    "What it makes of images: whether in training mode, and how many, of each. Raises KdfastError where it cannot see them"
    p = next(network.parameters(), torch.zeros(0))

    def images(n, channels=3):
        return torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(seed)).to(p.device)

    try:
        with torch.no_grad():
            return [network.train(training)(images(n)) for training, n in modes]
    except Exception as e:
        height, width = shape
        channels = next((n for n in (1, 2, 4) if accepts(network, images(2, n))), None)
        if channels:
            raise KdfastError(
                f'{name} takes images of {channels} channel{"s" * (channels > 1)}, expected 3 channels (red, green, blue), which grey '
                'images have, too: build it for 3 (in_chans=3 in timm)'
            ) from e
        raise KdfastError(
            f'{name} cannot see images of {width}×{height}: {error_reason(e)}; choose another --size or network'
        ) from e


def accepts(network, images):
    try:
        with torch.no_grad():
            network.eval()(images)
    except Exception:
        return False  # whatever a network of somebody else's says to such images
    return True


@torch.no_grad()
def move(network, name):
    "Change every parameter a little, in place, as optimizers do"
    for key, p in network.named_parameters():
        try:
            p.add_(torch.randn_like(p) * MOVED)
        except (RuntimeError, NotImplementedError) as e:
            raise KdfastError(f'{name} cannot be trained: {key} cannot be changed ({error_reason(e)})') from e


def copied(network, other, name):
    "The other one, with the state of the first, by way of what would be a file"
    try:
        state.serialized(network, {})
        state.restore(other, *state.packed(network))
    except KdfastError as e:
        raise KdfastError(f'{name} could be trained, but not saved: {e.message}') from e
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KdfastError(f'{name} could be trained and saved, but not loaded: {error_reason(e)}') from e
    return other


def check_equal(network, restored, name, shape):
    "Raise KdfastError where both do not say the same of some images"
    logits = []
    for net in (network, restored):
        torch.manual_seed(0)  # should it draw random numbers in evaluation, too
        logits += look(net, name, [(False, 2)], shape, seed=1)
    scale = float(logits[0].nan_to_num().abs().max())
    if torch.allclose(*logits, rtol=1e-4, atol=1e-4 * scale, equal_nan=True):
        return
    raise KdfastError(
        f'{name} says something else once it is saved and loaded, for it depends on what its state dict does not hold: '
        'register tensors with register_buffer and lists of modules as nn.ModuleList, and draw nothing at random but weights'
    )


def structure(
    network: nn.Module,
) -> str:  # 16 hexadecimal digits
    "A digest of what a network is made of: its modules, their settings, the kinds and shapes of its state."
    modules = [(name, type(module).__qualname__, module.extra_repr()) for name, module in network.named_modules()]
    tensors = [
        (name, str(getattr(value, 'dtype', '')), str(getattr(value, 'shape', '')))
        for name, value in network.state_dict().items()
    ]
    text = re.sub(r' at 0x[0-9a-f]+', '', json.dumps([modules, tensors]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
