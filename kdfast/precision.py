"How many bits training computes with: bfloat16 where the hardware multiplies it faster, float32 elsewhere."
import torch
from fastai.basics import Callback


class Bfloat16(Callback):
    """Convolutions and matrix products of the training steps in bfloat16, the teacher's among them.

    Weights, gradients, batch-norm statistics and losses stay float32; validation and prediction know nothing of it.
    fastai's MixedPrecision is for GPUs alone, and for validation, too. https://docs.pytorch.org/docs/stable/amp.html
    """
    order,remove_on_fetch = 5,True # its bits end behind Distill (2), whose teacher is asked with them, and begin before Hint (9.5) asks its own

    def before_batch(self): use_bfloat16(self.dls.device, self.training)

    def after_pred(self): self.learn.pred = self.pred.float()

    def after_loss(self): use_bfloat16(self.dls.device, False)

    def after_cancel_batch(self): use_bfloat16(self.dls.device, False)


def use_bfloat16(
    device:torch.device, # Where training happens
    so:bool, # From now on, or no longer
):
    "Compute convolutions and matrix products in bfloat16, on this thread."
    torch.set_autocast_dtype(device.type, torch.bfloat16)
    torch.set_autocast_enabled(device.type, so)
    torch.set_autocast_cache_enabled(False) # a step uses a weight once: nothing to keep, nothing that could be stale


def multiplies_bfloat16(
    device:torch.device, # Where training happens
) -> bool:
    "Whether the hardware has instructions for it; without them it would be slower than float32."
    if device.type == 'cuda': return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu': return any(torch.cpu.get_capabilities().get(name) for name in ('avx512_bf16', 'amx_bf16'))
    return False
