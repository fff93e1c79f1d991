"What depends on the device: its name, algorithms that repeat, and fastai's smoothed loss, which would make a GPU wait at every step."
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from fastai.learner import AvgSmoothLoss

from kdfast.fit import FitCallback

KEPT_TOGETHER = 2**10 # losses in one block of a GPU's memory


def device_name(
    device:torch.device, # Where training happens
) -> str: # The GPU's name; mps, cpu
    "What a run puts on record."
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


@contextmanager
def repeatable(
    device:torch.device, # Where training happens
) -> Iterator:
    """On CUDA, take algorithms that give the same bits every time, wherever PyTorch has one, and warn where it has none.

    cuDNN does not try which algorithm is fastest, for the winner may be another one the next time. Afterwards all is as it was.
    A CPU needs nothing of it. https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if device.type != 'cuda':
        yield
        return
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8') # looked at when cuBLAS is first used
    was = torch.are_deterministic_algorithms_enabled(),torch.is_deterministic_algorithms_warn_only_enabled(),torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try: yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        torch.backends.cudnn.benchmark = was[2]


class SmoothLoss(AvgSmoothLoss):
    "fastai's smoothed loss, left on the device; its values lie side by side, where a tensor each would take hundreds of bytes."
    def accumulate(self, learn):
        loss = learn.loss.detach().mean()
        place = self.count % KEPT_TOGETHER
        if place == 0: self.block = loss.new_empty(KEPT_TOGETHER)
        self.count += 1
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)
        self.smoothed = self.block[place].copy_(self.val/(1 - self.beta**self.count))

    @property
    def value(self): return self.smoothed


class LossOnDevice(FitCallback):
    "Keep the smoothed loss of fastai's Recorder on a GPU until the fit is over."
    order,remove_on_fetch = 0,True # before the Recorder (50)
    own = None # fastai's smoothed loss

    def before_fit(self):
        if self.on_cpu or not hasattr(self.learn, 'recorder'): return
        self.own = self.recorder.smooth_loss
        self.recorder.smooth_loss = SmoothLoss(beta=self.own.beta)

    def after_fit(self):
        if self.own is None: return
        if self.recorder.losses: self.recorder.losses = list(torch.stack(self.recorder.losses).cpu())
        self.leave()

    @property
    def on_cpu(self): return self.dls.device.type == 'cpu'

    def leave(self):
        if self.own is not None: self.recorder.smooth_loss,self.own = self.own,None
