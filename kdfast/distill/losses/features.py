"""Losses of features. The student's features are the first argument, the teacher's the second."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.core.ranges import check_loss_numbers
from kdfast.distill.losses.precision import EPS, in_float32
from kdfast.distill.losses.shapes import check_equal, check_images

__all__ = ['at_loss', 'feature_loss', 'hint_loss', 'pkt_loss', 'rkd_loss', 'sp_loss']


def hint_loss(
    guided: Tensor,  # The student's guided features after the regressor, (batch, channels, height, width)
    hint: Tensor,  # The teacher's hint features, the same shape
) -> Tensor:  # Scalar: mean over all elements
    """Compute the hint loss ½ · mean (guided − hint)².

    Romero et al. 2015, equation 3 (https://arxiv.org/abs/1412.6550). The paper sums over the elements of an image;
    the mean allows one learning rate for all widths and image sizes.
    """
    check_equal('hint_loss', guided, hint)
    return 0.5 * F.mse_loss(guided.float(), hint.float())


def feature_loss(
    projected: Tensor,  # The student's features after a linear layer, (batch, features)
    teacher: Tensor,  # The teacher's features, each vector with mean 0 and variance 1, the same shape
) -> Tensor:  # Scalar: mean over all elements
    """Compute the feature distillation loss: smooth L1, quadratic below a difference of 2.

    Wei et al. 2022, section 3 (https://arxiv.org/abs/2205.14141), who whiten the teacher's features likewise.
    """
    check_equal('feature_loss', projected, teacher)
    return F.smooth_l1_loss(projected.float(), teacher.float(), beta=2.0)


@in_float32
def at_loss(
    guided: Tensor,  # The student's features, (batch, channels, height, width)
    hint: Tensor,  # The teacher's features, with channels, height and width of its own
) -> Tensor:  # Scalar: mean over the batch and the positions
    """Compute attention transfer: mean (Q_S/‖Q_S‖ − Q_T/‖Q_T‖)², where Q = Σ_channels A².

    Zagoruyko & Komodakis 2017, equation 2 (https://arxiv.org/abs/1612.03928). The paper takes the norm of the
    difference; the authors' code, mdistiller, torchdistill's mode 'code' and this function take the mean of squares.
    The larger of two maps is average-pooled to the size of the smaller; torchdistill expects equal sizes.

    Raises KdfastError for features without positions.
    """
    check_images('at_loss', guided, hint)
    guided, hint = pool_to_smaller(guided, hint)
    return F.mse_loss(attention_map(guided), attention_map(hint))


def attention_map(
    x: Tensor,  # (batch, channels, height, width)
) -> Tensor:  # (batch, height·width)
    "Return the sum of squares over the channels at each position, as a unit vector."
    return normalize_rows(x.square().sum(1).flatten(1))


@in_float32
def sp_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
) -> Tensor:  # Scalar: mean over all pairs of images
    """Compute the similarity-preserving loss 1/batch² · ‖G_S − G_T‖².

    Row i of G holds the similarities of image i to each image of the batch: products of features, normalized to
    Euclidean length 1. Tung & Mori 2019, section 3 (https://arxiv.org/abs/1907.09682), as in RepDistiller and
    mdistiller. torchdistill divides a row by the sum of its absolute values, which is a different loss.
    """
    check_images('sp_loss', guided, hint)
    return F.mse_loss(similarity(guided), similarity(hint))


def similarity(
    x: Tensor,  # (batch, …)
) -> Tensor:  # (batch, batch)
    "Return the products of the features of all pairs of images, with rows of length 1."
    x = x.flatten(1)
    return normalize_rows(x @ x.mT)


@in_float32
def rkd_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
    distance: float = 25.0,  # Weight of the distances between pairs
    angle: float = 50.0,  # Weight of the angles of triples
) -> Tensor:  # Scalar: mean over all pairs plus mean over all triples of images
    """Compute relational KD: Huber loss of the distances between images plus Huber loss of their angles.

    Park et al. 2019, section 3.2 (https://arxiv.org/abs/1904.05068); distances are relative to their mean in the
    batch. The paper sums over pairs and triples of different images. The authors' code, torchdistill, mdistiller and
    this function take means over all batch² pairs and batch³ triples, which include terms that are always 0.
    """
    check_images('rkd_loss', guided, hint)
    guided, hint = guided.flatten(1), hint.flatten(1)
    check_loss_numbers(distance=distance, angle=angle)
    distance_loss = F.smooth_l1_loss(distances(guided), distances(hint))
    angle_loss = F.smooth_l1_loss(angles(guided), angles(hint))
    return distance * distance_loss + angle * angle_loss


def distances(
    x: Tensor,  # (batch, channels)
) -> Tensor:  # (batch, batch)
    "Return Euclidean distances divided by the mean distance of different images."
    d = torch.cdist(x, x, compute_mode='donot_use_mm_for_euclid_dist')
    pairs = len(x) * (len(x) - 1)
    return d * (pairs / d.sum().clamp(min=EPS))


def angles(
    x: Tensor,  # (batch, channels)
) -> Tensor:  # (batch j, batch i, batch k)
    "Return the cosines of the angles at image j between the images i and k."
    e = normalize_rows(x[:, None] - x)
    return e @ e.mT


@in_float32
def pkt_loss(
    guided: Tensor,  # The student's features, (batch, …)
    hint: Tensor,  # The teacher's features, (batch, …)
) -> Tensor:  # Scalar: mean over all pairs of images
    """Compute probabilistic knowledge transfer: mean p · log(p/q) over pairs of images.

    p (teacher) and q (student) are the probabilities that two images are neighbors, with the cosine kernel. Passalis
    & Tefas 2018, section 3 (https://arxiv.org/abs/1803.10837). The paper excludes pairs of an image with itself and
    sums; the authors' code, torchdistill, mdistiller and this function include them and take the mean.
    """
    check_images('pkt_loss', guided, hint)
    q = neighbor_probabilities(guided)
    p = neighbor_probabilities(hint)
    return (p * ((p + EPS) / (q + EPS)).log()).mean()


def neighbor_probabilities(
    x: Tensor,  # (batch, …)
) -> Tensor:  # (batch, batch)
    "Return cosine similarities, scaled to 0…1, as probabilities: rows sum to 1."
    x = normalize_rows(x.flatten(1))
    similar = (x @ x.mT + 1) / 2
    return similar / similar.sum(1, keepdim=True)


@in_float32
def hcl_loss(
    guided: Tensor,  # The student's features, (batch, channels, height, width)
    hint: Tensor,  # The teacher's features, the same shape
) -> Tensor:  # Scalar: mean over all elements of a level, weighted mean over the levels
    """Compute the hierarchical context loss: mean (guided − hint)² at several sizes.

    The sizes are the full one, 4×4, 2×2 and 1×1 (average-pooled). Each level has half the weight of the one before;
    levels that are not smaller than the features are omitted. Chen et al. 2021, section 3
    (https://arxiv.org/abs/2104.09044), with the weights of the authors' code.
    """
    check_equal('hcl_loss', guided, hint)
    sizes = [k for k in (4, 2, 1) if k < min(guided.shape[2:])]
    pooled = [(F.adaptive_avg_pool2d(guided, k), F.adaptive_avg_pool2d(hint, k)) for k in sizes]
    levels = [(guided, hint), *pooled]
    weights = [0.5**i for i in range(len(levels))]
    return sum(w * F.mse_loss(g, h) for w, (g, h) in zip(weights, levels)) / sum(weights)


def normalize_rows(
    x: Tensor,  # (…, columns)
) -> Tensor:  # The same shape
    "Scale rows to length 1. Rows of zeros stay as they are, with a finite gradient."
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def pool_to_smaller(
    guided: Tensor,  # (batch, channels, height, width)
    hint: Tensor,  # (batch, channels, height, width)
) -> tuple[Tensor, Tensor]:  # Both with the smaller height and the smaller width
    "Average-pool two feature maps to the smaller size. Raises KdfastError for other shapes."
    if guided.dim() != 4 or hint.dim() != 4:
        raise KdfastError(
            'this loss compares feature maps (batch, channels, height, width), '
            f'found {tuple(guided.shape)} of the student and {tuple(hint.shape)} of the teacher: '
            'choose layers before the pooling; Match converts tokens to feature maps'
        )
    size = [min(sides) for sides in zip(guided.shape[2:], hint.shape[2:])]

    def pooled(x):
        return x if list(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)  # which would copy the same values

    return pooled(guided), pooled(hint)
