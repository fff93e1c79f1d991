"Values of a training step that stay on the device until they are read: a GPU is not waited for in every step."

import torch
from fastai.learner import AvgSmoothLoss


class SmoothLoss(AvgSmoothLoss):
    "fastai's AvgSmoothLoss without a synchronization in every step."

    def accumulate(
        self,
        learn,  # After the loss was computed
    ):
        "Add the loss of a batch, without reading it from the device."
        self.count += 1
        loss = learn.loss.detach().mean()
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


def reads_at_once(
    device: torch.device,  # Of the values
):
    "Return whether values are read in every step."
    return device.type == 'cpu'


def wide(
    value,  # Number or tensor
    device: torch.device,  # To keep it on
):
    "Return a value on the device, in the highest precision that it supports."
    return torch.as_tensor(value, device=device).detach().to(torch.float32 if device.type == 'mps' else torch.float64)
