"""Freeze the running statistics of a frozen front: training changes them without a gradient."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from kdfast.distill.fit import FitCallback
from kdfast.models.front import features, front, full_name


class FreezeNorm(FitCallback):
    """Freeze the running statistics of a frozen front, for modules of any kind.

    fastai's BnFreeze handles three kinds of batch norm only.

    With `layer`, freezes all modules that are computed up to that layer, the front of an experiment. Without it,
    freezes all modules whose parameters are frozen; a module without parameters follows the smallest module around it
    that has some.

    Frozen modules are in evaluation mode while the others train. Their parameters must be frozen with
    `Learner.freeze` and `train_bn=False`.

    Raises KdfastError if the network does not have the layer.
    """

    order = 1  # after TrainEvalCallback (-10), which sets training mode, and after MixUp (0), which changes the batch

    def __init__(
        self,
        layer: str | None = None,  # Dotted name of the guided layer, the last of the front
    ):
        self.layer = layer
        self.frozen = None  # modules; None until they are known

    def before_fit(self):
        self.frozen = None
        if self.layer:
            full_name(without_parallel(self.model), self.layer)

    def before_train(self):
        if not self.layer:
            self.frozen = frozen_modules(self.model)
        self.set_evaluation_mode()

    def before_batch(self):
        if not self.training or self.frozen is not None:
            return
        self.frozen = modules_of_front(without_parallel(self.model), self.layer, self.xb)
        self.set_evaluation_mode()

    def set_evaluation_mode(self):
        "Put the frozen modules into evaluation mode."
        for module in self.frozen or ():
            module.training = False


def modules_with_statistics(
    net: nn.Module,  # Any network
) -> dict[str, nn.Module]:  # By name
    "Return the modules that have buffers, such as running means."
    return {name: m for name, m in net.named_modules() if next(m.buffers(recurse=False), None) is not None}


def frozen_modules(
    net: nn.Module,  # Any network
) -> list[nn.Module]:
    """Return the modules with statistics whose parameters are frozen.

    A module without parameters follows the nearest module around it.
    """

    def nearest_parameters(name):
        parameters = list(net.get_submodule(name).parameters())
        return parameters if parameters or not name else nearest_parameters(name.rpartition('.')[0])

    modules = modules_with_statistics(net).items()
    return [m for name, m in modules if not any(p.requires_grad for p in nearest_parameters(name))]


def modules_of_front(
    net: nn.Module,  # Any network
    layer: str,  # Dotted name of the last layer
    xb: tuple,  # The inputs of a batch
) -> list[nn.Module]:  # In the order of computation
    "Return the modules with statistics that are computed up to and including the layer."
    called = []
    cut = front(net, layer)
    features(cut, xb)  # the first pass computes the whole network
    hooks = [m.register_forward_pre_hook(lambda m, _: called.append(m)) for m in modules_with_statistics(net).values()]
    try:
        features(cut, xb)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(called))


def without_parallel(
    net: nn.Module,  # Any network
) -> nn.Module:
    "Return the network inside DataParallel or DistributedDataParallel."
    return net.module if isinstance(net, DistributedDataParallel | DataParallel) else net
