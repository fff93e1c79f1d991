"""Contrastive representation distillation."""

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdfast.core.errors import KdfastError
from kdfast.data.random_streams import MEMORY, NEGATIVES, generator
from kdfast.distill.losses.features import normalize_rows
from kdfast.distill.losses.precision import in_float32

MOMENTUM = 0.5  # of CRD's memory: the share that stays
ANCHORS = 8  # images of a batch whose negatives are copied from a large memory at once


class CRD(nn.Module):
    """Contrastive representation distillation: tell the teacher's embedding of the same image from those of images of other classes.

    Tian et al. 2020, section 3.1 (https://arxiv.org/abs/1910.10699), from both sides: student against remembered hints, teacher
    against remembered guided features. As in RepDistiller, mdistiller and torchdistill, but not the paper, the image's own partner
    comes from the memory too, and exp(similarity/T) is divided by a constant that the first batch sets.
    torchdistill and mdistiller have the data set choose the negatives; here they follow from seed and step, so that a run repeats,
    with the same negatives on every device. Without `labels` the class of an image is learnt when a batch has it, until when it may be
    a negative of its own class; and a GPU is waited for in every step.
    Every call is a step of training: it changes the memory. Raises KdfastError where all images are of one class.
    """

    def __init__(
        self,
        guided: int,  # Dimensions of the student's features
        hint: int,  # Dimensions of the teacher's
        n: int | None = None,  # Training images; not needed with labels
        dim: int = 128,  # Dimensions of the embeddings
        negatives: int = 16384,  # Images of other classes against each image
        T: float = 0.07,  # Temperature of the similarities
        seed: int = 0,  # Decides, with the step, which negatives; and what is remembered at first
        labels: Sequence[int] | None = None,  # The class of every training image, such as dls.train_ds.labels
    ):
        super().__init__()
        if n is None and labels is None:
            raise ValueError('CRD needs the labels of all training images, or at least their number, n')
        self.embed_guided, self.embed_hint = nn.Linear(guided, dim), nn.Linear(hint, dim)
        self.negatives, self.T, self.key = negatives, T, generator(seed, stream=NEGATIVES).initial_seed()
        self.known = labels is not None
        labels = torch.as_tensor(labels, dtype=torch.long) if self.known else torch.full((n,), -1)  # −1: not seen yet
        n, bound = len(labels), (3 / dim) ** 0.5  # uniform entries whose rows have length 1 on average
        draws = generator(seed, stream=MEMORY)
        for name in ('guided_memory', 'hint_memory'):
            self.register_buffer(name, (2 * torch.rand(n, dim, generator=draws) - 1) * bound)
        self.register_buffer('labels', labels, persistent=not self.known)
        self.register_buffer('log_Z', torch.full((2,), float('nan')))  # not a number: no batch yet
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
        index: Tensor,  # Which training images these are, each but once, (batch,)
        y: Tensor | None = None,  # Their classes, (batch,); not needed with labels
    ) -> Tensor:  # Scalar: mean over the batch, sum over the negatives and both sides
        for x, embed in ((guided, self.embed_guided), (hint, self.embed_hint)):
            if x[0].numel() == embed.in_features:
                continue
            raise KdfastError(
                f'CRD was made for features of {embed.in_features} numbers, found {tuple(x.shape[1:])}: choose layers behind the pooling'
            )
        index = index.to(guided.device)
        if not self.known:
            self.labels[index] = y
        pairs = torch.cat([index[:, None], self.draw(self.labels[index])], 1)
        g, h = normalize_rows(self.embed_guided(guided.flatten(1))), normalize_rows(self.embed_hint(hint.flatten(1)))
        loss = self.nce(g, self.hint_memory, pairs, 0) + self.nce(h, self.guided_memory, pairs, 1)
        self.guided_memory, self.hint_memory = (
            momentum_update(self.guided_memory, index, g),
            momentum_update(self.hint_memory, index, h),
        )
        self.step += 1
        return loss

    def draw(
        self,
        labels: Tensor,  # Classes of the batch, (batch,)
    ) -> Tensor:  # Indices, (batch, negatives)
        "Images of other classes, with replacement."
        ordered, images = (
            (self.ordered, self.images) if self.known else self.labels.sort(stable=True)
        )  # one class behind the other
        first, end = (torch.searchsorted(ordered, labels, right=right)[:, None] for right in (False, True))
        if not self.known:
            check_classes(self.labels)
        place = (hash_rows(len(labels), self.negatives, self.key, self.step) * (len(ordered) - (end - first))) >> 32
        return images[place + (end - first) * (place >= first)]  # skip the class's own

    def nce(self, anchor, memory, pairs, side):
        "−log h(positive) − Σ log(1 − h(negative)), where h = p/(p + negatives/n) and p = exp(similarity/T)/Z"
        score, n = similarities(anchor, memory, pairs) / self.T, len(memory)
        at_first = score.detach().exp().mean().log() + log(n)
        self.log_Z[side] = torch.where(self.log_Z[side].isnan(), at_first, self.log_Z[side])
        logit = score - self.log_Z[side] - log(self.negatives / n)
        return -(F.logsigmoid(logit[:, 0]) + F.logsigmoid(-logit[:, 1:]).sum(1)).mean()


def check_classes(labels):
    "Raise KdfastError where there is nothing to contrast"
    if (labels == labels[0]).all():
        raise KdfastError(f'CRD contrasts classes, found all {len(labels)} images in one: use another loss')


def similarities(
    anchor: Tensor,  # (batch, dim)
    memory: Tensor,  # (images, dim)
    pairs: Tensor,  # Which rows of the memory, (batch, pairs)
) -> Tensor:  # (batch, pairs)
    "Products with rows of the memory: of all that are computed, where that needs less memory than the rows; else of some anchors at a time."
    if len(memory) <= pairs.shape[1] * memory.shape[1]:
        return (anchor @ memory.mT).gather(1, pairs)

    def products(anchor, pairs):
        return (memory[pairs] @ anchor[:, :, None]).squeeze(2)

    parts = zip(anchor.split(ANCHORS), pairs.split(ANCHORS))
    return torch.cat([checkpoint(products, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def momentum_update(memory, index, new):
    "The memory, `index` of it half way to what is new; another tensor, for the gradient needs the old one"
    return memory.index_copy(0, index, normalize_rows(MOMENTUM * memory[index] + (1 - MOMENTUM) * new.detach()))


def hash_rows(
    rows: int,
    columns: int,
    key: int,  # Of 32 bits
    step: Tensor,  # A scalar, on the device where the numbers are wanted
) -> Tensor:  # (rows, columns), from 0 to below 2³²
    "Random integers that follow from place, key and step alone: equal bits on every device, computed where they are used."
    places = torch.arange(rows * columns, device=step.device).view(rows, columns)
    return scramble(scramble(places) ^ scramble(scramble(step) ^ key))


def scramble(x):
    "A hash of 32 bits, as int64 (https://github.com/skeeto/hash-prospector); no product exceeds 63 bits"
    for shift, factor in (16, 0x21F0AAAD), (15, 0x735A2D97):
        x = (((x ^ (x >> shift)) & 0xFFFFFFFF) * factor) & 0xFFFFFFFF
    return x ^ (x >> 15)
