"Values of a training step that stay on the device until they are read: a GPU is not waited for in every step."

import torch
from fastai.learner import AvgSmoothLoss


class SmoothLoss(AvgSmoothLoss):
    "fastai's AvgSmoothLoss without a synchronization in every step, on plain tensors."

    def accumulate(
        self,
        learn,  # After the loss was computed
    ):
        "Add the loss of a batch, without reading it from the device."
        self.count += 1
        loss = plain(learn.loss).mean()
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


def reads_at_once(
    device: torch.device,  # Of the values
):
    "Return whether values are read in every step."
    return device.type == 'cpu'


def plain(
    value: torch.Tensor,  # Of any class
) -> torch.Tensor:
    "Return a tensor without gradient and of no subclass, such as fastai's, whose operations take longer."
    return value.detach().as_subclass(torch.Tensor)


def read_together(
    values: list,  # Numbers or tensors of one number
    device: torch.device,  # On which they are
) -> list[float]:
    "Read values from a device in one transfer."
    highest = torch.float32 if device.type == 'mps' else torch.float64
    return torch.stack([torch.as_tensor(value, device=device).detach().to(highest) for value in values]).tolist()
