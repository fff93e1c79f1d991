"""Precision of fits: float32 or bfloat16; by default bfloat16 if the hardware has instructions for it."""

from functools import lru_cache, partial

import torch
from fastai.torch_core import to_float
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.distill.fit import FitCallback
from kdfast.models.inference import is_compiled
from kdfast.training.devices import device_name
from kdfast.training.row_gradient import convolve


class Bfloat16(FitCallback):
    """Compute the convolutions and matrix products of a fit in bfloat16, including the teacher's.

    That includes the validation after each epoch. Weights, gradients, batch-norm statistics and losses stay in
    float32, as do predictions: the numbers of a finished run are those of its float32 network. On a CPU, training
    steps also compute convolutions in which some weights cover nothing but padding in float32: oneDNN leaves the
    bfloat16 gradients of these weights uninitialized. With AMX, weight gradients of small feature maps are computed
    from several images at once (`kdfast.training.row_gradient`). Autocast is restored after every batch, and whenever
    the fit ends.

    fastai's MixedPrecision is for GPUs only. https://docs.pytorch.org/docs/stable/amp.html
    """

    order = 5  # autocast covers the teacher's forward pass in Hint (9.5) and, as it ends in after_loss, in Distill (2)
    hooks, convolutions = (), ()  # of the model, during a step
    before = None  # the state of autocast before the batch, during the batch

    def before_batch(self):
        self.before = autocast_state(self.device.type)
        use_bfloat16(self.device)
        if self.training and self.device.type == 'cpu':
            self.prepare([module for module in self.model.modules() if isinstance(module, nn.Conv2d)])

    def prepare(
        self,
        convolutions: list[nn.Conv2d],  # Of the model
    ):
        "Let convolutions compute as `compute` does; those with methods of their own by slower hooks."
        self.hooks, self.convolutions, compiled = [], [], is_compiled(self.model)
        for conv in convolutions:
            left_alone = compiled or overrides(conv, '_conv_forward')
            if left_alone or overrides(conv, 'forward'):
                self.hooks += add_float32_hooks(conv)
            if not left_alone:
                self.convolutions.append(conv)
                vars(conv)['_conv_forward'] = partial(compute, conv)

    def after_pred(self):
        self.learn.pred = to_float(self.pred)

    def after_loss(self):
        self.leave()

    def after_cancel_batch(self):
        self.leave()

    def leave(self):
        "Restore model and autocast after a batch, so that the model can be copied or saved between batches."
        for hook in self.hooks:
            hook.remove()
        for conv in self.convolutions:
            vars(conv).pop('_conv_forward', None)
        if self.before:
            restore_autocast(self.before)
        self.hooks, self.convolutions, self.before = (), (), None


def overrides(
    conv: nn.Conv2d,  # Of any class
    method: str,  # Of nn.Conv2d
) -> bool:
    "Return whether a convolution, or its class, has a method of its own."
    return method in vars(conv) or getattr(type(conv), method) is not getattr(nn.Conv2d, method)


def compute(
    conv: nn.Conv2d,  # The convolution
    x: Tensor,  # (n, channels, height, width)
    weight: Tensor,  # Of the convolution
    bias: Tensor | None,  # Of the convolution
) -> Tensor:  # (n, channels, height, width)
    "Convolve as `Conv2d` does: in float32 where it must, with a faster gradient where it can."
    if torch.is_autocast_enabled(x.device.type) and sees_padding_alone(conv, x.shape[-2:]):
        with torch.autocast(x.device.type, enabled=False):
            return nn.Conv2d._conv_forward(conv, x.float(), weight, bias)
    return convolve(conv, x, weight, bias) if has_amx() else nn.Conv2d._conv_forward(conv, x, weight, bias)


in_float32 = set()  # convolutions that are being computed in float32 now


def add_float32_hooks(
    conv: nn.Module,  # A convolution
):
    "Register hooks that compute a convolution in float32 if needed; return their handles."
    return conv.register_forward_pre_hook(enter_float32, with_kwargs=True), conv.register_forward_hook(
        leave_float32, always_call=True
    )


def enter_float32(
    conv: nn.Module,  # The convolution about to compute
    inputs,  # Its input, if given by position
    named,  # Its input, if given by name
):
    "Disable autocast before a convolution in which some weights would cover nothing but padding."
    (x,) = *inputs, *named.values()
    if not (torch.is_autocast_enabled(x.device.type) and sees_padding_alone(conv, x.shape[-2:])):
        return None
    in_float32.add(conv)
    torch.set_autocast_enabled(x.device.type, False)
    return (x.float(),), {}


def leave_float32(
    conv: nn.Module,  # The convolution that has computed
    inputs,  # Its input, not used
    output,  # Its output, not used
):
    "Enable autocast again after the convolution."
    if conv not in in_float32:
        return
    in_float32.remove(conv)
    torch.set_autocast_enabled(conv.weight.device.type, True)


def sees_padding_alone(
    conv: nn.Conv2d,  # Any convolution
    shape: torch.Size,  # Height and width of its input
) -> bool:
    "Return whether some weights cover only padding at every position: small images, large kernels."
    # With 'same' or 'valid', every weight covers a pixel somewhere if the image is as large as the kernel
    padding = (0, 0) if isinstance(conv.padding, str) else conv.padding
    return cover_padding_alone(tuple(shape), conv.kernel_size, conv.stride, padding, conv.dilation)


@lru_cache(None)
def cover_padding_alone(
    *sizes,  # As of `covers_padding_alone`, each a pair
) -> bool:
    "Return whether some weights cover nothing but padding."
    return any(covers_padding_alone(*side) for side in zip(*sizes))


@lru_cache(None)
def covers_padding_alone(
    side: int,  # Size of the input, in pixels
    kernel: int,  # Size of the kernel
    stride: int,  # Of the convolution
    padding: int,  # On each side
    dilation: int,  # Distance of neighboring weights
):
    "Return whether some weights cover nothing but padding in one dimension."
    starts = range(-padding, side + padding - dilation * (kernel - 1), stride)
    return any(not any(0 <= start + dilation * i < side for start in starts) for i in range(kernel))


def precision_on(
    device: torch.device,  # Training device
    setting: str,  # auto, float32 or bfloat16
) -> str:  # float32 or bfloat16
    "Return the precision of training steps. Raises KdfastError if the device does not support it."
    if setting == 'auto':
        return 'bfloat16' if multiplies_bfloat16(device) else 'float32'
    if setting == 'bfloat16' and not (device.type == 'cpu' or multiplies_bfloat16(device)):
        raise KdfastError(f'--precision bfloat16: {device_name(device)} has no bfloat16; use float32 or auto')
    return setting


def use_bfloat16(
    device: torch.device,  # Training device
):
    "Enable autocast to bfloat16 on this thread: convolutions and matrix products."
    torch.set_autocast_dtype(device.type, torch.bfloat16)
    torch.set_autocast_enabled(device.type, True)
    torch.set_autocast_cache_enabled(False)  # a step uses each weight once, so a cache has no benefit


def autocast_state(
    kind: str,  # Type of the device: cpu, cuda
) -> tuple:  # For `restore_autocast`
    "Return the settings of autocast."
    return kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled()


def restore_autocast(
    state: tuple,  # From `autocast_state`
):
    "Restore the settings of autocast."
    kind, enabled, dtype, cached = state
    torch.set_autocast_enabled(kind, enabled)
    torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)


@lru_cache(None)
def has_amx() -> bool:
    "Return whether the CPU multiplies matrices of bfloat16 (AMX)."
    return bool(torch.cpu.get_capabilities().get('amx_bf16'))


def multiplies_bfloat16(
    device: torch.device,  # Training device
) -> bool:
    "Return whether the hardware has bfloat16 instructions; without them bfloat16 is slower than float32."
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu':
        return any(torch.cpu.get_capabilities().get(name) for name in ('avx512_bf16', 'amx_bf16'))
    return False
