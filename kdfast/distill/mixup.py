"MixUp without waiting for a GPU."

import fastai.callback.mixup
import torch
from fastai.torch_core import unsqueeze

from kdfast.data.device_transfer import move_to_device


class MixUp(fastai.callback.mixup.MixUp):
    """fastai's MixUp, bit by bit; but its random numbers go to the device in one copy that nothing waits for.

    Each image and label is blended with another of the batch, in a share that a Beta distribution draws: https://arxiv.org/abs/1710.09412
    """

    def before_batch(self):
        "Blend images and, unless the loss does it, labels"
        lam = self.distrib.sample((len(self.y),))
        order, lam = move_to_device(self.x.device, torch.randperm(len(self.y)), torch.maximum(lam, 1 - lam))
        self.lam = lam
        self.yb1 = tuple(y[order] for y in self.yb)
        self.learn.xb = tuple(self.blend(x[order], x) for x in self.xb)
        if not self.stack_y:
            self.learn.yb = tuple(self.blend(y1, y) for y1, y in zip(self.yb1, self.yb))

    def blend(self, other, own):
        return torch.lerp(other, own, weight=unsqueeze(self.lam, n=own.dim() - 1))
