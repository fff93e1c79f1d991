"DataLoaders whose order and augmentation follow from seed and epoch alone."

from collections.abc import Callable

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import (
    Category,
    CategoryMap,
    MultiCategory,
    Normalize,
    TensorCategory,
    TensorMultiCategory,
)
from fastai.torch_core import TensorImage, default_device, to_detach
from fastai.vision.core import IntToFloatTensor  # registers how image tensors become floats

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.data.augment import mirrors, trivial_augment
from kdfast.data.crops import crop_indices, resize, take_crops
from kdfast.data.dataset import LARGEST_BATCH, Data, center_crop, usual_batch_size
from kdfast.data.device_transfer import make_resident, move_to_device
from kdfast.data.given_images import decode_given
from kdfast.data.labels import has_several
from kdfast.data.random_streams import generator


class Images:
    "One split as a fastai data set; a list of indices gives a whole batch, as uint8."

    n_inp = 1

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,  # (n, height, width, 3), uint8; or rows of such
        labels: np.ndarray,  # (n,)
        vocab: list[str],  # Names of the classes, in the order of the labels
        seed: int = 0,  # Decides, with the epoch, order and augmentation
        augment: str | None = None,  # Augmentation: shift, flip or strong; None shows images unchanged
        size: int | None = None,  # Side of the squares to crop: at random with augmentation, else from the center
        shape_at: Callable | None = None,  # Height and width to scale to, given the fraction of finished epochs
    ):
        self.images = images
        self.labels = labels
        self.seed = seed
        self.augment = augment
        self.size = size
        self.shape_at = shape_at
        self.mirror = mirrors(augment, vocab)
        self.vocab = CategoryMap(vocab, sort=False)  # fastai takes a plain list for several vocabularies
        self.c = len(vocab)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        "Image (3, height, width) and label at `i`, or a batch of them if `i` is a list"
        return TensorImage(self.pixels(i).movedim(-1, -3)), target(torch.as_tensor(self.labels[i]), self.several)

    def pixels(
        self,
        i,  # An index, or a list of them
    ) -> torch.Tensor:  # ([batch, ]height, width, 3), uint8
        "Return an image or a batch; cropped to the center if there is a size and no augmentation."
        images = self.images[i]
        if self.size and self.augment is None:
            images = center_crop(images, self.size)
        if isinstance(images, torch.Tensor):
            return images
        return torch.from_numpy(np.array(images))  # a copy, as the file is mapped read-only

    def decode(
        self,
        item,  # Image and label
        full=True,  # Ignored
    ):
        "Return an image and the name of its class, for `show_batch`."
        x, y = item
        if self.several:
            return x, MultiCategory(self.vocab[i] for i in y.nonzero()[:, 0])
        return x, Category(self.vocab[y])

    @property
    def several(self) -> bool:
        "Whether images have several labels."
        return has_several(self.labels)

    def plain(self) -> 'Images':
        "Return the same images without augmentation."
        return Images(self.images, self.labels, self.vocab, size=self.size)

    def other(
        self,
        items: list,  # As `kdfast.data.given_images.decode_given` takes them
    ) -> 'Images':
        "Return other images, decoded as these. They have no labels; the first class stands for them."
        images = decode_given(items, self.images.shape[1:3], self.size)
        return Images(images, np.zeros((len(images), *self.labels.shape[1:]), self.labels.dtype), self.vocab)

    def new_empty(self) -> 'Images':
        "Return a data set without images, for `learn.export`."
        no_images = np.empty((0, *self.images.shape[1:]), np.uint8)
        return Images(no_images, self.labels[:0], self.vocab, self.seed, self.augment, self.size)


def target(
    labels: torch.Tensor,  # Of an image or a batch
    several: bool,  # Whether images have several labels
) -> TensorCategory:
    "Return labels as fastai has them: numbers of classes; for several labels 0.0 or 1.0 per class."
    return TensorMultiCategory(labels.float()) if several else TensorCategory(labels)


class ImageBatches(TfmdDL):
    """DataLoader that reads whole batches, in an order that depends on seed and epoch alone.

    In one epoch of one seed every recipe receives the same images in the same order, cropped and mirrored alike, even
    if other code draws random numbers. Runs of one seed can therefore be compared in pairs. Processes that train
    together share each batch.

    `epoch` decides order and augmentation, and counts how often the images were iterated. `progress`, the fraction of
    the epochs that are finished, decides the image size in progressive resizing. `kdfast.training.learner.SeededOrder`
    sets both during a fit. `batch_idx` holds the indices in the data set of the last batch of this process: (images,),
    int64, on the device of the batch. Random numbers are drawn on the CPU, so that a seed gives the same on every
    device. Everything that a step needs is copied to the device at once.
    """

    epoch, progress, batch_idx = 0, 1.0, None

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

    def create_batches(
        self,
        samps,  # Iterator of the indices of this epoch
    ):
        "Yield the batches of an epoch, on the device."
        draws = generator(self.dataset.seed, self.epoch, 1)
        for idxs in self.chunkify(samps):
            x, y = self.read(idxs, draws)
            if self.dataset.shape_at:
                x = resize(x, self.dataset.shape_at(self.progress))
            yield x, y

    def read(
        self,
        idxs: list[int],  # Of the whole batch
        draws: torch.Generator,  # Advances as for the whole batch
    ) -> tuple[TensorImage, TensorCategory]:  # (images, 3, height, width), uint8, and (images,), on the device
        "Read this process's rank_slice of a batch, augmented."
        data = self.dataset
        rank_slice = distributed.rank_slice() if self.shuffle else slice(None)
        crops, seeds = (), None
        if data.augment:
            crops = crop_indices(len(idxs), data.images.shape[1:3], data.mirror, draws, data.size)
        if data.augment == 'strong':
            seeds = torch.randint(2**62, (len(idxs),), generator=draws)[rank_slice].tolist()
        index = torch.tensor(idxs)[rank_slice]
        crops = [part[rank_slice] for part in crops]
        y = torch.as_tensor(data.labels[index.numpy()])
        if isinstance(data.images, torch.Tensor):  # on the device, and cropped there
            index, y, *crops = move_to_device(data.images.device, index, y, *crops)
            x = self._cropped_pixels(index, crops)
        else:
            index, y, x = move_to_device(self.device, index, y, self._cropped_pixels(index.numpy(), crops))
        self.batch_idx = index
        x = x.movedim(-1, 1)
        return TensorImage(trivial_augment(x, seeds) if seeds else x), target(y, data.several)

    def _cropped_pixels(self, index, crops):
        pixels = self.dataset.pixels(index)
        return take_crops(pixels, self.dataset.size, *crops) if crops else pixels


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
        image_batches(valid_images, 2 * (data.batch_size or LARGEST_BATCH)),
        device=device,
    )
