"DataLoaders whose order and augmentation follow from seed and epoch alone."

from itertools import islice
from math import prod

import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Normalize
from fastai.torch_core import TensorImage, default_device, to_detach
from fastai.vision.core import IntToFloatTensor  # registers how image tensors become floats

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.data.augment import trivial_augment
from kdfast.data.crops import copy_crops, crop_indices, resize, take_crops
from kdfast.data.dataset import LARGEST_BATCH, Data, usual_batch_size
from kdfast.data.device_transfer import make_resident, move_to_device
from kdfast.data.file_images import is_decoded_from_files
from kdfast.data.image_split import Images, target
from kdfast.data.prefetch import map_ahead
from kdfast.data.random_streams import generator

# Bytes of a batch that a background thread reads. Smaller ones are copied in a millisecond or two: less than the delay
# by Python's lock, and by a thread that competes with the training's own for the processors.
AHEAD_BYTES = 2**22

VALIDATION_PIXELS = 2**20  # in a batch of validation images that are larger than 64×64


class ImageBatches(TfmdDL):
    """DataLoader that reads whole batches, in an order that depends on seed and epoch alone.

    In one epoch of one seed every recipe receives the same images in the same order, cropped and mirrored alike, even
    if other code draws random numbers. Runs of one seed can therefore be compared in pairs. Processes that train
    together share each batch.

    `epoch` decides order and augmentation, and counts how often the images were iterated. `progress`, the fraction of
    the epochs that are finished, decides the image size in progressive resizing. `kdfast.training.learner.SeededOrder`
    sets both during a fit. `batch_idx` holds the indices in the data set of the last batch of this process: (images,),
    int64, on the device of the batch. Random numbers are drawn on the CPU, so that a seed gives the same on every
    device. Everything that a step needs is copied to the device at once. A background thread reads the next batches, if
    they are large and the images are not on the device.
    """

    epoch, progress, batch_idx, skipped = 0, 1.0, None, 0

    def new(
        self,
        dataset=None,  # Another data set, or a list of images, as `predict` and `test_dl` of fastai pass it
        cls=None,  # Class of the new loader; default: this one
        **kwargs,  # Other arguments of the new loader
    ):
        "Return a loader of the same settings."
        if dataset is not None and not isinstance(dataset, Images):
            dataset = self.dataset.other(list(dataset))
        return super().new(dataset, cls, **kwargs)

    def after_iter(self):
        "Count the epoch, for code that does not set it."
        self.epoch += 1

    def to_detach(
        self,
        b,  # A batch
        cpu=True,  # Move it to the CPU
        gather=True,  # Ignored
    ):
        "Detach a batch. fastai would gather from all processes, but each has all validation images."
        return to_detach(b, cpu, gather=False)

    def get_idxs(self) -> list[int]:
        "Return the order of the images in this epoch."
        if not self.shuffle:
            return list(range(self.n))
        return torch.randperm(self.n, generator=generator(self.dataset.seed, self.epoch, 0)).tolist()

    def skip_batches(
        self,
        n: int,  # Batches
    ) -> int:  # n
        "Leave out the first batches of the next epoch, without reading their images."
        self.skipped = n
        return n

    def create_batches(
        self,
        samps,  # Iterator of the indices of this epoch
    ):
        "Yield the batches of an epoch, on the device; images in memory or on disk are read ahead."
        draws = generator(self.dataset.seed, self.epoch, 1)
        drawn = (self.draw(idxs, draws) for idxs in self.chunkify(samps))
        first, self.skipped = self.skipped, 0
        map_batches = map_ahead if self.reads_ahead else map
        for index, y, x, seeds in map_batches(self.read, islice(drawn, first, None)):
            if not isinstance(self.dataset.images, torch.Tensor):
                index, y, x = move_to_device(self.device, index, y, x)
            self.batch_idx = index
            # PyTorch's operators stay in this thread: in another one they would start as many threads again
            x = x.movedim(-1, 1)
            x = TensorImage(trivial_augment(x, seeds) if seeds else x)
            if self.dataset.shape_at:
                x = resize(x, self.dataset.shape_at(self.progress))
            yield x, target(y, self.dataset.several)

    @property
    def reads_ahead(self) -> bool:
        "Whether a background thread reads the next batches."
        images = self.dataset.images
        if isinstance(images, torch.Tensor):
            return False
        return self.bs * prod(images.shape[1:]) >= AHEAD_BYTES or is_decoded_from_files(images)

    def draw(
        self,
        idxs: list[int],  # Of the whole batch
        draws: torch.Generator,  # Advances as for the whole batch
    ) -> tuple:  # (indices, (rows and columns of the crops) or (), seeds or None), of this process's share
        "Draw the random numbers of a batch."
        data = self.dataset
        rank_slice = distributed.rank_slice() if self.shuffle else slice(None)
        crops, seeds = (), None
        if data.augment:
            crops = crop_indices(len(idxs), data.images.shape[1:3], data.mirror, draws, data.size)
        if data.augment == 'strong':
            seeds = torch.randint(2**62, (len(idxs),), generator=draws)[rank_slice].tolist()
        return torch.tensor(idxs)[rank_slice], [part[rank_slice] for part in crops], seeds

    def read(
        self,
        drawn: tuple,  # From `draw`
    ) -> tuple:  # (indices, labels, pixels (images, height, width, 3), seeds): on the device if the images are
        "Read and crop the images of a batch."
        data = self.dataset
        index, crops, seeds = drawn
        y = torch.as_tensor(data.labels[index.numpy()])
        if isinstance(data.images, torch.Tensor):
            index, y, *crops = move_to_device(data.images.device, index, y, *crops)
            x = data.pixels(index)
            return index, y, take_crops(x, data.size, *crops) if crops else x, seeds
        if crops:
            return index, y, torch.from_numpy(copy_crops(data.images[index.numpy()], data.size, *crops)), seeds
        return index, y, data.pixels(index.numpy()), seeds


def batch_size(
    data: Data,  # Decoded images
) -> int:
    """Return the number of training images per batch.

    Raises KdfastError for fewer images than that, and if processes cannot share a batch evenly.
    """
    n = len(data.train[1])
    bs = data.batch_size or usual_batch_size(n)
    if n < bs:
        raise KdfastError(f'{n} training images are fewer than the smallest batch, {bs}')
    if bs % distributed.size:
        raise KdfastError(
            f'{distributed.size} processes cannot share a batch of {bs} images evenly: '
            f'use a number of processes that divides {bs}'
        )
    return bs


def validation_batch_size(
    data: Data,  # Decoded images
    bs: int,  # Training images per batch
) -> int:
    "Return the number of validation images per batch: many small ones, but few large ones."
    return max(bs, min(2 * LARGEST_BATCH, VALIDATION_PIXELS // prod(data.shape)))


def loaders(
    data: Data,  # Decoded images
    seed: int = 0,  # Decides, with the epoch, order and augmentation of the training images
) -> DataLoaders:
    """Return fastai DataLoaders of training and validation images on the default device.

    Batches are (images, 3, height, width), float32, normalized with mean and standard deviation of the training images.
    Training images are augmented; validation images are unchanged, or with a size their central square. On a GPU all
    images are copied to its memory if there is room. Raises KdfastError for fewer training images than a batch, and if
    processes cannot share a batch evenly.
    """
    bs, device = batch_size(data), default_device()
    train, valid = ((make_resident(images, device), labels) for images, labels in (data.train, data.valid))

    def image_batches(split, bs, **kwargs):
        transforms = [IntToFloatTensor(), Normalize.from_stats(data.mean, data.std)]
        return ImageBatches(split, bs=bs, after_batch=transforms, num_workers=0, **kwargs)

    train_images = Images(
        *train,
        data.classes,
        seed,
        augment=None if data.augment == 'none' else data.augment,
        size=data.size,
        shape_at=data.shape_at if data.grow < 1 else None,
    )
    valid_images = Images(*valid, data.classes, size=data.size)
    return DataLoaders(
        image_batches(train_images, bs, shuffle=True, drop_last=True),
        image_batches(valid_images, validation_batch_size(data, bs)),
        device=device,
    )
