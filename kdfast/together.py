"fastai's distributed training, for a run's Learners."
from accelerate import DistributedDataParallelKwargs
from fastai.distributed import DistributedTrainer

from kdfast.hint import Until


class Together(DistributedTrainer):
    """Average the gradients of all processes, each of which has its share of every batch: a step is what it is in one process.

    Batch norm's statistics are those of the whole batch on GPUs, and on CPUs, where torch cannot gather them, those of the first share.
    """
    remove_on_fetch = True

    def __init__(self,
        gpu:bool, # Whether the processes have one each
    ):
        super().__init__(sync_bn=gpu, kwargs_handlers=[DistributedDataParallelKwargs()])

    def before_fit(self):
        self.run = not hasattr(self.learn, 'gather_preds') # predicting is for the first process alone
        if not self.run: return
        self.accelerator.ddp_handler.find_unused_parameters = any(isinstance(m, Until) for m in self.model.modules())
        super().before_fit()

    def _wrap_dl(self, dl): return dl # kdfast's own share their batches already
