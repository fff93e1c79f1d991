"""fastai's distributed training for the Learners of a run."""

import torch
from accelerate import DistributedDataParallelKwargs
from fastai.distributed import DistributedTrainer
from torch import nn

from kdfast.core import distributed
from kdfast.data.random_streams import PROCESSES, generator
from kdfast.distill.fit import FitCallback
from kdfast.models.front import TruncatedModel

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d


class DistributedRun(FitCallback, DistributedTrainer):
    """Average the gradients of all processes, which each compute their part of every batch.

    A step is the same as in one process.

    Batch norm uses the statistics of the whole batch on GPUs, and those of the first process's part on CPUs, where
    torch cannot gather them. Each process predicts on its own. The model is restored after the fit, also after an
    exception.
    """

    norm_types = {}  # of batch norms, before they were synchronized
    wrapped = None  # the model in DistributedDataParallel

    def __init__(
        self,
        gpu: bool,  # Whether each process has a GPU
    ):
        # Not sync_bn of fastai, which does not restore the batch norms
        DistributedTrainer.__init__(self, sync_bn=False, kwargs_handlers=[DistributedDataParallelKwargs()])
        self.gpu = gpu

    def before_fit(self):
        self.accelerator.ddp_handler.find_unused_parameters = any(
            isinstance(m, TruncatedModel) for m in self.model.modules()
        )
        if self.gpu:
            self.norm_types = synchronize_norms(self.model)
        DistributedTrainer.before_fit(self)
        self.wrapped = self.model

    def _wrap_dl(self, dl):
        return dl  # kdfast's DataLoaders split their batches themselves

    def after_fit(self):
        self.leave()

    def leave(self):
        "Restore model and normalization layers."
        if self.wrapped is not None:
            self.learn.model, self.wrapped = self.wrapped.module, None
            self.accelerator.free_memory()
        for module, norm_type in self.norm_types.items():
            module.__class__ = norm_type
        self.norm_types = {}


def synchronize_norms(
    net: nn.Module,  # Changed: its batch norms use the statistics of all processes
) -> dict[nn.Module, type]:  # Their former classes, to be restored as `__class__`
    """Change batch norms to SyncBatchNorm in place; hooks, parameters and statistics stay.

    Other subclasses are not changed: their forward pass, such as timm's with an activation, would be lost.
    """
    norm_types = {m: type(m) for m in net.modules() if type(m) in BATCH_NORMS}
    for module in norm_types:
        module.__class__ = nn.SyncBatchNorm
        module.process_group = None
    return norm_types


class RankRandomNumbers(FitCallback):
    """Give each process its own random numbers in training, for dropout for example.

    They depend on seed, step and process only, so that an interrupted run resumes with the same. The first process
    draws the same numbers as a process that trains alone.
    """

    order = -4.5  # before MixUp (0), which draws random numbers

    def before_fit(self):
        self.seed = torch.initial_seed()

    def before_batch(self):
        if not (distributed.rank and self.training):
            return
        torch.manual_seed(
            generator(self.seed, self.epoch, self.iter, distributed.rank, stream=PROCESSES).initial_seed()
        )
