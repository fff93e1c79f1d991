"The losses of distillation and of hints: pure functions of tensors, student before teacher, in float32."
import torch.nn.functional as F
from torch import Tensor


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


def hint_loss(
    guided:Tensor, # The student's guided features after the regressor, (batch, channels, height, width)
    hint:Tensor, # The teacher's hint features, the same shape
) -> Tensor: # Scalar: mean over all elements
    """Fit loss: ½ · mean (guided − hint)².

    Romero et al. 2015, equation 3 (https://arxiv.org/abs/1412.6550), which sums over an image's elements
    where this takes their mean, so that one learning rate serves every width and image size.
    """
    return 0.5 * F.mse_loss(guided.float(), hint.float())
