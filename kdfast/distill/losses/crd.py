"""Contrastive representation distillation."""

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdfast.core.errors import KdfastError
from kdfast.core.ranges import check_loss_numbers, check_number
from kdfast.data.random_streams import MEMORY, NEGATIVES, generator
from kdfast.distill.losses.features import normalize_rows
from kdfast.distill.losses.precision import in_float32
from kdfast.distill.losses.shapes import check_images

__all__ = ['CRD']

MOMENTUM = 0.5  # weight of the old value in an update of the memory
ANCHORS = 8  # images of a batch whose negatives are copied at once from a large memory


class CRD(nn.Module):
    """Contrast the teacher's embedding of an image with embeddings of images of other classes.

    Tian et al. 2020, section 3.1 (https://arxiv.org/abs/1910.10699), in both directions: the student against
    remembered features of the teacher, and the teacher against remembered features of the student. As in
    RepDistiller, mdistiller and torchdistill, but not in the paper, the positive also comes from the memory, and
    exp(similarity/T) is divided by a constant that is estimated on the first batch.

    Negatives follow from seed and step, so that a run can be repeated, and are the same on every device; in
    torchdistill and mdistiller the data set draws them.

    `labels` are `dls.train_ds.labels` for DataLoaders of kdfast, and `[int(y) for y in dls.train_ds.tls[1]]` for those
    of fastai's blocks and factory methods, which reads no image.

    Without them the class of an image is learned when a batch contains it; until then it can be a negative of its own
    class, and every step synchronizes with the GPU.

    Each call is a training step: it changes the memory.

    Raises ValueError without `n` and `labels`, and KdfastError if all images have one class, if features have another
    size than given here, or if Match trains on another number of images.
    """

    def __init__(
        self,
        guided: int,  # Dimensions of the student's features
        hint: int,  # Dimensions of the teacher's features
        n: int | None = None,  # Number of training images; not needed with labels
        dim: int = 128,  # Dimensions of the embeddings
        negatives: int = 16384,  # Negatives (images of other classes) per image
        T: float = 0.07,  # Temperature of the similarities
        seed: int = 0,  # Seed of the negatives and of the initial memory
        labels: Sequence[int] | None = None,  # Class of every training image
    ):
        super().__init__()
        check_loss_numbers(T)
        check_number('the number of negatives', negatives, 1, 2**31 - 1)
        if n is None and labels is None:
            raise ValueError('CRD needs the labels of all training images, or at least their number, n')
        self.embed_guided = nn.Linear(guided, dim)
        self.embed_hint = nn.Linear(hint, dim)
        self.negatives = negatives
        self.T = T
        self.key = generator(seed, stream=NEGATIVES).initial_seed()
        self.known = labels is not None
        check_one_class(labels)
        labels = torch.as_tensor(labels, dtype=torch.long) if self.known else torch.full((n,), -1)  # −1: not known yet
        self.training_images = n = len(labels)  # Match compares it with the training set
        bound = (3 / dim) ** 0.5  # rows of uniform entries then have length 1 on average
        draws = generator(seed, stream=MEMORY)
        for name in ('guided_memory', 'hint_memory'):
            self.register_buffer(name, (2 * torch.rand(n, dim, generator=draws) - 1) * bound)
        self.register_buffer('labels', labels, persistent=not self.known)
        self.register_buffer('log_Z', torch.full((2,), float('nan')))  # NaN: no batch yet
        self.register_buffer('step', torch.tensor(0))
        if not self.known:
            return
        for name, places in zip(('ordered', 'images'), labels.sort(stable=True)):
            self.register_buffer(name, places, persistent=False)
        check_classes(labels)

    @in_float32
    def forward(
        self,
        guided: Tensor,  # The student's features, (batch, …)
        hint: Tensor,  # The teacher's features, (batch, …)
        index: Tensor,  # Indices of the training images, each at most once, (batch,)
        y: Tensor | None = None,  # Classes of the images, (batch,); not needed with labels
    ) -> Tensor:  # Scalar: mean over the batch, sum over the negatives and both sides
        check_images('CRD', guided, hint)
        for x, embed in ((guided, self.embed_guided), (hint, self.embed_hint)):
            if x[0].numel() == embed.in_features:
                continue
            raise KdfastError(
                f'CRD expects features of size {embed.in_features}, found {tuple(x.shape[1:])}: '
                'choose layers after the pooling'
            )
        index = index.to(guided.device)
        if not self.known:
            check_one_class(y)
            self.labels[index] = y
        pairs = torch.cat([index[:, None], self.draw(self.labels[index])], 1)
        g = normalize_rows(self.embed_guided(guided.flatten(1)))
        h = normalize_rows(self.embed_hint(hint.flatten(1)))
        loss = self.nce(g, self.hint_memory, pairs, 0) + self.nce(h, self.guided_memory, pairs, 1)
        self.guided_memory = momentum_update(self.guided_memory, index, g)
        self.hint_memory = momentum_update(self.hint_memory, index, h)
        self.step += 1
        return loss

    def draw(
        self,
        labels: Tensor,  # Classes of the batch, (batch,)
    ) -> Tensor:  # Indices, (batch, negatives)
        "Draw images of other classes, with replacement."
        # Labels of all images in ascending order, with the images' indices: a class is the range from first to end
        ordered, images = (self.ordered, self.images) if self.known else self.labels.sort(stable=True)
        first, end = (torch.searchsorted(ordered, labels, right=right)[:, None] for right in (False, True))
        if not self.known:
            check_classes(self.labels)
        place = (hash_rows(len(labels), self.negatives, self.key, self.step) * (len(ordered) - (end - first))) >> 32
        return images[place + (end - first) * (place >= first)]  # skip the image's own class

    def nce(
        self,
        anchor: Tensor,  # Embeddings of the batch, (batch, dim)
        memory: Tensor,  # The other network's embeddings of all images, (images, dim)
        pairs: Tensor,  # Indices of the positive and the negatives, (batch, 1 + negatives)
        side: int,  # 0 or 1
    ):
        """Compute −log h(positive) − Σ log(1 − h(negative)).

        h = p/(p + negatives/n) with p = exp(similarity/T)/Z. `side` selects the constant Z: 0 for the student as
        anchor, 1 for the teacher.
        """
        score = similarities(anchor, memory, pairs) / self.T
        n = len(memory)
        estimate = score.detach().exp().mean().log() + log(n)
        self.log_Z[side] = torch.where(self.log_Z[side].isnan(), estimate, self.log_Z[side])
        logit = score - self.log_Z[side] - log(self.negatives / n)
        return -(F.logsigmoid(logit[:, 0]) + F.logsigmoid(-logit[:, 1:]).sum(1)).mean()


def check_one_class(
    labels,  # Of images; None if they are not known
):
    "Raise KdfastError for several labels per image."
    if getattr(labels, 'ndim', 1) != 1:
        raise KdfastError('CRD contrasts images of different classes, and these images have several labels each')


def check_classes(
    labels: Tensor,  # Of all training images
):
    "Raise KdfastError if all images have the same class."
    if (labels == labels[0]).all():
        raise KdfastError(
            f'CRD needs at least two classes, found one class for all {len(labels)} images: use another loss'
        )


def similarities(
    anchor: Tensor,  # (batch, dim)
    memory: Tensor,  # (images, dim)
    pairs: Tensor,  # Rows of the memory, (batch, pairs)
) -> Tensor:  # (batch, pairs)
    """Return the products of each anchor with its rows of the memory.

    Computes the products with all images if that takes less memory than copying the rows; else copies the rows for a
    few anchors at a time.
    """
    if len(memory) <= pairs.shape[1] * memory.shape[1]:
        return (anchor @ memory.mT).gather(1, pairs)

    def products(anchor, pairs):
        return (memory[pairs] @ anchor[:, :, None]).squeeze(2)

    parts = zip(anchor.split(ANCHORS), pairs.split(ANCHORS))
    return torch.cat([checkpoint(products, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def momentum_update(
    memory: Tensor,  # (images, dim)
    index: Tensor,  # Rows to update, (batch,)
    new: Tensor,  # Their new values, (batch, dim)
) -> Tensor:  # (images, dim), a new tensor: the gradient still needs the old one
    "Return the memory with the given rows averaged with new values and normalized."
    return memory.index_copy(0, index, normalize_rows(MOMENTUM * memory[index] + (1 - MOMENTUM) * new.detach()))


def hash_rows(
    rows: int,  # Rows of the result
    columns: int,  # Columns of the result
    key: int,  # Seed, 32 bits
    step: Tensor,  # Scalar, on the device of the result
) -> Tensor:  # (rows, columns), integers in [0, 2³²)
    """Return random integers that depend only on position, key and step.

    Every device computes the same integers, without a copy from the host.
    """
    places = torch.arange(rows * columns, device=step.device).view(rows, columns)
    return scramble(scramble(places) ^ scramble(scramble(step) ^ key))


def scramble(
    x: Tensor,  # int64
) -> Tensor:  # int64, the same shape
    "Hash integers to 32 bits (https://github.com/skeeto/hash-prospector); no product exceeds 63 bits."
    for shift, factor in (16, 0x21F0AAAD), (15, 0x735A2D97):
        x = (((x ^ (x >> shift)) & 0xFFFFFFFF) * factor) & 0xFFFFFFFF
    return x ^ (x >> 15)
