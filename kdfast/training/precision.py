"How many bits training computes with: bfloat16 where the hardware multiplies it faster, float32 elsewhere."

from functools import lru_cache

import torch
from fastai.torch_core import to_float
from torch import nn

from kdfast.distill.fit import FitCallback


class Bfloat16(FitCallback):
    """Convolutions and matrix products of the training steps in bfloat16, the teacher's among them.

    Weights, gradients, batch-norm statistics and losses stay float32; validation and prediction know nothing of it. On a CPU
    a convolution some of whose weights see nothing but padding stays float32, too: oneDNN leaves the bfloat16 gradients of
    such weights as memory was. Behind every step, and however the fit ends, autocast is set as it was before.
    fastai's MixedPrecision is for GPUs alone, and for validation, too. https://docs.pytorch.org/docs/stable/amp.html
    """

    order = (
        5  # its bits end behind Distill (2), whose teacher is asked with them, and begin before Hint (9.5) asks its own
    )
    hooks, before = (), None  # `before`: the state of autocast outside of the step, inside of one

    def before_batch(self):
        if not self.training:
            return
        self.before = autocast_state(self.device.type)
        use_bfloat16(self.device)
        if self.device.type == 'cpu':
            self.hooks = [
                hook
                for module in self.model.modules()
                if isinstance(module, nn.Conv2d)
                for hook in exact_at_the_edge(module)
            ]

    def after_pred(self):
        if self.training:
            self.learn.pred = to_float(self.pred)

    def after_loss(self):
        self.leave()

    def after_cancel_batch(self):
        self.leave()

    def leave(self):
        "Nothing stays behind a step: whoever copies or saves the model between two finds it as it is"
        for hook in self.hooks:
            hook.remove()
        if self.before:
            restore_autocast(self.before)
        self.hooks, self.before = (), None


left = set()  # convolutions that are being computed in float32


def exact_at_the_edge(conv):
    return conv.register_forward_pre_hook(exact, with_kwargs=True), conv.register_forward_hook(
        as_before, always_call=True
    )


def exact(conv, inputs, named):
    "Before a convolution's forward pass: leave bfloat16 where some of its weights would see nothing but padding"
    (x,) = *inputs, *named.values()
    if not (torch.is_autocast_enabled(x.device.type) and sees_padding_alone(conv, x.shape[-2:])):
        return None
    left.add(conv)
    torch.set_autocast_enabled(x.device.type, False)
    return (x.float(),), {}


def as_before(conv, inputs, output):
    "Behind it: back to bfloat16"
    if conv not in left:
        return
    left.remove(conv)
    torch.set_autocast_enabled(conv.weight.device.type, True)


def sees_padding_alone(
    conv: nn.Conv2d,  # Any convolution
    shape: torch.Size,  # Height and width of its input
) -> bool:
    "Whether a weight of the convolution sees nothing but padding, wherever the kernel lies: small images, large kernels."
    padding = (
        (0, 0) if isinstance(conv.padding, str) else conv.padding
    )  # 'same' pads no more than lets every weight see an image as large as the kernel
    return any(idle(*side) for side in zip(shape, conv.kernel_size, conv.stride, padding, conv.dilation))


@lru_cache(None)
def idle(side, kernel, stride, padding, dilation):
    "The same along one side"
    starts = range(-padding, side + padding - dilation * (kernel - 1), stride)
    return any(not any(0 <= start + dilation * i < side for start in starts) for i in range(kernel))


def use_bfloat16(
    device: torch.device,  # Where training happens
):
    "From now on, compute convolutions and matrix products in bfloat16, on this thread."
    torch.set_autocast_dtype(device.type, torch.bfloat16)
    torch.set_autocast_enabled(device.type, True)
    torch.set_autocast_cache_enabled(False)  # a step uses a weight once: nothing to keep, nothing that could be stale


def autocast_state(
    kind: str,  # Of device: cpu, cuda
) -> tuple:  # For `restore_autocast`
    "How autocast is set."
    return kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled()


def restore_autocast(
    state: tuple,  # From `autocast_state`
):
    "Set autocast as it was."
    kind, enabled, dtype, cached = state
    torch.set_autocast_enabled(kind, enabled)
    torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)


def multiplies_bfloat16(
    device: torch.device,  # Where training happens
) -> bool:
    "Whether the hardware has instructions for it; without them it would be slower than float32."
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu':
        return any(torch.cpu.get_capabilities().get(name) for name in ('avx512_bf16', 'amx_bf16'))
    return False
