"How images reach the networks: whole batches, whose order and augmentation follow from (seed, epoch) alone."

from collections.abc import Callable
from math import prod
from weakref import WeakValueDictionary

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Category, CategoryMap, Normalize, TensorCategory
from fastai.torch_core import TensorImage, default_device, to_detach
from fastai.vision.core import IntToFloatTensor  # registers how image tensors become floats
from torch.nn.functional import interpolate, pad

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.data.augment import mirrors, strong
from kdfast.data.dataset import LARGEST_BATCH, Data, center_crop, usual_batch_size

PADDING = 1 / 16  # of the image's side: 2 pixels of 32
MEMORY, NEGATIVES, PROCESSES = range(
    1, 4
)  # streams of random numbers: CRD's two, and those of processes that train together


class Images:
    "One split as a fastai dataset; a list of indices gives a whole batch, as uint8."

    n_inp = 1

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,  # (n, height, width, 3), uint8; or rows of such
        labels: np.ndarray,  # (n,)
        vocab: list[str],  # Names of the classes, in the order of the labels
        seed: int = 0,  # Decides, with the epoch, order and augmentation
        augment: str | None = None,  # How images are varied: shift, flip or strong; None shows every image as it is
        size: int
        | None = None,  # Side of the squares that are cut out: at random, or, where nothing is, from the middle
        shape_at: Callable
        | None = None,  # Height and width to scale them to, given the share of the epochs that is over
    ):
        self.images, self.labels, self.seed, self.augment, self.size, self.shape_at = (
            images,
            labels,
            seed,
            augment,
            size,
            shape_at,
        )
        self.mirror = mirrors(augment, vocab)
        self.vocab, self.c = (
            CategoryMap(vocab, sort=False),
            len(vocab),
        )  # fastai would take a plain list for several vocabularies

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        "Image (3, height, width) and label at `i`, or a batch of them where `i` is a list"
        return TensorImage(self.pixels(i).movedim(-1, -3)), TensorCategory(torch.as_tensor(self.labels[i]))

    def pixels(self, i):
        "Image (height, width, 3) at `i`, or a batch of them, not cropped at random"
        images = self.images[i]
        if self.size and self.augment is None:
            images = center_crop(images, self.size)
        return (
            images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
        )  # a copy: the file is mapped read-only

    def decode(self, item, full=True):
        "An image and the name of its class, for `show_batch`"
        x, y = item
        return x, Category(self.vocab[y])

    def plain(self):
        "The same images, not augmented"
        return Images(self.images, self.labels, self.vocab, size=self.size)

    def new_empty(self):
        "No image, for `learn.export`"
        return Images(
            np.empty((0, *self.images.shape[1:]), np.uint8),
            self.labels[:0],
            self.vocab,
            self.seed,
            self.augment,
            self.size,
        )


class ImageBatches(TfmdDL):
    """Reads whole batches. In epoch e of seed s every recipe sees the same images in the same order, cropped and
    mirrored alike, whatever else draws random numbers: what makes runs of one seed comparable in pairs. Processes that
    train together share each batch.

    `epoch` says which, and counts how often they were gone through; `progress`, the share of the epochs that is behind it, how
    large they are shown where that grows. `kdfast.training.run.SeededOrder` sets both to the fit's own. `batch_idx` holds the places in
    the data set of the images of the last batch, this process's share of them, on the batch's device: (images,), int64.
    Random numbers are drawn on the CPU, so that a seed means the same on every device; all that a step needs goes to the
    device in one copy.
    """

    epoch, progress, batch_idx = 0, 1.0, None

    def after_iter(self):
        self.epoch += 1

    def to_detach(self, b, cpu=True, gather=True):
        "fastai would gather what other processes have; but each of them sees every validation image"
        return to_detach(b, cpu, gather=False)

    def get_idxs(self):
        if not self.shuffle:
            return list(range(self.n))
        return torch.randperm(self.n, generator=generator(self.dataset.seed, self.epoch, 0)).tolist()

    def create_batches(self, samps):
        draws = generator(self.dataset.seed, self.epoch, 1)
        for idxs in self.chunkify(samps):
            x, y = self.read(idxs, draws)
            if self.dataset.shape_at:
                x = scaled(x, self.dataset.shape_at(self.progress))
            yield x, y

    def read(self, idxs, draws):
        "This process's share of the images at `idxs`, cropped, and their labels, on the device; `draws` goes on as for all of them"
        data, share = self.dataset, distributed.rank_slice() if self.shuffle else slice(None)
        crops = crop_indices(len(idxs), data.images.shape[1:3], data.mirror, draws, data.size) if data.augment else ()
        seeds = (
            torch.randint(2**62, (len(idxs),), generator=draws)[share].tolist() if data.augment == 'strong' else None
        )
        index, *crops = (part[share] for part in (torch.tensor(idxs), *crops))
        y = torch.as_tensor(data.labels[index.numpy()])

        def images(index, crops):
            return cropped(data.pixels(index), data.size, *crops) if crops else data.pixels(index)

        if isinstance(data.images, torch.Tensor):  # on the device, and cropped there
            index, y, *crops = moved(data.images.device, index, y, *crops)
            x = images(index, crops)
        else:
            index, y, x = moved(self.device, index, y, images(index.numpy(), crops))
        self.batch_idx, x = index, x.movedim(-1, 1)
        return TensorImage(strong(x, seeds) if seeds else x), TensorCategory(y)


def moved(
    device: torch.device | None,  # Where to; None for the CPU
    *tensors: torch.Tensor,  # On the CPU, those of the widest items first
) -> list[torch.Tensor]:
    "The tensors, brought there in one copy; for CUDA from pinned memory, so that nothing waits for it."
    if device is None or device.type == 'cpu':
        return tensors
    cuda, parts = device.type == 'cuda', [as_bytes(t) for t in tensors]
    packed = torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=cuda)
    there = torch.cat(parts, out=packed).to(device, non_blocking=cuda).split([len(part) for part in parts])
    return [part.view(t.dtype).view(t.shape) for part, t in zip(there, tensors)]


def as_bytes(
    tensor: torch.Tensor,  # Of any kind and layout, such as every second item of another
) -> torch.Tensor:  # (bytes,), uint8; the tensor's own memory where that is in order
    flat = tensor.reshape(-1)
    return (flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)).view(torch.uint8)


def generator(
    *entropy: int,
    stream: int | None = None,  # Sets the numbers apart from those of any entropy without one: (3,) and (3, 0) are one
) -> torch.Generator:
    "Random numbers that depend on `entropy` and `stream` and on nothing else"
    words = np.random.SeedSequence(entropy, spawn_key=() if stream is None else (stream,))
    return torch.Generator().manual_seed(int(words.generate_state(1)[0]))


def crop_and_flip(
    x: torch.Tensor,  # (batch, channels, height, width)
    flip: bool,  # Mirror every second image or so
    draws: torch.Generator,  # Where the random numbers come from
    size: int | None = None,  # Side of the square to cut out of it, anywhere
) -> torch.Tensor:
    "Each image cropped to `size`; without one, shifted by up to a sixteenth of its side, with zeros behind its edges. Mirrored at random."
    crops = crop_indices(len(x), x.shape[2:], flip, draws, size)
    return type(x)(cropped(x.movedim(1, -1), size, *crops).movedim(-1, 1))


def crop_indices(n, shape, flip, draws, size):
    "Of each of `n` images, with its margins, the rows to take, (n, height), and the columns, (n, width)"
    (h, w), (dy, dx) = shape, margins(shape, size)
    rows, cols = (
        torch.arange(side) + torch.randint(whole - side + 1, (n, 1), generator=draws)
        for side, whole in ((size or h, h + 2 * dy), (size or w, w + 2 * dx))
    )
    if flip:
        cols = torch.where(torch.rand(n, 1, generator=draws) < 0.5, cols, cols.flip(1))
    return rows, cols


def margins(shape, size):
    "How far an image may be shifted, up or down and sideways, where nothing is cut out of it"
    return (0, 0) if size else tuple(int(side * PADDING) for side in shape)


def cropped(x, size, rows, cols):
    "Those rows and columns of each image (batch, height, width, channels), with zeros in its margins"
    dy, dx = margins(x.shape[1:3], size)
    padded = pad(x, (0, 0, dx, dx, dy, dy)) if dy or dx else x
    return padded[torch.arange(len(x), device=x.device)[:, None, None], rows[:, :, None], cols[:, None, :]]


def scaled(
    x: torch.Tensor,  # (batch, channels, height, width), uint8
    shape: tuple[int, int],  # Height and width
) -> torch.Tensor:
    "The images at that height and width, every pixel of them having its part."
    if x.shape[2:] == shape:
        return x
    whole = x.as_subclass(torch.Tensor)
    if x.is_cuda:
        whole = whole.float()  # there PyTorch scales no bytes
    return type(x)(interpolate(whole, shape, mode='bilinear', antialias=True).round().to(x.dtype))


def batch_size(
    data: Data,
) -> int:
    "Training images a batch. Raises KdfastError for fewer images than that, and for processes that cannot share it evenly."
    n = len(data.train[1])
    bs = data.batch_size or usual_batch_size(n)
    if n < bs:
        raise KdfastError(f'{n} training images are fewer than the smallest batch, {bs}')
    if bs % distributed.size:
        raise KdfastError(
            f'{distributed.size} processes cannot share a batch of {bs} images evenly: start a number that divides it'
        )
    return bs


RESIDENT = (
    WeakValueDictionary()
)  # images in a GPU's memory by the id of the array that they came from, which lives as long


def resident(
    images: np.ndarray,  # (n, height, width, 3), uint8; or rows of such
    device: torch.device,  # Where training happens
) -> np.ndarray | torch.Tensor:
    """On a GPU, all of the images in its memory, to be cropped there, once for all runs that use them; elsewhere, and where they would take
    more than a quarter of what is free, as they are, mapped."""
    if device.type != 'cuda':
        return images
    there = RESIDENT.get(id(images))
    if there is not None and device.index in (None, there.device.index):
        return there
    if prod(images.shape) > torch.cuda.mem_get_info(device)[0] / 4:
        return images
    there = torch.from_numpy(np.array(images[:])).to(device)
    there.source, RESIDENT[id(images)] = images, there
    return there


def loaders(
    data: Data,  # Decoded images
    seed: int = 0,  # Decides, with the epoch, order and augmentation of the training images
) -> DataLoaders:
    """fastai DataLoaders on the default device, a GPU's images resident there: training images augmented, validation images as they are or, with a size, their middle.

    Batches are (images, 3, height, width), float32, normalised with the training images' mean and spread.
    Raises KdfastError for fewer training images than the smallest batch, and for processes that cannot share a batch evenly.
    """
    bs, device = batch_size(data), default_device()
    train, valid = ((resident(images, device), labels) for images, labels in (data.train, data.valid))

    def batches(split, bs, **kwargs):
        tfms = [IntToFloatTensor(), Normalize.from_stats(data.mean, data.std)]
        return ImageBatches(split, bs=bs, after_batch=tfms, num_workers=0, **kwargs)

    varied = Images(
        *train,
        data.classes,
        seed,
        None if data.augment == 'none' else data.augment,
        data.size,
        data.shape_at if data.grow < 1 else None,
    )
    return DataLoaders(
        batches(varied, bs, shuffle=True, drop_last=True),
        batches(Images(*valid, data.classes, size=data.size), 2 * (data.batch_size or LARGEST_BATCH)),
        device=device,
    )
