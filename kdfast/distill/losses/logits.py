"""Losses of logits. Each takes the student's first."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdfast.distill.losses.features import normalize_rows
from kdfast.distill.losses.precision import EPS, in_float32

# Of logits


def kd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 4.0,  # Temperature of both softmaxes
) -> Tensor:  # Scalar: mean over the batch
    """Soft loss: T² · KL(softmax(teacher/T) ‖ softmax(student/T)).

    The factor T² keeps its gradient as large as the hard loss's whatever the temperature
    (Hinton et al. 2015, section 2.1, https://arxiv.org/abs/1503.02531).
    """
    log_q = F.log_softmax(student.float() / T, dim=-1)
    log_p = F.log_softmax(teacher.float() / T, dim=-1)
    return T**2 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)


@in_float32
def dkd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    y: Tensor,  # Labels, (batch,)
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 1.0,  # Weight of the target class against all others
    beta: float = 8.0,  # Weight of the other classes among each other
) -> Tensor:  # Scalar: mean over the batch
    """Decoupled KD: alpha·TCKD + beta·NCKD, the soft loss of 'the target or not' and that of the other classes alone.

    Zhao et al. 2022, equation 7 (https://arxiv.org/abs/2203.08679), times T² as in their code; alpha = 1 and
    beta = 1 − the teacher's p(target) make it `kd_loss`. mdistiller, the authors' code, takes 1000 from the target's logit in NCKD where
    this leaves it out: the same, unless logits lie that far apart. mdistiller raises the loss's weight over the first epochs; the recipe
    does not.
    """
    tckd = T**2 * kd_loss(target_or_not(student / T, y), target_or_not(teacher / T, y), T=1.0)
    nckd = kd_loss(non_target_logits(student, y), non_target_logits(teacher, y), T)
    return alpha * tckd + beta * nckd


def non_target_logits(logits, y):
    "Logits of all classes but the target, (batch, classes−1); by index, for a boolean mask would make a GPU wait"
    rest = torch.arange(logits.shape[1] - 1, device=y.device)
    return logits.gather(1, rest + (rest >= y[:, None]))


def target_or_not(logits, y):
    "Logits of two classes, the target and any other, (batch, 2)"
    return torch.cat([logits.gather(1, y[:, None]), non_target_logits(logits, y).logsumexp(1, keepdim=True)], 1)


@in_float32
def dist_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 1.0,  # Temperature of both softmaxes
    beta: float = 1.0,  # Weight of the relations between classes, image by image
    gamma: float = 1.0,  # Weight of the relations within a class, from image to image
) -> Tensor:  # Scalar: mean over the batch of the one, over the classes of the other
    """DIST: beta · (1 − ρ of an image's probabilities) + gamma · (1 − ρ of a class's), ρ being Pearson's correlation.

    Huang et al. 2022, section 4 (https://arxiv.org/abs/2205.10536). The authors' code and torchdistill multiply by T²,
    the paper does not, nor does this; at T = 1 they are equal.
    """
    q, p = (student / T).softmax(1), (teacher / T).softmax(1)
    return beta * (1 - pearson(q, p).mean()) + gamma * (1 - pearson(q.mT, p.mT).mean())


def pearson(x, y):
    "Correlation of each row of `x` with that of `y`; 0 for a row that is constant"
    x, y = (normalize_rows(z - z.mean(1, keepdim=True)) for z in (x, y))
    return (x * y).sum(1)


@in_float32
def standardize(
    logits: Tensor,  # (batch, classes)
) -> Tensor:  # The same shape, float32
    """Logits as z-scores: of each image mean 0 and standard deviation 1; to be put before any loss of logits.

    Sun et al. 2024, algorithm 2 (https://arxiv.org/abs/2403.01427). As in the authors' code and torchdistill the variance divides
    by classes − 1, where the paper writes classes: a temperature smaller by √(1 − 1/classes).
    """
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPS)


def ls_kd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 2.0,  # Base temperature, in standard deviations of the logits
) -> Tensor:  # Scalar: mean over the batch
    """Soft loss of standardised logits: neither network's scale matters, only how its logits relate.

    Sun et al. 2024, algorithm 1 (https://arxiv.org/abs/2403.01427), with the T² of `kd_loss`,
    which torchdistill applies only where its hard loss is added.
    """
    return kd_loss(standardize(student), standardize(teacher), T)
