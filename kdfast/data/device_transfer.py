"Copy images and batches to the memory of a device."

from math import prod
from weakref import WeakValueDictionary

import numpy as np
import torch

RESIDENT = WeakValueDictionary()  # images in the memory of a GPU, by the id of the array that they keep alive


def move_to_device(
    device: torch.device | None,  # Destination; None for the CPU
    *tensors: torch.Tensor,  # On the CPU, of any types
) -> list[torch.Tensor]:
    "Copy tensors to a device in one transfer; for CUDA from pinned memory, without waiting."
    if device is None or device.type == 'cpu':
        return tensors
    is_cuda = device.type == 'cuda'
    widest_first = sorted(range(len(tensors)), key=lambda i: -tensors[i].itemsize)  # so that all items are aligned
    parts = [as_bytes(tensors[i]) for i in widest_first]
    packed = torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=is_cuda)
    copies = torch.cat(parts, out=packed).to(device, non_blocking=is_cuda).split([len(part) for part in parts])
    arrived = dict(zip(widest_first, copies))
    return [arrived[i].view(tensor.dtype).view(tensor.shape) for i, tensor in enumerate(tensors)]


def as_bytes(
    tensor: torch.Tensor,  # Of any type and layout, such as every second item of another
) -> torch.Tensor:  # (bytes,), uint8
    "View a tensor as bytes; it is copied only if its items are not contiguous."
    flat = tensor.reshape(-1)
    return (flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)).view(torch.uint8)


def make_resident(
    images: np.ndarray,  # (n, height, width, 3), uint8; or rows of such
    device: torch.device,  # Of the training
) -> np.ndarray | torch.Tensor:
    """Copy all images to the memory of a GPU, once for all runs of a process.

    Returns the images unchanged on other devices, and if they need more than a quarter of the free memory.
    """
    if device.type != 'cuda':
        return images
    copy = RESIDENT.get(id(images))
    if copy is not None and device.index in (None, copy.device.index):
        return copy
    if prod(images.shape) > torch.cuda.mem_get_info(device)[0] / 4:
        return images
    copy = torch.from_numpy(np.array(images[:])).to(device)
    copy.source = images  # the id of the array stays valid as long as the copy
    RESIDENT[id(images)] = copy
    return copy
