"The losses that learn or remember: modules whose parameters train beside the student's, student before teacher, in float32."
from collections.abc import Sequence
from math import expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdfast.errors import KdfastError
from kdfast.loader import MEMORY, NEGATIVES, generator
from kdfast.losses import hcl_loss, hint_loss, in_float32, same_size, unit

FIRST_VARIANCE,LEAST_VARIANCE = 5.,1e-5  # of VID, as in RepDistiller
MOMENTUM = 0.5  # of CRD's memory: the share that stays
ANCHORS = 8  # images of a batch whose negatives are copied from a large memory at once
WIDEST = 512  # channels in which ReviewKD fuses


class VID(nn.Module):
    """Variational information distillation: −log q(hint | guided), a Gaussian whose mean is learnt and whose variance is a channel's.

    Ahn et al. 2019, section 2 (https://arxiv.org/abs/1904.05835), less the constant; mean over all elements, where the paper sums.
    The mean is three 1×1 convolutions as wide as the hint, RepDistiller's; torchdistill lets one choose the width.
    Where heights or widths differ the larger is pooled to the smaller, vectors count as maps of 1×1.
    """
    def __init__(self,
        guided:int, # Channels of the student's features
        hint:int, # Channels of the teacher's
    ):
        super().__init__()
        widths = (guided, hint), (hint, hint), (hint, hint)
        first,second,third = (nn.Conv2d(*width, 1, bias=False) for width in widths)
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.alpha = nn.Parameter(torch.full((hint,), log(expm1(FIRST_VARIANCE - LEAST_VARIANCE))))

    @in_float32
    def forward(self,
        guided:Tensor, # The student's features, (batch, channels, height, width) or (batch, channels)
        hint:Tensor, # The teacher's, likewise, with channels, height and width of its own
    ) -> Tensor: # Scalar: mean over all elements; below 0 where the variance is small
        guided,hint = same_size(maps(guided, self.mean[0].in_channels), maps(hint, len(self.alpha)))
        variance = (F.softplus(self.alpha) + LEAST_VARIANCE)[:,None,None]
        return 0.5 * ((hint - self.mean(guided)).square()/variance + variance.log()).mean()


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
    def __init__(self,
        guided:int, # Dimensions of the student's features
        hint:int, # Dimensions of the teacher's
        n:int|None=None, # Training images; not needed with labels
        dim:int=128, # Dimensions of the embeddings
        negatives:int=16384, # Images of other classes against each image
        T:float=0.07, # Temperature of the similarities
        seed:int=0, # Decides, with the step, which negatives; and what is remembered at first
        labels:Sequence[int]|None=None, # The class of every training image, such as dls.train_ds.labels
    ):
        super().__init__()
        if n is None and labels is None: raise ValueError('CRD needs the labels of all training images, or at least their number, n')
        self.embed_guided,self.embed_hint = nn.Linear(guided, dim),nn.Linear(hint, dim)
        self.negatives,self.T,self.key = negatives,T,generator(seed, stream=NEGATIVES).initial_seed()
        self.known = labels is not None
        labels = torch.as_tensor(labels, dtype=torch.long) if self.known else torch.full((n,), -1) # −1: not seen yet
        n,bound = len(labels),(3/dim)**.5 # uniform entries whose rows have length 1 on average
        draws = generator(seed, stream=MEMORY)
        for name in ('guided_memory', 'hint_memory'): self.register_buffer(name, (2*torch.rand(n, dim, generator=draws) - 1)*bound)
        self.register_buffer('labels', labels, persistent=not self.known)
        self.register_buffer('log_Z', torch.full((2,), float('nan'))) # not a number: no batch yet
        self.register_buffer('step', torch.tensor(0))
        if not self.known: return
        for name,places in zip(('ordered', 'images'), labels.sort(stable=True)): self.register_buffer(name, places, persistent=False)
        check_classes(labels)

    @in_float32
    def forward(self,
        guided:Tensor, # The student's features, (batch, …)
        hint:Tensor, # The teacher's features, (batch, …)
        index:Tensor, # Which training images these are, each but once, (batch,)
        y:Tensor|None=None, # Their classes, (batch,); not needed with labels
    ) -> Tensor: # Scalar: mean over the batch, sum over the negatives and both sides
        for x,embed in ((guided, self.embed_guided), (hint, self.embed_hint)):
            if x[0].numel() == embed.in_features: continue
            raise KdfastError(f'CRD was made for features of {embed.in_features} numbers, found {tuple(x.shape[1:])}: choose layers behind the pooling')
        index = index.to(guided.device)
        if not self.known: self.labels[index] = y
        pairs = torch.cat([index[:,None], self.draw(self.labels[index])], 1)
        g,h = unit(self.embed_guided(guided.flatten(1))),unit(self.embed_hint(hint.flatten(1)))
        loss = self.nce(g, self.hint_memory, pairs, 0) + self.nce(h, self.guided_memory, pairs, 1)
        self.guided_memory,self.hint_memory = renewed(self.guided_memory, index, g),renewed(self.hint_memory, index, h)
        self.step += 1
        return loss

    def draw(self,
        labels:Tensor, # Classes of the batch, (batch,)
    ) -> Tensor: # Indices, (batch, negatives)
        "Images of other classes, with replacement."
        ordered,images = (self.ordered, self.images) if self.known else self.labels.sort(stable=True) # one class behind the other
        first,end = (torch.searchsorted(ordered, labels, right=right)[:,None] for right in (False, True))
        if not self.known: check_classes(self.labels)
        place = (hashed(len(labels), self.negatives, self.key, self.step)*(len(ordered) - (end - first))) >> 32
        return images[place + (end - first)*(place >= first)] # skip the class's own

    def nce(self, anchor, memory, pairs, side):
        "−log h(positive) − Σ log(1 − h(negative)), where h = p/(p + negatives/n) and p = exp(similarity/T)/Z"
        score,n = similarities(anchor, memory, pairs)/self.T,len(memory)
        at_first = score.detach().exp().mean().log() + log(n)
        self.log_Z[side] = torch.where(self.log_Z[side].isnan(), at_first, self.log_Z[side])
        logit = score - self.log_Z[side] - log(self.negatives/n)
        return -(F.logsigmoid(logit[:,0]) + F.logsigmoid(-logit[:,1:]).sum(1)).mean()


def check_classes(labels):
    "Raise KdfastError where there is nothing to contrast"
    if (labels == labels[0]).all(): raise KdfastError(f'CRD contrasts classes, found all {len(labels)} images in one: use another loss')


def similarities(
    anchor:Tensor, # (batch, dim)
    memory:Tensor, # (images, dim)
    pairs:Tensor, # Which rows of the memory, (batch, pairs)
) -> Tensor: # (batch, pairs)
    "Products with rows of the memory: of all that are computed, where that needs less memory than the rows; else of some anchors at a time."
    if len(memory) <= pairs.shape[1]*memory.shape[1]: return (anchor @ memory.mT).gather(1, pairs)
    def products(anchor, pairs): return (memory[pairs] @ anchor[:,:,None]).squeeze(2)
    parts = zip(anchor.split(ANCHORS), pairs.split(ANCHORS))
    return torch.cat([checkpoint(products, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def renewed(memory, index, new):
    "The memory, `index` of it half way to what is new; another tensor, for the gradient needs the old one"
    return memory.index_copy(0, index, unit(MOMENTUM*memory[index] + (1 - MOMENTUM)*new.detach()))


def hashed(
    rows:int,
    columns:int,
    key:int, # Of 32 bits
    step:Tensor, # A scalar, on the device where the numbers are wanted
) -> Tensor: # (rows, columns), from 0 to below 2³²
    "Random integers that follow from place, key and step alone: equal bits on every device, computed where they are used."
    places = torch.arange(rows*columns, device=step.device).view(rows, columns)
    return mixed(mixed(places) ^ mixed(mixed(step) ^ key))


def mixed(x):
    "A hash of 32 bits, as int64 (https://github.com/skeeto/hash-prospector); no product exceeds 63 bits"
    for shift,factor in (16, 0x21f0aaad), (15, 0x735a2d97): x = (((x ^ (x >> shift)) & 0xffffffff)*factor) & 0xffffffff
    return x ^ (x >> 15)


class Regressed(nn.Module):
    "The fit loss behind a regressor that is trained beside the student: a hint and labels at once, as most tools have FitNets."
    def __init__(self,
        regressor:nn.Module, # From the guided features to the hint's shape
    ):
        super().__init__()
        self.regressor = regressor

    def forward(self,
        guided:Tensor, # The student's features, (batch, channels, height, width)
        hint:Tensor, # The teacher's
    ) -> Tensor: # Scalar: mean over all elements
        return hint_loss(self.regressor(guided), hint)


class ReviewKD(nn.Module):
    """Knowledge review: each stage of the teacher teaches the student's stages up to that depth, fused by attention.

    Chen et al. 2021, section 3 (https://arxiv.org/abs/2104.09044): from the deepest stage to the first, the features fused so far
    are brought to the next stage's size, and `hcl_loss` compares what comes of them with the hint; the losses are summed.
    Sizes come from the features. Where a hint's size is another than the student's, fused features are brought to it, as in
    mdistiller; torchdistill expects equal sizes. mdistiller raises the loss's weight over the first epochs; the recipe does not.
    Raises KdfastError for lists of unequal length.
    """
    together = True # Match gives it all stages at once

    def __init__(self,
        guided:list[int], # Channels of the student's stages, first to deepest
        hint:list[int], # Channels of the teacher's
    ):
        super().__init__()
        if len(guided) != len(hint):
            raise KdfastError(f'ReviewKD pairs stages, found {len(guided)} of the student and {len(hint)} of the teacher: give as many of both')
        middle,deepest = min(WIDEST, guided[-1]),len(guided) - 1
        self.fusions = nn.ModuleList(Fusion(g, middle, h, i == deepest) for i,(g,h) in enumerate(zip(guided, hint)))

    @in_float32
    def forward(self,
        guided:list[Tensor], # The student's features, first to deepest stage, each (batch, channels, height, width) or (batch, channels)
        hint:list[Tensor], # The teacher's, likewise
    ) -> Tensor: # Scalar: mean over the elements of a stage, sum over the stages
        losses,deeper = [],None
        for fuse,g,h in reversed(list(zip(self.fusions, guided, hint, strict=True))):
            g,h = maps(g, fuse.inward[0].in_channels),maps(h, fuse.outward[0].out_channels)
            fused,deeper = fuse(g, deeper, h.shape[2:])
            losses.append(hcl_loss(fused, h))
        return sum(losses)


class Fusion(nn.Module):
    "Attention based fusion of a stage with those behind it (ABF). The deepest stage has nothing to fuse."
    def __init__(self,
        guided:int, # Channels of the student's stage
        middle:int, # Channels of what is fused
        hint:int, # Channels of the teacher's stage
        deepest:bool, # No stage is behind it
    ):
        super().__init__()
        self.inward = nn.Sequential(nn.Conv2d(guided, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.outward = nn.Sequential(nn.Conv2d(middle, hint, 3, padding=1, bias=False), nn.BatchNorm2d(hint))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2*middle, 2, 1), nn.Sigmoid())

    def forward(self, x, deeper, size):
        "(what compares with the hint, what the stage before fuses), both of height and width `size`"
        x = self.inward(x)
        if self.attention:
            deeper = F.interpolate(deeper, x.shape[2:])
            here,there = self.attention(torch.cat([x, deeper], 1)).split(1, dim=1)
            x = here*x + there*deeper
        x = F.interpolate(x, size)
        return self.outward(x),x


def maps(x, channels):
    "Vectors as feature maps of 1×1. Raises KdfastError for anything else, and for other channels than the loss was made for."
    if x.dim() == 2: x = x[:,:,None,None]
    if x.dim() == 4 and x.shape[1] == channels: return x
    raise KdfastError(f'this loss was made for features (batch, {channels}, height, width) or (batch, {channels}), found {tuple(x.shape)}: '
                      'give it the channels of its layers; Match arranges tokens as maps')
