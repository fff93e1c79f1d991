"Holding a frozen front still: what training moves without a gradient."

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from kdfast.distill.fit import FitCallback
from kdfast.models.front import features, front, full_name


class FreezeNorm(FitCallback):
    """Hold the running statistics of a frozen front still, those of any kind of module; fastai's BnFreeze knows three kinds of batch norm.

    With `layer`, of every module that is computed up to that layer, as an experiment's front ends there. Without it, of every module whose
    parameters are all frozen; of one that has none, where those of the smallest module around it are.
    Such a module is in evaluation mode while the others train. Its parameters are `freeze`'s to hold, with `train_bn=False`.
    """

    order = (
        1  # after TrainEvalCallback (-10) has put all modules into training mode; with the batch as MixUp (0) made it
    )

    def __init__(
        self,
        layer: str | None = None,  # Dotted name of the guided layer, the last of the front
    ):
        self.layer, self.held = layer, None

    def before_fit(self):
        "Raise KdfastError where there is no such layer"
        self.held = None
        if self.layer:
            full_name(bare(self.model), self.layer)

    def before_train(self):
        if not self.layer:
            self.held = frozen(self.model)
        self.hold()

    def before_batch(self):
        if not self.training or self.held is not None:
            return
        self.held = computed(bare(self.model), self.layer, self.xb[0])
        self.hold()

    def hold(self):
        for module in self.held or ():
            module.training = False


def with_statistics(
    net: nn.Module,  # Any network
) -> dict[str, nn.Module]:  # By name
    "The modules that hold tensors which are no parameters: running means and the like."
    return {name: m for name, m in net.named_modules() if next(m.buffers(recurse=False), None) is not None}


def frozen(net):
    "Of those, the ones whose parameters are frozen, or, where they have none, whose surroundings' are"

    def around(name):  # its own parameters, or the nearest
        own = list(net.get_submodule(name).parameters())
        return own if own or not name else around(name.rpartition('.')[0])

    return [m for name, m in with_statistics(net).items() if not any(p.requires_grad for p in around(name))]


def computed(net, layer, xb):
    "Of those, the ones that the network computes up to and including the layer"
    seen, cut = [], front(net, layer)
    features(cut, xb)  # the first pass goes through all of the network
    hooks = [m.register_forward_pre_hook(lambda m, _: seen.append(m)) for m in with_statistics(net).values()]
    try:
        features(cut, xb)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(seen))


def bare(net):
    return net.module if isinstance(net, DistributedDataParallel | DataParallel) else net
