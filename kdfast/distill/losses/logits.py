"""Losses of logits. The student's logits are the first argument, the teacher's the second."""

from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.core.ranges import check_loss_numbers
from kdfast.distill.losses.precision import EPS, MASKED, in_float32, precise, with_masks
from kdfast.distill.losses.shapes import check_classes

__all__ = ['dist_loss', 'dkd_loss', 'kd_loss', 'ls_kd_loss', 'standardize']

CONSTANT = 1e-2  # standard deviation of logits below which the losses that divide by it take them for constant


def compares_classes(
    loss,  # Function of two tensors of logits
):  # A function with the same arguments
    "Let a loss of logits (images, classes) raise KdfastError for other shapes, and mark it for Match."

    @wraps(loss)
    def checked(student, teacher, *args, **kwargs):
        check_classes(loss.__name__, student, teacher)
        return loss(student, teacher, *args, **kwargs)

    checked.compares_classes = True
    return checked


@compares_classes
def kd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 4.0,  # Temperature of both softmaxes
) -> Tensor:  # Scalar: mean over the batch
    """Compute the soft loss T² · KL(softmax(teacher/T) ‖ softmax(student/T)).

    Hinton et al. 2015, section 2.1 (https://arxiv.org/abs/1503.02531). The factor T² keeps the gradient about as
    large as that of the hard loss at any temperature. Classes masked by logits of minus infinity, in both networks or
    in the teacher alone, have the probability 0.
    """
    check_loss_numbers(T)
    student, teacher = with_masks(student.float(), teacher.float())
    return softened_divergence(precise(student, T), precise(teacher, T), T).float()


def softened_divergence(
    student: Tensor,  # Logits of the student, (batch, classes), also of one class
    teacher: Tensor,  # Logits of the teacher, likewise
    T: float,  # Temperature of both softmaxes
) -> Tensor:  # Scalar: mean over the batch
    "Compute T² · KL of the softmaxes."
    log_q = F.log_softmax(student / T, dim=-1)
    log_p = F.log_softmax(teacher / T, dim=-1)
    return T**2 * F.kl_div(log_q, log_p, reduction='batchmean', log_target=True)


@compares_classes
@in_float32
def dkd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    y: Tensor,  # Labels, (batch,); images with a label that is no class, such as −100, are left out
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 1.0,  # Weight of TCKD, the target class against all others
    beta: float = 8.0,  # Weight of NCKD, the non-target classes among each other
) -> Tensor:  # Scalar: mean over the images whose label is a class
    """Compute decoupled KD: alpha·TCKD + beta·NCKD.

    Zhao et al. 2022, equation 7 (https://arxiv.org/abs/2203.08679), times T² as in the authors' code. TCKD is the
    soft loss of two classes, target and non-target; NCKD that of the non-target classes alone. alpha = 1 and beta = 1
    − p(target) of the teacher give `kd_loss`.

    For NCKD, mdistiller (the authors' code) subtracts 1000 from the target logit; this function removes the target
    class, which is equal unless logits differ by about that much. mdistiller increases the weight of the loss over
    the first epochs; the recipe does not.
    """
    check_loss_numbers(T, alpha=alpha, beta=beta)
    check_labels(student, y)
    dtype = student.dtype
    student, y, share = without_ignored(student, teacher, y.long())
    student, teacher = (precise(x, T) for x in with_masks(student, teacher))
    tckd = T**2 * softened_divergence(target_or_not(student / T, y), target_or_not(teacher / T, y), T=1.0)
    nckd = softened_divergence(non_target_logits(student, y), non_target_logits(teacher, y), T)
    return (share * (alpha * tckd + beta * nckd)).to(dtype)


def check_labels(
    logits: Tensor,  # (batch, classes)
    y: Tensor,  # Labels
):
    "Raise KdfastError unless each image has one class as its label."
    if y.is_floating_point() or y.shape != logits.shape[:1]:
        raise KdfastError(
            f'dkd_loss needs the class of each image, integers of shape {tuple(logits.shape[:1])}; found labels of '
            f'{y.dtype} and shape {tuple(y.shape)}: take the argmax of one-hot labels'
        )


def without_ignored(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    y: Tensor,  # Labels, (batch,)
) -> tuple[Tensor, Tensor, Tensor]:  # Logits of the student, labels, and the factor from the mean over all images
    """Let images whose label is no class, as ignored labels are, cost nothing and not count in the mean.

    The student's logits become the teacher's; to select the other images would synchronize with a GPU.
    """
    counts = (y >= 0) & (y < student.shape[1])
    share = len(y) / counts.sum().clamp(min=1)  # 1 without ignored labels
    return student.where(counts[:, None], teacher), y.clamp(0, student.shape[1] - 1), share


def non_target_logits(
    logits: Tensor,  # (batch, classes)
    y: Tensor,  # Labels, (batch,)
) -> Tensor:  # (batch, classes − 1)
    "Return the logits of all classes but the target."
    rest = torch.arange(logits.shape[1] - 1, device=y.device)
    return logits.gather(1, rest + (rest >= y[:, None]))  # indices; a boolean mask would synchronize with a GPU


def target_or_not(
    logits: Tensor,  # (batch, classes)
    y: Tensor,  # Labels, (batch,)
) -> Tensor:  # (batch, 2)
    "Return logits of two classes: the target, and all other classes together."
    target = logits.gather(1, y[:, None])
    return torch.cat([target, non_target_logits(logits, y).logsumexp(1, keepdim=True)], 1)


@compares_classes
@in_float32
def dist_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 1.0,  # Temperature of both softmaxes
    beta: float = 1.0,  # Weight of the inter-class relations, within each image
    gamma: float = 1.0,  # Weight of the intra-class relations, across the images of the batch
) -> Tensor:  # Scalar: mean over the batch (inter-class), mean over the classes (intra-class)
    """Compute DIST: beta · (1 − ρ of an image's classes) + gamma · (1 − ρ of a class's images).

    ρ is Pearson's correlation of the student's and the teacher's probabilities. Huang et al. 2022, section 4
    (https://arxiv.org/abs/2205.10536). The authors' code and torchdistill multiply by T²; the paper and this function
    do not. At T = 1 they are equal. Nearly constant probabilities, as of a classifier that begins at zero, count less
    than others, so that the gradient has a bound; constant ones do not correlate.
    """
    check_loss_numbers(T, beta=beta, gamma=gamma)
    q = (precise(student, T) / T).softmax(1)
    p = (precise(teacher, T) / T).softmax(1)
    constant = CONSTANT / (1 + T)  # probabilities differ by about 1/T of what logits do
    loss = beta * (1 - pearson(q, p, constant).mean()) + gamma * (1 - pearson(q.mT, p.mT, constant).mean())
    return loss.to(student.dtype)


def pearson(
    x: Tensor,  # (rows, columns)
    y: Tensor,  # (rows, columns)
    constant: float | Tensor,  # Relative deviation below which a row is nearly constant
) -> Tensor:  # (rows,)
    """Return the correlation of each row of `x` with the same row of `y`; 0 for constant rows.

    Deviations of nearly constant rows are divided by the bound instead of their own size, which would be a gradient
    without bound, of rounding errors in the end.
    """
    x, y = (centered(z, constant) for z in (x, y))
    return (x * y).sum(1)


def centered(
    x: Tensor,  # (rows, columns)
    constant: float | Tensor,  # Relative deviation below which a row is nearly constant
) -> Tensor:  # The same shape
    "Return rows of mean 0 and length 1, or less if they are nearly constant."
    difference = x - x.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
    smallest = constant * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    length = norm.maximum(smallest)
    return difference / length.masked_fill(length == 0, 1)


@in_float32
def standardize(
    logits: Tensor,  # (batch, classes)
) -> Tensor:  # The same shape, float32
    """Return logits as z-scores: mean 0 and standard deviation 1 for each image.

    Can precede any loss of logits. Sun et al. 2024, algorithm 2 (https://arxiv.org/abs/2403.01427). The variance
    divides by classes − 1, as in the authors' code and torchdistill; the paper divides by classes, which equals a
    temperature smaller by √(1 − 1/classes). Logits of minus infinity, masked classes, stay so and do not count. A
    standard deviation below 0.01 counts as 0.01: the gradient has a bound where logits are nearly equal, as those of a
    classifier that begins at zero.
    """
    present = ~(logits <= MASKED)  # NaN is no mask
    count = present.sum(1, keepdim=True)
    mean = logits.masked_fill(~present, 0).sum(1, keepdim=True) / count.clamp(min=1)
    logits = logits.where(present, mean)  # the mean of the row becomes that of the other classes
    of_present = ((logits.shape[1] - 1) / (count - 1).clamp(min=1)).sqrt()  # 1 without masks
    difference = logits - logits.mean(1, keepdim=True)
    z = difference / ((logits.std(1, keepdim=True) * of_present).clamp(min=CONSTANT) + EPS)
    return z.masked_fill(~present, -torch.inf)


@compares_classes
def ls_kd_loss(
    student: Tensor,  # Logits of the student, (batch, classes)
    teacher: Tensor,  # Logits of the teacher, (batch, classes)
    T: float = 2.0,  # Base temperature, in standard deviations of the logits
) -> Tensor:  # Scalar: mean over the batch
    """Compute the soft loss of standardized logits: the scale of both networks' logits has no effect.

    Sun et al. 2024, algorithm 1 (https://arxiv.org/abs/2403.01427), with the factor T² of `kd_loss`; torchdistill
    applies T² only when it adds the hard loss.
    """
    return kd_loss(standardize(student), standardize(teacher), T)
