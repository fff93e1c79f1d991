"How many bits training computes with: bfloat16 where the hardware multiplies it faster, float32 elsewhere."
from functools import lru_cache

import torch
from fastai.basics import Callback
from torch import nn


class Bfloat16(Callback):
    """Convolutions and matrix products of the training steps in bfloat16, the teacher's among them.

    Weights, gradients, batch-norm statistics and losses stay float32; validation and prediction know nothing of it. On a CPU
    a convolution some of whose weights see nothing but padding stays float32, too: oneDNN leaves the bfloat16 gradients of
    such weights as memory was.
    fastai's MixedPrecision is for GPUs alone, and for validation, too. https://docs.pytorch.org/docs/stable/amp.html
    """
    hooks = ()
    order,remove_on_fetch = 5,True # its bits end behind Distill (2), whose teacher is asked with them, and begin before Hint (9.5) asks its own

    def before_fit(self):
        self.leave() # what a fit that failed left
        if self.dls.device.type != 'cpu': return
        self.hooks = [hook for module in self.model.modules() if isinstance(module, nn.Conv2d)
                      for hook in (module.register_forward_pre_hook(exact, with_kwargs=True), module.register_forward_hook(as_before, always_call=True))]

    def leave(self):
        for hook in self.hooks: hook.remove()
        self.hooks = ()

    def after_fit(self): self.leave()

    def before_batch(self): use_bfloat16(self.dls.device, self.training)

    def after_pred(self): self.learn.pred = self.pred.float()

    def after_loss(self): use_bfloat16(self.dls.device, False)

    def after_cancel_batch(self): use_bfloat16(self.dls.device, False)


def exact(conv, inputs, named):
    "Before a convolution's forward pass: leave bfloat16 where some of its weights would see nothing but padding"
    x, = *inputs,*named.values()
    if not (torch.is_autocast_enabled(x.device.type) and sees_padding_alone(conv, x.shape[-2:])): return None
    conv.left_bfloat16 = True
    use_bfloat16(x.device, False)
    return (x.float(),),{}


def as_before(conv, inputs, output):
    "Behind it: back to bfloat16"
    if vars(conv).pop('left_bfloat16', False): use_bfloat16(inputs[0].device, True)


def sees_padding_alone(
    conv:nn.Conv2d, # Any convolution
    shape:torch.Size, # Height and width of its input
) -> bool:
    "Whether a weight of the convolution sees nothing but padding, wherever the kernel lies: small images, large kernels."
    padding = (0, 0) if isinstance(conv.padding, str) else conv.padding # 'same' pads no more than lets every weight see an image as large as the kernel
    return any(idle(*side) for side in zip(shape, conv.kernel_size, conv.stride, padding, conv.dilation))


@lru_cache(None)
def idle(side, kernel, stride, padding, dilation):
    "The same along one side"
    starts = range(-padding, side + padding - dilation*(kernel - 1), stride)
    return any(not any(0 <= start + dilation*i < side for start in starts) for i in range(kernel))


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
