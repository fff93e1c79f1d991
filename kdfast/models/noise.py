"A network shown noise in place of its images: what its layers give for that, while the network and all random states stay as they were."

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from kdfast.models.inference import evaluating, tensors, uncompiled


class Inputs:
    "What a network is called with, and the same with noise in place of the images: float tensors of four dimensions."

    def __init__(
        self,
        given: tuple[tuple, dict],  # Positional arguments, and those by name
    ):
        self.given = given
        images = [x for x in tree_leaves(given) if is_image(x)]
        self.n, self.sides = (len(images[0]), tuple(images[0].shape[2:])) if images else (0, ())
        self.size = tuple(tuple(x.shape[1:]) for x in images)

    def noise(
        self,
        n: int,  # Images
        scale: tuple[int, int] = (1, 1),  # Factors of height and width
        change: Callable = lambda images: images,  # Of a batch
        seed: int = 0,  # Decides the noise
    ) -> tuple[tuple, dict]:
        "What else is given for each image is the first image's."
        draws = torch.Generator().manual_seed(seed)

        def other(x):
            if is_image(x):
                height, width = (side * factor for side, factor in zip(x.shape[2:], scale))
                return change(torch.randn(n, x.shape[1], height, width, generator=draws)).to(x.device, x.dtype)
            return (
                x[:1].expand(n, *x.shape[1:]).clone()
                if self.n and isinstance(x, Tensor) and x.shape[:1] == (self.n,)
                else x
            )

        return tree_map(other, self.given)


def is_image(x):
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


@contextmanager
def trying(
    network: nn.Module,  # Any network
) -> Iterator[None]:
    "While this lasts, it computes in evaluation mode, without gradient and uncompiled, and draws from random states of its own."
    devices = {t.device for t in tensors(network) if t.is_cuda}
    with torch.random.fork_rng(devices), torch.no_grad(), evaluating(network), uncompiled(network):
        yield


def watch(
    network: nn.Module,  # To be called
    layers: dict[str, nn.Module],  # Names and modules of some of its layers
    see: Callable,  # Is given name and output of a layer whenever that has computed
    given: tuple[tuple, dict],  # What the network is called with
) -> Exception | None:  # What stopped it, if anything did
    "One forward pass, as far as the network gets."
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, output))
        for name, module in layers.items()
    ]
    try:
        network(*given[0], **given[1])
    except Exception as e:
        return e  # whatever a network of somebody else's does with images of a size that it was not made for
    finally:
        for hook in hooks:
            hook.remove()
