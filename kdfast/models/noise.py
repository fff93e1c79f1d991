"Run a network on noise in place of images, and leave the network and all random states as they were."

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from kdfast.models.inference import evaluating, uncompiled
from kdfast.models.random_states import random_states_kept
from kdfast.models.undone import undone


class Inputs:
    "The inputs of a network, whose images (float tensors of four dimensions) can be replaced by noise."

    def __init__(
        self,
        inputs: tuple[tuple, dict],  # Positional and keyword arguments
    ):
        self.inputs = inputs
        images = [x for x in tree_leaves(inputs) if is_image(x)]
        self.n = len(images[0]) if images else 0
        self.sides = tuple(images[0].shape[2:]) if images else ()
        self.size = tuple(tuple(x.shape[1:]) for x in images)

    def noise(
        self,
        n: int,  # Images
        scale: tuple[int, int] = (1, 1),  # Factors of height and width
        change: Callable = lambda images: images,  # Applied to each batch of images
        seed: int = 0,  # Of the noise
    ) -> tuple[tuple, dict]:
        "Return the inputs with noise as images; other tensors of the batch repeat their first row."
        generator = torch.Generator().manual_seed(seed)

        def replaced(x):
            if is_image(x):
                height, width = (side * factor for side, factor in zip(x.shape[2:], scale))
                images = torch.randn(n, x.shape[1], height, width, generator=generator)
                return change(images).to(x.device, x.dtype)
            if self.n and isinstance(x, Tensor) and x.shape[:1] == (self.n,):
                return x[:1].expand(n, *x.shape[1:]).clone()
            return x

        return tree_map(replaced, self.inputs)


def is_image(
    x: object,  # An input of a network
) -> bool:
    "Return whether an input is a batch of images."
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


@contextmanager
def trial(
    network: nn.Module,  # Any network; left as it was (`undone`)
) -> Iterator[None]:
    """Run a network in evaluation mode, without gradients, uncompiled and with random states of its own.

    Forward hooks of the user are called, too: networks may need them.
    """
    with random_states_kept(), torch.no_grad(), undone(network), evaluating(network), uncompiled(network):
        yield


def record_layers(
    network: nn.Module,  # To call
    layers: dict[str, nn.Module],  # Some of its layers by name
    record: Callable,  # Called with the name and the output of a layer, whenever it computes
    inputs: tuple[tuple, dict],  # Positional and keyword arguments of the network
) -> Exception | None:  # What stopped the network
    "Run one forward pass, as far as the network gets; what it changes in the network is undone."
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: record(name, output))
        for name, module in layers.items()
    ]
    try:
        with undone(network):
            network(*inputs[0], **inputs[1])
    except Exception as e:  # networks of users may raise anything for images of another size
        return e
    finally:
        for hook in hooks:
            hook.remove()
