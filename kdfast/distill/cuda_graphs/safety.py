"""Decide what may be recorded: modules whose forward pass follows from type, settings and input shape alone."""

import sys
from collections.abc import Callable
from functools import lru_cache

import torch
from fastai.torch_core import TensorImage
from torch import Tensor, nn

from kdfast.models import folding
from kdfast.models.front import AsMap
from kdfast.models.inference import tensors
from kdfast.models.study_networks import Residual

TORCH = set(
    [
        'Conv1d',
        'Conv2d',
        'Conv3d',
        'ConvTranspose1d',
        'ConvTranspose2d',
        'ConvTranspose3d',
        'Linear',
        'Identity',
        'BatchNorm1d',
        'BatchNorm2d',
        'BatchNorm3d',
        'GroupNorm',
        'LayerNorm',
        'InstanceNorm1d',
        'InstanceNorm2d',
        'InstanceNorm3d',
        'LocalResponseNorm',
        'ReLU',
        'ReLU6',
        'LeakyReLU',
        'ELU',
        'CELU',
        'SELU',
        'GELU',
        'SiLU',
        'Mish',
        'Hardswish',
        'Hardsigmoid',
        'Hardtanh',
        'Sigmoid',
        'Tanh',
        'Softplus',
        'Softmax',
        'LogSoftmax',
        'PReLU',
        'MaxPool1d',
        'MaxPool2d',
        'MaxPool3d',
        'AvgPool1d',
        'AvgPool2d',
        'AvgPool3d',
        'AdaptiveAvgPool1d',
        'AdaptiveAvgPool2d',
        'AdaptiveAvgPool3d',
        'AdaptiveMaxPool1d',
        'AdaptiveMaxPool2d',
        'AdaptiveMaxPool3d',
        'Flatten',
        'Unflatten',
        'Upsample',
        'ZeroPad2d',
        'ReflectionPad2d',
        'PixelShuffle',
        'Dropout',
        'Dropout1d',
        'Dropout2d',
        'Dropout3d',
        'Sequential',
        'ModuleList',
    ]
)


OTHERS = {
    'torchvision.models.resnet': 'ResNet BasicBlock Bottleneck',
    'torchvision.models.vgg': 'VGG',
    'torchvision.models.alexnet': 'AlexNet',
    'torchvision.models.squeezenet': 'SqueezeNet Fire',
    'torchvision.models.mobilenetv2': 'MobileNetV2 InvertedResidual',
    'torchvision.models.mobilenetv3': 'MobileNetV3 InvertedResidual',
    'torchvision.models.shufflenetv2': 'ShuffleNetV2 InvertedResidual',
    'torchvision.models.regnet': 'RegNet AnyStage ResBottleneckBlock BottleneckTransform SimpleStemIN',
    'torchvision.ops.misc': 'ConvNormActivation Conv2dNormActivation SqueezeExcitation',
    Residual.__module__: 'Residual',
}


HOOKS = *folding.HOOKS, '_forward_hooks_always_called'


def class_forward(
    module: nn.Module,  # Any module
) -> Callable | None:  # None for TorchScript, whose classes have none
    "Return the forward method of a module's class."
    return getattr(type(module), 'forward', None)


@lru_cache(None)
def is_safe(
    kind: type,  # Of a module
    forward: Callable | None,  # Its forward
):
    "Return whether a class is in the lists, with a forward pass that a library gave it."
    home, name = kind.__module__, kind.__name__
    listed = name in TORCH if home.startswith('torch.nn.modules.') else name in OTHERS.get(home, '').split()
    return (
        listed
        and getattr(sys.modules.get(home), name, None) is kind
        and forward.__module__.partition('.')[0] in ('torch', 'torchvision', 'kdfast')
    )


@lru_cache(None)
def methods(
    kind: type,  # Of a module
):
    "Return the names of the methods of a class."
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name)))


def problem(
    network: nn.Module,  # Any network
    x: Tensor,  # What it is called with
) -> str:  # Empty where there is none
    "Return why a network may not be recorded."
    for m in network.modules():
        kind = type(m)
        if not is_safe(kind, class_forward(m)):
            return f'{kind.__name__} may compute anything'
        own = vars(m)
        if not methods(kind).isdisjoint(own) and not (
            own.keys() & methods(kind) == {'forward'} and own['forward'] is folding.identity
        ):
            return f'a {kind.__name__} has methods of its own'
        if any(own[hooks] for hooks in HOOKS) and not has_only_our_hook(m):
            return f'a {kind.__name__} has hooks'
        if m._compiled_call_impl is not None:
            return f'a {kind.__name__} is compiled'
        if m.training and getattr(m, 'p', 0) and isinstance(m, nn.modules.dropout._DropoutNd):
            return 'dropout draws random numbers'
        if m.training and getattr(m, 'momentum', 0) is None:
            return 'a batch norm reads how many batches it has seen'
    for t in tensors(network):
        if (
            type(t) not in (Tensor, nn.Parameter)
            or t.device != x.device
            or t.layout is not torch.strided
            or t.dtype is torch.float16
        ):
            return 'a weight is no plain one on the device'
    return ''


def has_only_our_hook(
    m: nn.Module,  # A module with hooks
):
    "Return whether the only hooks of a module are those that view its output as a feature map."
    others = any(vars(m)[hooks] for hooks in HOOKS if hooks != '_forward_hooks')
    return not others and all(type(hook) is AsMap for hook in m._forward_hooks.values())


def unfit(
    x,  # What a network is called with
) -> str:  # Empty if it may
    "Return why a call with this input may not be recorded, whatever the network."
    if type(x) not in (Tensor, TensorImage) or vars(x):
        return 'the input is no plain tensor'
    if not x.is_floating_point() or x.layout is not torch.strided or x.requires_grad or not x.numel():
        return 'the input takes a gradient, or is no image'
    if not (x.is_contiguous() or x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return 'the input has gaps in memory'
    if torch.is_autocast_enabled(x.device.type):
        if torch.is_autocast_cache_enabled():
            return 'autocast keeps weights that it has rounded'
        if torch.get_autocast_dtype(x.device.type) is torch.float16:
            return 'float16 is scaled'
    watched = (
        torch.nn.modules.module._has_any_global_hook()
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
    )
    if watched or torch.is_anomaly_enabled() or torch.is_inference_mode_enabled():
        return 'something watches what is computed'
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return 'processes train together'
    return ''
