"""Losses of feature maps. Each takes the student's first."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.precision import EPS, in_float32

# Of features


def hint_loss(
    guided: Tensor,  # The student's guided features after the regressor, (batch, channels, height, width)
    hint: Tensor,  # The teacher's hint features, the same shape
) -> Tensor:  # Scalar: mean over all elements
    """Fit loss: ½ · mean (guided − hint)².

    Romero et al. 2015, equation 3 (https://arxiv.org/abs/1412.6550), which sums over an image's elements
    where this takes their mean, so that one learning rate serves every width and image size.
    """
    return 0.5 * F.mse_loss(guided.float(), hint.float())


@in_float32
def at_loss(
    guided: Tensor,  # The student's features, (batch, channels, height, width)
    hint: Tensor,  # The teacher's features, with channels, height and width of its own
) -> Tensor:  # Scalar: mean over the batch and the positions
    """Attention transfer: mean (Q_S/‖Q_S‖ − Q_T/‖Q_T‖)², where Q = Σ_channels A² is an image's attention at each position.

    Zagoruyko & Komodakis 2017, equation 2 (https://arxiv.org/abs/1612.03928), which takes the norm of an image's difference
    where this takes the mean of squares, as the authors' code, mdistiller and torchdistill's mode 'code' do. The larger of two
    maps is pooled to the smaller; torchdistill leaves that to the caller. Raises KdfastError for features without positions.
    """
    guided, hint = pool_to_smaller(guided, hint)
    return F.mse_loss(attention_map(guided), attention_map(hint))


def attention_map(x):
    "Where an image's features are large, as a unit vector, (batch, height·width)"
    return normalize_rows(x.square().sum(1).flatten(1))


@in_float32
def sp_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
) -> Tensor:  # Scalar: mean over all pairs of images
    """Similarity-preserving: 1/batch² · ‖G_S − G_T‖², where row i of G says how similar image i is to each of the batch.

    Tung & Mori 2019, section 3 (https://arxiv.org/abs/1907.09682): products of features, rows of length 1 in the Euclidean
    norm, as in RepDistiller and mdistiller; torchdistill divides a row by the sum of its absolute values, another loss.
    """
    return F.mse_loss(similarity(guided), similarity(hint))


def similarity(x):
    "Products of each image's features with every other's, rows of length 1, (batch, batch)"
    x = x.flatten(1)
    return normalize_rows(x @ x.mT)


@in_float32
def rkd_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
    distance: float = 25.0,  # Weight of the distances of pairs
    angle: float = 50.0,  # Weight of the angles of triples
) -> Tensor:  # Scalar: mean over all pairs and over all triples of images
    """Relational KD: how far images are apart, against the batch's mean, and at what angles; each with the Huber loss.

    Park et al. 2019, section 3.2 (https://arxiv.org/abs/1904.05068), which sums over pairs and triples of different images; the
    authors' code, torchdistill and mdistiller take, as this does, means over all batch² and batch³, those that are 0 by nature included.
    """
    guided, hint = guided.flatten(1), hint.flatten(1)
    return distance * F.smooth_l1_loss(distances(guided), distances(hint)) + angle * F.smooth_l1_loss(
        angles(guided), angles(hint)
    )


def distances(x):
    "Euclidean distances as multiples of the mean of different images, (batch, batch)"
    d, pairs = torch.cdist(x, x, compute_mode='donot_use_mm_for_euclid_dist'), len(x) * (len(x) - 1)
    return d * (pairs / d.sum().clamp(min=EPS))


def angles(x):
    "Cosines of the angles at image j between images i and k, (batch j, batch i, batch k)"
    e = normalize_rows(x[:, None] - x)
    return e @ e.mT


@in_float32
def pkt_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
) -> Tensor:  # Scalar: mean over all pairs of images
    """Probabilistic knowledge transfer: p · log(p/q), where p and q say how probably an image is another's neighbour.

    Passalis & Tefas 2018, section 3 (https://arxiv.org/abs/1803.10837), with the cosine kernel. The paper leaves out the pairs
    of an image with itself and sums; the authors' code, torchdistill and mdistiller count them and, as this does, take the mean.
    """
    q, p = neighbor_probabilities(guided), neighbor_probabilities(hint)
    return (p * ((p + EPS) / (q + EPS)).log()).mean()


def neighbor_probabilities(x):
    "Cosine similarities, from 0 to 1, as probabilities: rows sum to 1, (batch, batch)"
    x = normalize_rows(x.flatten(1))
    similar = (x @ x.mT + 1) / 2
    return similar / similar.sum(1, keepdim=True)


@in_float32
def hcl_loss(
    guided: Tensor,  # The student's features, (batch, channels, height, width)
    hint: Tensor,  # The teacher's features, the same shape
) -> Tensor:  # Scalar: mean over all elements of a level, weighted mean over the levels
    """Hierarchical context loss: mean (guided − hint)² as they are and pooled to 4×4, 2×2 and 1×1, each level with half the weight.

    Chen et al. 2021, section 3 (https://arxiv.org/abs/2104.09044); the weights are those of the authors' code.
    Levels that are not smaller than the features are left out.
    """
    sizes = [k for k in (4, 2, 1) if k < min(guided.shape[2:])]
    levels = [(guided, hint)] + [(F.adaptive_avg_pool2d(guided, k), F.adaptive_avg_pool2d(hint, k)) for k in sizes]
    weights = [0.5**i for i in range(len(levels))]
    return sum(w * F.mse_loss(g, h) for w, (g, h) in zip(weights, levels)) / sum(weights)


def normalize_rows(x):
    "Rows of length 1; a row of zeros stays, and its gradient is finite"
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def pool_to_smaller(guided, hint):
    "Both at the smaller height and width of the two, the larger averaged"
    if guided.dim() != 4 or hint.dim() != 4:
        raise KdfastError(
            f'this loss compares feature maps (batch, channels, height, width), found {tuple(guided.shape)} of the student '
            f'and {tuple(hint.shape)} of the teacher: choose layers before the pooling; Match arranges tokens as maps'
        )
    size = [min(sides) for sides in zip(guided.shape[2:], hint.shape[2:])]
    return F.adaptive_avg_pool2d(guided, size), F.adaptive_avg_pool2d(hint, size)
