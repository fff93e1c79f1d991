"""The networks of the slow suites: all classifiers of torchvision, and the smallest of each family of timm.

A family is one of a module's. `python tests/slow/networks.py` writes networks.txt anew: a name and the side of the
smallest image that the network accepts, a line each.
"""

import re
import sys
from pathlib import Path

import torch
from torch import nn

LIST = Path(__file__).with_name('networks.txt')
SIDES = 64, 96, 128, 160, 192, 224, 256, 299, 384
LARGEST = 120e6  # parameters


def networks() -> list[tuple[str, int]]:  # Names, as kdfast takes them, and the side of the images
    return [(name, int(side)) for name, side in map(str.split, LIST.read_text().splitlines())]


def build(
    name: str,  # torchvision:… or timm:…
    side: int,  # Of the images, for networks that are made for one size
    classes: int = 10,
) -> nn.Module:
    library, _, name = name.partition(':')
    if library == 'torchvision':
        return of_torchvision(name, side, classes)
    import timm

    try:
        return timm.create_model(name, num_classes=classes, img_size=side)
    except TypeError as e:  # the network takes any size
        if 'img_size' not in str(e):
            raise
        return timm.create_model(name, num_classes=classes)


def of_torchvision(name, side, classes):
    from torchvision.models import get_model

    options = dict(init_weights=False) if name in ('googlenet', 'inception_v3') else {}
    if name.startswith('vit_'):
        options['image_size'] = side // 16 * 16 if '16' in name or '_h_' in name else side
    return get_model(name, num_classes=classes, **options)


def randomized(
    net: nn.Module,  # Any network
    seed: int = 0,
) -> nn.Module:
    "The same network with batch-norm statistics, scales and shifts as training may have left them."
    random = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if not isinstance(m, nn.modules.batchnorm._BatchNorm):
            continue
        for t, low, high in (
            (m.running_mean, -0.3, 0.3),
            (m.running_var, 0.6, 1.6),
            (m.weight, 0.6, 1.4),
            (m.bias, -0.3, 0.3),
        ):
            if t is not None:
                t.data.uniform_(low, high, generator=random)
    return net


# The list


def names():
    import timm
    import torchvision

    yield from (f'torchvision:{name}' for name in torchvision.models.list_models(module=torchvision.models))
    families = {}
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            families.setdefault(
                (module, re.split(r'[\d_]', name)[0], name[-1] in 'dt' and 'resnetv2' in name), []
            ).append(name)
    for members in families.values():
        smallest = min(members, key=size_of)
        if size_of(smallest) <= LARGEST:
            yield f'timm:{smallest}'


def size_of(name, known={}):
    import timm

    if name not in known:
        try:
            with torch.device('meta'):
                known[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        except Exception:
            known[name] = float('inf')
    return known[name]


def smallest_side(name):
    for side in SIDES:
        try:
            net = build(name, side).eval()
            with torch.no_grad():
                net(torch.rand(2, 3, side, side))
            return side
        except Exception as e:
            print(f'{name} at {side}: {str(e).splitlines()[0] if str(e) else type(e)}', file=sys.stderr)
    return None


def main():
    with LIST.open('w') as f:
        for name in names():
            if side := smallest_side(name):
                print(name, side, file=f, flush=True)


if __name__ == '__main__':
    main()
