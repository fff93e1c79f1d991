"Adapt a teacher to data that it was not trained on: normalization, image size, order of the classes."

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kdfast.core.errors import KdfastError
from kdfast.core.suggest import short_list
from kdfast.data.dataset import Data


class Renormalize(nn.Module):
    "Convert images (N, 3, H, W) from one normalization to another."

    def __init__(
        self,
        mean: list[float],  # Of the images as they are
        std: list[float],  # Of the images as they are
        to_mean: list[float],  # Of the normalization to return
        to_std: list[float],  # Of the normalization to return
    ):
        super().__init__()
        channels = [torch.tensor(values).view(3, 1, 1) for values in (mean, std, to_mean, to_std)]
        mean, std, to_mean, to_std = channels
        self.register_buffer('scale', std / to_std)
        self.register_buffer('shift', (mean - to_mean) / to_std)

    def forward(
        self,
        x: Tensor,  # Images in the first normalization
    ) -> Tensor:
        "Return images in the second normalization."
        return x * self.scale + self.shift


class Scale(nn.Module):
    "Scale images (N, C, H, W) to one size, bilinearly and with antialiasing."

    def __init__(
        self,
        size: list[int],  # Height and width
    ):
        super().__init__()
        self.size = tuple(size)

    def forward(
        self,
        x: Tensor,  # Images of any size
    ) -> Tensor:
        "Return images of the chosen size."
        return x if x.shape[-2:] == self.size else interpolate(x, self.size, mode='bilinear', antialias=True)


class Reorder(nn.Module):
    "Select columns of logits (N, classes) in a given order."

    def __init__(
        self,
        order: list[int],  # Indices of the columns
    ):
        super().__init__()
        self.register_buffer('order', torch.tensor(order))

    def forward(
        self,
        logits: Tensor,  # (N, classes)
    ) -> Tensor:
        "Return the selected columns."
        return logits[:, self.order]


def adapt_teacher(
    network: nn.Module,  # With `build_info`, the description of its data
    data: Data,  # That the student is trained on
    name: str,  # Of the teacher, for the error
) -> nn.Module:
    """Wrap a teacher so that it accepts images of `data` and returns logits in the order of its classes.

    Images are scaled to the size that the teacher was trained on. Raises KdfastError if the teacher lacks a class.
    """
    trained_on = network.build_info
    if (trained_on.get('labels') == 'several') != data.several:
        kinds = ('several labels', 'one label') if data.several else ('one label', 'several labels')
        raise KdfastError(
            f'the teacher {name} was trained on images with {kinds[1]}, and {data.name} has {kinds[0]} per image: '
            'their outputs mean different things'
        )
    unknown = [c for c in data.classes if c not in trained_on['classes']]
    if unknown:
        raise KdfastError(
            f'the teacher {name} does not know {short_list(unknown)}: it was trained on '
            f'{short_list(trained_on["classes"])}; {data.name} has {short_list(data.classes)}'
        )
    parts = OrderedDict()
    if trained_on['size'] != list(data.shape):
        parts['scale'] = Scale(trained_on['size'])
    before, now = (torch.tensor(values) for values in ((trained_on['mean'], trained_on['std']), (data.mean, data.std)))
    if not torch.equal(before, now):  # as float32: versions of kdfast differ in the last bit of a double
        parts['normalize'] = Renormalize(data.mean, data.std, trained_on['mean'], trained_on['std'])
    parts['network'] = network
    if trained_on['classes'] != data.classes:
        parts['classes'] = Reorder([trained_on['classes'].index(c) for c in data.classes])
    return nn.Sequential(parts).eval() if len(parts) > 1 else network


def scaling_note(
    network: nn.Module,  # The teacher, with `build_info`
    data: Data,  # That the student is trained on
    name: str,  # Of the teacher
) -> str:  # Empty if the sizes are equal
    "Describe how images are scaled if teacher and student receive different sizes."
    height, width = network.build_info['size']
    own_height, own_width = data.shape
    if (height, width) == (own_height, own_width):
        return ''
    return (
        f'the teacher {name} was trained on images of {width}×{height}, and receives them scaled to that size; '
        f'the student receives {own_width}×{own_height}'
    )
