"""MixUp that does not synchronize with the GPU."""

import fastai.callback.mixup
import torch
from fastai.torch_core import unsqueeze

from kdfast.data.device_transfer import move_to_device


class MixUp(fastai.callback.mixup.MixUp):
    """Mix pairs of images and labels, with the same bits as fastai's MixUp, in fewer GPU synchronizations.

    Blends each image and label with another one of the batch, weighted by a draw from a Beta distribution
    (https://arxiv.org/abs/1710.09412). The random numbers are copied to the device in one asynchronous transfer.
    """

    def before_batch(self):
        "Blend the images, and the labels unless the loss does it."
        lam = self.distrib.sample((len(self.y),))
        order, lam = move_to_device(self.x.device, torch.randperm(len(self.y)), torch.maximum(lam, 1 - lam))
        self.lam = lam
        self.yb1 = tuple(y[order] for y in self.yb)
        self.learn.xb = tuple(self.blend(x[order], x) for x in self.xb)
        if not self.stack_y:
            self.learn.yb = tuple(self.blend(y1, y) for y1, y in zip(self.yb1, self.yb))

    def blend(
        self,
        other: torch.Tensor,  # Images or labels to mix in
        own: torch.Tensor,  # Images or labels of the batch
    ) -> torch.Tensor:
        "Return lam·own + (1 − lam)·other."
        return torch.lerp(other, own, weight=unsqueeze(self.lam, n=own.dim() - 1))
