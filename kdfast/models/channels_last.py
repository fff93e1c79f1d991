"The order of weights in memory in which training is fastest."

import torch
from torch import nn


def channels_last(
    network: nn.Module,  # Changed in place
) -> nn.Module:  # The same network
    """Order weights of four dimensions channels-last, as those of two-dimensional convolutions are.

    `Module.to` also orders those of five dimensions, which cannot have this order.
    """
    return network._apply(lambda t: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t)
