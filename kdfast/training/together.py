"fastai's distributed training, for a run's Learners."

import torch
from accelerate import DistributedDataParallelKwargs
from fastai.distributed import DistributedTrainer
from torch import nn

from kdfast.core import distributed
from kdfast.data.dataloaders import PROCESSES, generator
from kdfast.distill.fit import FitCallback
from kdfast.models.front import TruncatedModel

PLAIN = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d


class Together(FitCallback, DistributedTrainer):
    """Average the gradients of all processes, each of which has its share of every batch: a step is what it is in one process.

    Batch norm's statistics are those of the whole batch on GPUs, and on CPUs, where torch cannot gather them, those of the first share.
    Predictions are each process's own. Afterwards, also behind an exception, the model is what it was.
    """

    kinds, wrapped = (
        {},
        None,
    )  # of norms, before they were synchronized; the model in the hands of DistributedDataParallel

    def __init__(
        self,
        gpu: bool,  # Whether the processes have one each
    ):
        DistributedTrainer.__init__(
            self, sync_bn=False, kwargs_handlers=[DistributedDataParallelKwargs()]
        )  # which would not give the norms back
        self.gpu = gpu

    def before_fit(self):
        self.accelerator.ddp_handler.find_unused_parameters = any(
            isinstance(m, TruncatedModel) for m in self.model.modules()
        )
        if self.gpu:
            self.kinds = synchronize_norms(self.model)
        DistributedTrainer.before_fit(self)
        self.wrapped = self.model

    def _wrap_dl(self, dl):
        return dl  # kdfast's own share their batches already

    def after_fit(self):
        self.leave()

    def leave(self):
        if self.wrapped is not None:
            self.learn.model, self.wrapped = self.wrapped.module, None
            self.accelerator.free_memory()
        for module, kind in self.kinds.items():
            module.__class__ = kind
        self.kinds = {}


def synchronize_norms(
    net: nn.Module,  # Changed: its batch norms normalize with the statistics of all processes' shares
) -> dict[nn.Module, type]:  # The kinds that they were of: to be set again as their `__class__`
    """Turn batch norms into SyncBatchNorm where they are; hooks, parameters and statistics stay.

    A user's own kinds are left alone: their forward pass, such as timm's with its activation, would be lost.
    """
    kinds = {m: type(m) for m in net.modules() if type(m) in PLAIN}
    for module in kinds:
        module.__class__, module.process_group = nn.SyncBatchNorm, None
    return kinds


class OwnRandomNumbers(FitCallback):
    """Let each process but the first draw random numbers of its own in training, dropout's for example.

    They follow from the seed, the step and the process, so that an interrupted run goes on with the same. The first process
    draws what a process that trains alone would draw.
    """

    order = -4.5  # behind a run's Resume (-5), which restores the first's random states; before MixUp (0)

    def before_fit(self):
        self.seed = torch.initial_seed()

    def before_batch(self):
        if not (distributed.rank and self.training):
            return
        torch.manual_seed(
            generator(self.seed, self.epoch, self.iter, distributed.rank, stream=PROCESSES).initial_seed()
        )
