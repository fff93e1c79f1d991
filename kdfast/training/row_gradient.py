"""Weight gradients of bfloat16 convolutions on CPUs with AMX, several times as fast for small feature maps.

The gradient of a weight is a sum over all images n and pixels (y, x) of the output, here for one dimension:

    dW[o, i, a] = Σ_n Σ_x dY[n, o, x] · X[n, i, stride·x + dilation·a − padding]

AMX sums 32 products at once; oneDNN gives it the pixels of one row, so that with rows of 4 pixels most of the time is
spent on zeros. Images side by side, with columns of zeros between them, have the same sum and long rows.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

ROW = 32  # products that AMX sums at once, in bfloat16
SHORT = ROW // 4  # longest rows for which joining images is faster
CHANNELS = 100  # and the least in·out channels for it, per squared length; both measured by benchmarks/row_gradient.py

convolution_backward = torch.ops.aten.convolution_backward


def convolve(
    conv: nn.Conv2d,  # Whose geometry is used
    x: Tensor,  # (n, channels, height, width)
    weight: Tensor,  # Of the convolution
    bias: Tensor | None,  # Of the convolution
) -> Tensor:  # (n, channels, height, width)
    "Convolve as `Conv2d._conv_forward` does."
    if not is_faster(conv, x, weight):
        return nn.Conv2d._conv_forward(conv, x, weight, bias)
    half = [None if t is None else t.to(torch.bfloat16) for t in (x, weight, bias)]  # as autocast does
    return Convolution.apply(*half, conv.stride, conv.padding, conv.dilation)


def is_faster(
    conv: nn.Conv2d,  # The convolution
    x: Tensor,  # Its input
    weight: Tensor,  # Its weight
) -> bool:
    "Return whether a weight gradient in bfloat16 is faster with joined images."
    return (
        x.dim() == 4
        and conv.kernel_size[1] > 1
        and not isinstance(conv.padding, str)
        and output_width(x.shape[3], conv) <= min(SHORT, (conv.in_channels * conv.out_channels / CHANNELS) ** 0.5)
        and conv.padding_mode == 'zeros'
        and conv.groups == 1
        and torch.is_autocast_enabled('cpu')
        and torch.get_autocast_dtype('cpu') == torch.bfloat16
        and torch.is_grad_enabled()
        and weight.requires_grad
        and x.device.type == 'cpu'
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def output_width(
    width: int,  # Of the input, in pixels
    conv: nn.Conv2d,  # The convolution
) -> int:
    "Return the width of the output."
    return (width + 2 * conv.padding[1] - conv.dilation[1] * (conv.kernel_size[1] - 1) - 1) // conv.stride[1] + 1


class Convolution(torch.autograd.Function):
    "A convolution whose weight gradient is computed from joined images."

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation):
        "Return the output."
        ctx.save_for_backward(x, weight)
        ctx.geometry = list(stride), list(padding), list(dilation)
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    def backward(ctx, of_output):
        "Return the gradients of input, weight and bias."
        x, weight = ctx.saved_tensors
        of_x, _, of_bias = convolution_backward(
            of_output,
            x,
            weight,
            ctx.bias_sizes,
            *ctx.geometry,
            False,
            [0, 0],
            1,
            [ctx.needs_input_grad[0], False, ctx.needs_input_grad[2]],
        )
        return of_x, weight_gradient(of_output, x, weight, *ctx.geometry), of_bias, None, None, None


def weight_gradient(
    of_output: Tensor,  # (n, out channels, height, width): gradient of the output
    x: Tensor,  # (n, in channels, height, width): the input
    weight: Tensor,  # (out channels, in channels, height, width); only its shape, type and layout matter
    stride: list[int],  # Of rows and columns
    padding: list[int],  # Of rows and columns
    dilation: list[int],  # Of rows and columns
) -> Tensor:  # As the weight
    "Return the gradient of the weight of a convolution, computed from joined images."
    step = stride[1]
    slot = max(of_output.shape[3], -(-(x.shape[3] + padding[1]) // step))  # an image's width in the joined output
    n = max(1, min(ROW // slot, len(x)))
    rows, of_rows = join(x, step * slot, n), join(of_output, slot, n)
    reach = dilation[1] * (weight.shape[3] - 1) + 1
    width = (rows.shape[3] + 2 * padding[1] - reach) // step + 1
    of_rows = pad(of_rows, (0, width - of_rows.shape[3]))  # or cut: these columns are zeros
    return convolution_backward(
        of_rows, rows, weight, None, stride, padding, dilation, False, [0, 0], 1, [False, True, False]
    )[1]


def join(
    x: Tensor,  # (images, channels, height, width)
    slot: int,  # Columns for each image, at least its width
    n: int,  # Images to put side by side
) -> Tensor:  # (ceil(images / n), channels, height, n · slot), in channels-last layout
    "Put images side by side, with zeros in between and at the end."
    images, channels, height, width = x.shape
    full = images // n
    joined = x.new_zeros(-(-images // n), height, n, slot, channels)
    of_images = x.permute(0, 2, 3, 1)
    joined[:full, :, :, :width] = of_images[: full * n].unflatten(0, (full, n)).transpose(1, 2)
    joined[full:, :, : images % n, :width] = of_images[full * n :].transpose(0, 1)
    return joined.flatten(2, 3).permute(0, 3, 1, 2)
