"""Check the layers that `kdfast layers` lists: `python tests/slow/layers.py [NAME@SIDE …]`.

Each must be a feature map of the printed shape, for each network of networks.txt as it is built: other noise in one
cell of the image changes that cell of the map most. If that cannot be seen (zeros, a view of the whole image), the
layout is confirmed by the modules that return or read the map, by its sides for an image twice as high and three times
as wide, by the cells of a network for images twice or four times as large, whose layer must have the same layout, or by
the cells of the same network with new weights. At three layers, the target that `Hint` computes must be their output,
arranged as listed.
"""

import random
import sys
import warnings
from collections import Counter

import torch
from networks import build, networks
from torch import nn

from kdfast.models.positions import with_new_weights

CELLS, SEEDS = 8, 2  # cells of the image that are changed, in so many images
SHOWN = 0.75  # smallest score for which the right cell has changed most
FIRST = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.GroupNorm,
)  # channels come first in these,
LAST = nn.LayerNorm, nn.Linear  # and last in these


def check(
    name: str,  # As in networks.txt
    side: int,  # Of the images
) -> tuple[Counter, list[str]]:
    "Return how the layers of one network were confirmed, and what is wrong."
    net, listed, found, score = examined(name, side)
    modules = {layer: net.get_submodule(layer) for layer in listed}
    x = torch.randn(2, 3, side, side)
    outputs, told = computed(net, modules, x)
    how, wrong = Counter(), []
    larger, _ = computed(net, modules, torch.randn(2, 3, 2 * side, 3 * side))
    doubtful = []
    for layer, entry in listed.items():
        shape = tuple(found[layer].arrange(outputs[layer]).shape[1:])
        if shape != entry.shape:
            wrong.append(f'{layer} is printed as {entry.shape} and is {shape}')
        if confirmed := confirmation(entry, found[layer], score[layer], told[layer], larger.get(layer)):
            how[confirmed] += 1
        else:
            doubtful.append(layer)
    for kind, shown in confirmed_otherwise(name, side, net, found, listed, doubtful):
        how[kind] += len(shown)
        doubtful = [layer for layer in doubtful if layer not in shown]
    for layer in doubtful:
        entry = listed[layer]
        wrong.append(f'{layer} as {entry.shape}, {entry.layout}: cells {score[layer]:.2f}, modules {told[layer]}')
    names, arrange = list(listed), {layer: found[layer].arrange for layer in listed}
    for layer in dict.fromkeys(names[i] for i in (0, len(names) // 2, -1)) if names else ():
        off = relative_difference(hint(net, layer, x), arrange[layer](outputs[layer]))
        how['hints'] += off <= 1e-4
        if off > 1e-4:
            wrong.append(f'Hint at {layer}: off by {off:.2g}')
    if not names:
        wrong.append('no layer')
    return how, wrong


def confirmed_otherwise(name, side, net, found, listed, doubtful):
    """Yield how layers are confirmed whose cells do not show, and these layers: by larger images, then by new weights

    New weights are also tried with larger images: a last batch norm that begins with zeros gives no change of any cell,
    and attention over four cells changes all of them.
    """
    seen = {1: (net, listed, found)}  # by how many times larger images are
    for factor in 2, 4:
        if doubtful:
            *seen[factor], clear = examined(name, factor * side)
            same = seen[factor][2]
            shown = [layer for layer in doubtful if alike(found[layer], same.get(layer)) and clear[layer] >= SHOWN]
            doubtful = [layer for layer in doubtful if layer not in shown]
            yield 'larger images', shown
    for factor, (net, listed, layouts) in seen.items():
        tried = [layer for layer in doubtful if alike(found[layer], layouts.get(layer))]
        if tried:
            new, arrange = with_new_weights(net), {layer: layouts[layer].arrange for layer in tried}
            modules = {layer: new.get_submodule(layer) for layer in tried}
            clear = cells(new, modules, arrange, {layer: listed[layer] for layer in tried}, factor * side)
            shown = [layer for layer in tried if clear[layer] >= SHOWN]
            doubtful = [layer for layer in doubtful if layer not in shown]
            yield 'new weights', shown


def examined(name, side):
    "The network for images of this size, its layers as listed, their layouts, and how well their cells fit"
    from kdfast.models.feature_maps import layouts
    from kdfast.models.layers import layers

    torch.manual_seed(0)
    net = build(name, side).eval()
    listed = {layer.name: layer for layer in layers(net, side)}
    modules = {layer: net.get_submodule(layer) for layer in listed}
    found = layouts(net, modules, ((torch.zeros(2, 3, side, side),), {}))
    return net, listed, found, cells(net, modules, {layer: found[layer].arrange for layer in listed}, listed, side)


def alike(layout, other):
    return other is not None and (layout.axes, layout.prefix) == (other.axes, other.prefix)


def confirmation(entry, layout, score, told, larger):
    "How the shape and the layout of a layer were confirmed; None if they were not"
    channels, height, width = entry.shape
    if height * width == 1:
        return 'one position'
    if score >= SHOWN:
        return 'cells'
    if told and told == {layout.axes[1:]}:
        return 'modules'
    if larger is not None and larger.dim() == 4:
        if tuple(layout.arrange(larger).shape[1:]) == (channels, 2 * height, 3 * width):
            return 'sides'
    return None


def relative_difference(found, expected):
    if found.shape != expected.shape:
        return float('inf')
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


def computed(net, modules, x):
    "The outputs of layers, and the axes that PyTorch's own modules which return or read them imply"
    outputs, said, keep = {}, {}, []

    def see(module, inputs, output):
        for tensor in (inputs[0] if inputs else None, output):
            axes = (
                'CHW'
                if isinstance(module, FIRST) and output.dim() == 4
                else 'HWC'
                if type(module) in LAST and output.dim() == 4
                else None
            )
            if axes and isinstance(tensor, torch.Tensor) and tensor.dim() == 4:
                said.setdefault(id(tensor), set()).add(axes)
                keep.append(tensor)  # so that its id stays its own

    def remember(layer):
        return lambda module, inputs, output: (
            keep.append(output) or outputs.update({layer: output.clone(), (layer, id): id(output)})
        )

    hooks = [m.register_forward_hook(see) for m in net.modules() if isinstance(m, (*FIRST, *LAST))]
    hooks += [module.register_forward_hook(remember(layer)) for layer, module in modules.items()]
    try:
        with torch.no_grad():
            net(x)
    except Exception:
        pass  # it takes no such size; what it gave until then counts
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, {layer: said.get(outputs.get((layer, id)), set()) for layer in modules}


def cells(net, modules, arrange, listed, side):
    "By layer, the share of other cells that change less than the right one: 1 at best, 0.5 by chance"
    found, draw = {}, random.Random(0)
    for height, width in {layer.shape[1:] for layer in listed.values()}:
        those = [layer for layer in listed if listed[layer].shape[1:] == (height, width)]
        places = draw.sample([(i, j) for i in range(height) for j in range(width)], min(CELLS, height * width))
        changes = {layer: 0 for layer in those}
        for seed in range(SEEDS):
            torch.manual_seed(1 + seed)
            first, other = torch.randn(2, 3, side, side)
            images = [first] + [patched(first, other, i, j, height, width) for i, j in places]

            def see(layer):
                return lambda module, inputs, output: changes.update(
                    {layer: changes[layer] + at(arrange[layer](output), places)}
                )

            hooks = [modules[layer].register_forward_hook(see(layer)) for layer in those]
            with torch.no_grad():
                net(torch.stack(images))
            for hook in hooks:
                hook.remove()
        found.update({layer: ranked(changes[layer]) for layer in those})
    return found


def patched(first, other, i, j, height, width):
    "The first image, with one cell of a grid from the other"
    side, image = first.shape[1], first.clone()
    rows, columns = (
        slice(k * side // n, max((k + 1) * side // n, k * side // n + 1)) for k, n in ((i, height), (j, width))
    )
    image[:, rows, columns] = other[:, rows, columns]
    return image


def at(maps, places):
    "How much the map of each changed image (rows) changes at each place (columns), apart from what changes everywhere"
    change = maps.float()[1:] - maps.float()[:1]
    change = (change - change.mean((2, 3), keepdim=True)).square().sum(1)
    return torch.stack([change[:, i, j] for i, j in places], 1)


def ranked(change):
    "How often the right place is above another of the same image, and above itself in another image"
    if len(change) < 2:
        return 1.0
    right, others = change.diag(), ~torch.eye(len(change), dtype=bool)

    def above(table):
        return ((right[:, None] > table).float() + (right[:, None] == table).float() / 2)[others].mean().item()

    return (above(change) + above(change.mT)) / 2


def hint(net, layer, x):
    "What `Hint` gives a student as its target for this batch"
    from fastai.basics import DataLoaders, Learner, noop
    from fastai.callback.progress import ProgressCallback

    from kdfast.distill.hint import Hint
    from kdfast.models.front import front

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x.mean() * self.weight

    targets = []

    def loss(pred, target):
        return targets.append(target.clone()) or pred.sum()

    data = [(image, 0) for image in x]
    learn = Learner(
        DataLoaders.from_dsets(data, data, bs=2, shuffle=False, num_workers=0, device='cpu'), Student(), loss
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    learn.fit(1, 0.0, cbs=Hint(front(net, layer)))
    return targets[-1]  # of the validation images, in their order


def main():
    warnings.simplefilter('ignore')
    asked = [(name, int(side or 64)) for name, _, side in (word.partition('@') for word in sys.argv[1:])] or networks()
    passed, how = 0, Counter()
    for i, (name, side) in enumerate(asked, 1):
        try:
            confirmed, wrong = check(name, side)
        except Exception as e:
            confirmed, wrong = (
                Counter(),
                [f'{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ""}'],
            )
        passed, how = passed + (not wrong), how + confirmed
        print(
            f'{passed}/{i} {name} {side}: {dict(confirmed)}',
            *wrong[:8],
            *([f'and {len(wrong) - 8} more'] if len(wrong) > 8 else []),
            sep='\n    ',
            flush=True,
        )
    print('; '.join(f'{n:,} by {what}' for what, n in how.items()))
    print(f'layers {passed}/{len(asked)}')
    sys.exit(passed < len(asked))


if __name__ == '__main__':
    main()
