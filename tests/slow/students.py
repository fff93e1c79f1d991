"""Train, save and load every classifier of torchvision and networks of every module of timm as students.

python tests/slow/students.py [name …] [--classes 2 10] [--onnx 10] [--keep FOLDER]

Each, built for 2 and 10 classes, is checked as `kdfast run` does before it writes anything, takes one optimizer step,
is saved, and loaded in another process, where it must have the same logits; every tenth also as ONNX. Networks may be
rejected, in one sentence and at every image size. The largest networks are left out. Prints passed/tried, how many of
them were rejected, and a line for each failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
BATCH = 12  # networks a process
SIDES = 64, 128, 224, 256  # of the images; the first at which it is not refused
LIST = Path(__file__).with_suffix('.txt')


def task(n_classes, side):
    "A data set of so many classes and such images"
    from kdfast.data import load

    digits = load('digits')
    return replace(digits, classes=digits.classes[:n_classes], size=side)


def probed(name, n_classes):
    "The first task that it is not refused, and the reason for the last refusal"
    from kdfast.core.errors import KdfastError
    from kdfast.models.build import check_network

    for side in SIDES:
        data = task(n_classes, side)
        try:
            check_network(name, data)
            return data, ''
        except KdfastError as e:
            reason = e.message
    return None, reason


def make(name, n_classes, folder):
    "Train one step and save; the reason where it is refused"
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from kdfast.models.channels_last import channels_last
    from kdfast.models.cost import parameters_frozen
    from kdfast.models.saved import build_for, save_network

    data, refused = probed(name, n_classes)
    if refused:
        return dict(refused=refused)
    torch.manual_seed(0)
    network, _ = build_for(name, data)
    channels_last(network).train()
    x = torch.randn(4, 3, *data.shape)
    opt = torch.optim.SGD(network.parameters(), 1e-3)
    torch.nn.functional.cross_entropy(network(x), torch.arange(4) % n_classes).backward()
    opt.step()
    network.eval()
    with FlopCounterMode(display=False), parameters_frozen(network), torch.no_grad():
        network(x[:1])  # as a finished run is counted
    with torch.no_grad():
        logits = network(x)
    assert logits.isfinite().all() and logits.std() > 0, 'nothing to compare'
    save_network(network, folder / 'w.safetensors')
    torch.save((x, logits), folder / 'said.pt')
    return dict(side=data.size)


def check(folder, onnx):
    "Load and compare, in a process that has not trained it"
    import torch

    from kdfast.models.saved import load_network_file

    x, logits = torch.load(folder / 'said.pt', weights_only=True)
    torch.manual_seed(7)
    network = load_network_file(folder / 'w.safetensors')
    with torch.no_grad():
        assert (network(x) == logits).all(), 'other logits'
    if onnx:
        compare_onnx(network, x, folder)


def compare_onnx(network, x, folder):
    import torch

    from kdfast.export import export, predict

    export.to_onnx(network, folder / 'x.onnx')
    classify, _ = predict.classifier(folder / 'x.onnx')
    mean, std = (torch.tensor(network.build_info[name]).view(3, 1, 1) for name in ('mean', 'std'))
    images = (x * std + mean).numpy()
    difference = abs(classify(images) - predict.from_network(network)(images)).max()
    assert difference < 1e-3, f'ONNX differs by {difference:.1g}'


def work(stage, home, names, counts, onnx):
    "Of a child: each network, and what became of it, into a file"
    import warnings

    warnings.simplefilter('ignore')
    for name in names:
        for n_classes in counts:
            folder = home / f'{name.replace(":", "-")}-{n_classes}'
            folder.mkdir(exist_ok=True)
            said = json.loads((folder / 'result.json').read_text()) if stage == 'check' else {}
            if said.get('refused') or said.get('failed'):
                continue
            (folder / 'result.json').write_text(json.dumps(dict(failed=f'its process ended while it was to {stage}')))
            try:
                said |= (
                    make(name, n_classes, folder)
                    if stage == 'make'
                    else check(folder, name in onnx and n_classes == counts[-1]) or {}
                )
            except Exception as e:
                said['failed'] = (
                    f'{stage}: {type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ""}'
                )
            (folder / 'result.json').write_text(json.dumps(said))


def child(stage, home, names, counts, onnx):
    subprocess.run(
        [
            sys.executable,
            __file__,
            '--child',
            stage,
            '--keep',
            home,
            '--classes',
            *map(str, counts),
            '--with-onnx',
            ','.join(onnx),
            *names,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*')
    parser.add_argument('--classes', nargs='*', type=int, default=[2, 10])
    parser.add_argument('--onnx', type=int, default=10, help='every so manieth as ONNX')
    parser.add_argument('--keep', type=Path, help='the folder to work in, which stays')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    parser.add_argument('--with-onnx', default='', help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.names or LIST.read_text().split()
    if asked.child:
        return work(asked.child, asked.keep, names, asked.classes, asked.with_onnx.split(','))
    passed = tried = refused = 0
    for i in range(0, len(names), BATCH):
        batch, onnx = (
            names[i : i + BATCH],
            [name for k, name in enumerate(names[i : i + BATCH], i) if k % asked.onnx == 0],
        )
        with tempfile.TemporaryDirectory(dir=asked.keep) as home:
            for stage in ('make', 'check'):
                child(stage, Path(home), batch, asked.classes, onnx)
            for file in sorted(Path(home).glob('*/result.json')):
                said = json.loads(file.read_text())
                tried, refused, passed = (
                    tried + 1,
                    refused + bool(said.get('refused')),
                    passed + (not said.get('failed')),
                )
                for what in ('refused', 'failed'):
                    if said.get(what):
                        print(f'{what}  {file.parent.name}  {said[what]}', flush=True)
        print(f'{passed}/{tried}, {refused} of them refused', flush=True)
    print(f'students: {passed}/{tried} of {len(names)} networks, {refused} of them refused')
    sys.exit(passed < tried)


if __name__ == '__main__':
    main()
