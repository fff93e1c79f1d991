"The images and labels of one split, as a fastai data set."

from collections.abc import Callable

import numpy as np
import torch
from fastai.data.transforms import Category, CategoryMap, MultiCategory, TensorCategory, TensorMultiCategory
from fastai.torch_core import TensorImage

from kdfast.data.augment import mirrors
from kdfast.data.dataset import center_crop
from kdfast.data.given_images import decode_given
from kdfast.data.labels import has_several


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
