"The losses of distillation and of hints: pure functions of tensors, student before teacher, in float32."
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from kdfast.errors import KdfastError

EPS = 1e-7  # keeps logarithms and divisions from 0


def in_float32(loss):
    "The same loss outside of autocast, whose matrix products would be in bfloat16; half precision comes in as float32"
    @wraps(loss)
    def computed(*args, **kwargs):
        with (torch.autocast('cpu', enabled=False), torch.autocast('cuda', enabled=False),
              torch.autocast('mps', enabled=False)):
            return loss(*wide(args), **{name: wide(x) for name,x in kwargs.items()})
    return computed


def wide(x):
    "Tensors of half precision, alone or in a list, as float32; anything else as it is"
    if isinstance(x, list | tuple): return [wide(o) for o in x]
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


# Of logits

def kd_loss(
    student:Tensor, # Logits of the student, (batch, classes)
    teacher:Tensor, # Logits of the teacher, (batch, classes)
    T:float=4., # Temperature of both softmaxes
) -> Tensor: # Scalar: mean over the batch
    """Soft loss: T² · KL(softmax(teacher/T) ‖ softmax(student/T)).

    The factor T² keeps its gradient as large as the hard loss's whatever the temperature
    (Hinton et al. 2015, section 2.1, https://arxiv.org/abs/1503.02531).
    """
    log_q = F.log_softmax(student.float() / T, dim=-1)
    log_p = F.log_softmax(teacher.float() / T, dim=-1)
    return T**2 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)


@in_float32
def dkd_loss(
    student:Tensor, # Logits of the student, (batch, classes)
    teacher:Tensor, # Logits of the teacher, (batch, classes)
    y:Tensor, # Labels, (batch,)
    T:float=4., # Temperature of both softmaxes
    alpha:float=1., # Weight of the target class against all others
    beta:float=8., # Weight of the other classes among each other
) -> Tensor: # Scalar: mean over the batch
    """Decoupled KD: alpha·TCKD + beta·NCKD, the soft loss of 'the target or not' and that of the other classes alone.

    Zhao et al. 2022, equation 7 (https://arxiv.org/abs/2203.08679), times T² as in their code; alpha = 1 and
    beta = 1 − the teacher's p(target) make it `kd_loss`. mdistiller, the authors' code, takes 1000 from the target's logit in NCKD where
    this leaves it out: the same, unless logits lie that far apart. mdistiller raises the loss's weight over the first epochs; the recipe
    does not.
    """
    tckd = T**2 * kd_loss(target_or_not(student/T, y), target_or_not(teacher/T, y), T=1.)
    nckd = kd_loss(others(student, y), others(teacher, y), T)
    return alpha*tckd + beta*nckd


def others(logits, y):
    "Logits of all classes but the target, (batch, classes−1); by index, for a boolean mask would make a GPU wait"
    rest = torch.arange(logits.shape[1] - 1, device=y.device)
    return logits.gather(1, rest + (rest >= y[:,None]))


def target_or_not(logits, y):
    "Logits of two classes, the target and any other, (batch, 2)"
    return torch.cat([logits.gather(1, y[:,None]), others(logits, y).logsumexp(1, keepdim=True)], 1)


@in_float32
def dist_loss(
    student:Tensor, # Logits of the student, (batch, classes)
    teacher:Tensor, # Logits of the teacher, (batch, classes)
    T:float=1., # Temperature of both softmaxes
    beta:float=1., # Weight of the relations between classes, image by image
    gamma:float=1., # Weight of the relations within a class, from image to image
) -> Tensor: # Scalar: mean over the batch of the one, over the classes of the other
    """DIST: beta · (1 − ρ of an image's probabilities) + gamma · (1 − ρ of a class's), ρ being Pearson's correlation.

    Huang et al. 2022, section 4 (https://arxiv.org/abs/2205.10536). The authors' code and torchdistill multiply by T²,
    the paper does not, nor does this; at T = 1 they are equal.
    """
    q,p = (student/T).softmax(1),(teacher/T).softmax(1)
    return beta*(1 - pearson(q, p).mean()) + gamma*(1 - pearson(q.mT, p.mT).mean())


def pearson(x, y):
    "Correlation of each row of `x` with that of `y`; 0 for a row that is constant"
    x,y = (unit(z - z.mean(1, keepdim=True)) for z in (x, y))
    return (x*y).sum(1)


@in_float32
def standardised(
    logits:Tensor, # (batch, classes)
) -> Tensor: # The same shape, float32
    """Logits as z-scores: of each image mean 0 and standard deviation 1; to be put before any loss of logits.

    Sun et al. 2024, algorithm 2 (https://arxiv.org/abs/2403.01427). As in the authors' code and torchdistill the variance divides
    by classes − 1, where the paper writes classes: a temperature smaller by √(1 − 1/classes).
    """
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPS)


def ls_kd_loss(
    student:Tensor, # Logits of the student, (batch, classes)
    teacher:Tensor, # Logits of the teacher, (batch, classes)
    T:float=2., # Base temperature, in standard deviations of the logits
) -> Tensor: # Scalar: mean over the batch
    """Soft loss of standardised logits: neither network's scale matters, only how its logits relate.

    Sun et al. 2024, algorithm 1 (https://arxiv.org/abs/2403.01427), with the T² of `kd_loss`,
    which torchdistill applies only where its hard loss is added.
    """
    return kd_loss(standardised(student), standardised(teacher), T)


# Of features

def hint_loss(
    guided:Tensor, # The student's guided features after the regressor, (batch, channels, height, width)
    hint:Tensor, # The teacher's hint features, the same shape
) -> Tensor: # Scalar: mean over all elements
    """Fit loss: ½ · mean (guided − hint)².

    Romero et al. 2015, equation 3 (https://arxiv.org/abs/1412.6550), which sums over an image's elements
    where this takes their mean, so that one learning rate serves every width and image size.
    """
    return 0.5 * F.mse_loss(guided.float(), hint.float())


@in_float32
def at_loss(
    guided:Tensor, # The student's features, (batch, channels, height, width)
    hint:Tensor, # The teacher's features, with channels, height and width of its own
) -> Tensor: # Scalar: mean over the batch and the positions
    """Attention transfer: mean (Q_S/‖Q_S‖ − Q_T/‖Q_T‖)², where Q = Σ_channels A² is an image's attention at each position.

    Zagoruyko & Komodakis 2017, equation 2 (https://arxiv.org/abs/1612.03928), which takes the norm of an image's difference
    where this takes the mean of squares, as the authors' code, mdistiller and torchdistill's mode 'code' do. The larger of two
    maps is pooled to the smaller; torchdistill leaves that to the caller. Raises KdfastError for features without positions.
    """
    guided,hint = same_size(guided, hint)
    return F.mse_loss(attention(guided), attention(hint))


def attention(x):
    "Where an image's features are large, as a unit vector, (batch, height·width)"
    return unit(x.square().sum(1).flatten(1))


@in_float32
def sp_loss(
    guided:Tensor, # The student's features, (batch, …)
    hint:Tensor, # The teacher's features, (batch, …)
) -> Tensor: # Scalar: mean over all pairs of images
    """Similarity-preserving: 1/batch² · ‖G_S − G_T‖², where row i of G says how similar image i is to each of the batch.

    Tung & Mori 2019, section 3 (https://arxiv.org/abs/1907.09682): products of features, rows of length 1 in the Euclidean
    norm, as in RepDistiller and mdistiller; torchdistill divides a row by the sum of its absolute values, another loss.
    """
    return F.mse_loss(similarity(guided), similarity(hint))


def similarity(x):
    "Products of each image's features with every other's, rows of length 1, (batch, batch)"
    x = x.flatten(1)
    return unit(x @ x.mT)


@in_float32
def rkd_loss(
    guided:Tensor, # The student's features, (batch, …)
    hint:Tensor, # The teacher's features, (batch, …)
    distance:float=25., # Weight of the distances of pairs
    angle:float=50., # Weight of the angles of triples
) -> Tensor: # Scalar: mean over all pairs and over all triples of images
    """Relational KD: how far images are apart, against the batch's mean, and at what angles; each with the Huber loss.

    Park et al. 2019, section 3.2 (https://arxiv.org/abs/1904.05068), which sums over pairs and triples of different images; the
    authors' code, torchdistill and mdistiller take, as this does, means over all batch² and batch³, those that are 0 by nature included.
    """
    guided,hint = guided.flatten(1),hint.flatten(1)
    return distance*F.smooth_l1_loss(distances(guided), distances(hint)) + angle*F.smooth_l1_loss(angles(guided), angles(hint))


def distances(x):
    "Euclidean distances as multiples of the mean of different images, (batch, batch)"
    d,pairs = torch.cdist(x, x, compute_mode='donot_use_mm_for_euclid_dist'),len(x)*(len(x) - 1)
    return d * (pairs / d.sum().clamp(min=EPS))


def angles(x):
    "Cosines of the angles at image j between images i and k, (batch j, batch i, batch k)"
    e = unit(x[:,None] - x)
    return e @ e.mT


@in_float32
def pkt_loss(
    guided:Tensor, # The student's features, (batch, …)
    hint:Tensor, # The teacher's features, (batch, …)
) -> Tensor: # Scalar: mean over all pairs of images
    """Probabilistic knowledge transfer: p · log(p/q), where p and q say how probably an image is another's neighbour.

    Passalis & Tefas 2018, section 3 (https://arxiv.org/abs/1803.10837), with the cosine kernel. The paper leaves out the pairs
    of an image with itself and sums; the authors' code, torchdistill and mdistiller count them and, as this does, take the mean.
    """
    q,p = neighbours(guided),neighbours(hint)
    return (p * ((p + EPS) / (q + EPS)).log()).mean()


def neighbours(x):
    "Cosine similarities, from 0 to 1, as probabilities: rows sum to 1, (batch, batch)"
    x = unit(x.flatten(1))
    similar = (x @ x.mT + 1)/2
    return similar / similar.sum(1, keepdim=True)


@in_float32
def hcl_loss(
    guided:Tensor, # The student's features, (batch, channels, height, width)
    hint:Tensor, # The teacher's features, the same shape
) -> Tensor: # Scalar: mean over all elements of a level, weighted mean over the levels
    """Hierarchical context loss: mean (guided − hint)² as they are and pooled to 4×4, 2×2 and 1×1, each level with half the weight.

    Chen et al. 2021, section 3 (https://arxiv.org/abs/2104.09044); the weights are those of the authors' code.
    Levels that are not smaller than the features are left out.
    """
    sizes = [k for k in (4, 2, 1) if k < min(guided.shape[2:])]
    levels = [(guided, hint)] + [(F.adaptive_avg_pool2d(guided, k), F.adaptive_avg_pool2d(hint, k)) for k in sizes]
    weights = [0.5**i for i in range(len(levels))]
    return sum(w*F.mse_loss(g, h) for w,(g,h) in zip(weights, levels)) / sum(weights)


def unit(x):
    "Rows of length 1; a row of zeros stays, and its gradient is finite"
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def same_size(guided, hint):
    "Both at the smaller height and width of the two, the larger averaged"
    if guided.dim() != 4 or hint.dim() != 4:
        raise KdfastError(f'this loss compares feature maps (batch, channels, height, width), found {tuple(guided.shape)} of the student '
                          f'and {tuple(hint.shape)} of the teacher: choose layers before the pooling; Match arranges tokens as maps')
    size = [min(sides) for sides in zip(guided.shape[2:], hint.shape[2:])]
    return F.adaptive_avg_pool2d(guided, size),F.adaptive_avg_pool2d(hint, size)
