"""Test and time kdfast on this machine's GPU; write one JSON file.

python benchmarks/gpu.py [cifar10-images.tar.xz] [--parts recipes,speed,…] [--out gpu.json]

recipes   every recipe for two epochs on the digits, on GPU and CPU: validation accuracy of both
repeat    the recipes again with the same seed: equal weights?
accuracy  the study's five rows on the digits, two seeds, on GPU and CPU
graphs    runs of two epochs with CUDA graphs and without: equal weights? milliseconds a step of both
resume    runs killed and resumed: weights equal to those of undisturbed runs?
fastai    Distill, Hint and Match on a plain Learner, in three precisions: are targets the teacher's outputs?
export    a run on the GPU exported to ONNX: its predictions against the run's
speed     images per second of a bare loop, kdfast and a DataLoader loop, all in bfloat16 autocast; interleaved
jobs      16 runs, of which 1, 2, 4, 8 and 16 at a time, and as many as kdfast chooses
rows      the study's five rows on CIFAR-10: accuracies and seconds

Uses the installed kdfast. Each part runs in a process of its own, and failures are recorded. Without a GPU, all parts
run on the CPU.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

REPLAYED = 'teacher', 'baseline', 'hint', 'kd', 'exp1', 'exp2', 'at'
RESUMED = 'teacher', 'kd', 'exp1', 'exp2', 'crd', 'funmatch'
BATCH, T, ALPHA, SHIFT = 128, 4.0, 0.9, 2


def digest(folder):
    "Of a run's weights, without the file's head, which tells of versions"
    from safetensors.torch import load_file

    sha256 = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / 'weights.safetensors').items()):
        sha256.update(name.encode() + tensor.numpy().tobytes())
    return sha256.hexdigest()


def trained(name, runs, watch=(), **given):
    from kdfast.data import load
    from kdfast.runs.recipes import find_recipe
    from kdfast.training.execute import train

    return train(find_recipe(name), load('digits'), 0, given, Path(runs), watch)


# Parts: what each gives is put on record


def of_recipes(args):
    "Accuracies, losses and weights of all recipes for two epochs"
    from kdfast.runs.recipes import recipe_names

    found = {}
    for name in recipe_names():
        began = perf_counter()
        try:
            folder = trained(name, args.runs, epochs=2)
        except Exception as e:
            found[name] = dict(error=f'{type(e).__name__}: {e}'[:500])
        else:
            found[name] = dict(
                first=first_losses(folder),
                accuracy=folder.result.get('valid_accuracy'),
                loss=folder.result.get('valid_loss'),
                seconds=perf_counter() - began,
                sha256=digest(folder),
                notes=folder.run.get('notes', []),
                device=folder.run['device'],
                precision=folder.run['precision'],
            )
    return found


def first_losses(folder):
    "Of the first three steps: before the last bits of the device have grown"
    with (folder / 'steps.csv').open() as file:
        rows = list(islice(csv.DictReader(file), 3))
    return [
        {
            name: float(value)
            for name, value in row.items()
            if value and name not in ('stage', 'epoch', 'step', 'lr', 'seconds')
        }
        for row in rows
    ]


def part_recipes(args):
    gpu, cpu = (
        begin('of_recipes', args, runs=args.home / where, **env)
        for where, env in (('gpu', {}), ('cpu', dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='4')))
    )
    gpu, cpu = finish(gpu), finish(cpu)
    return dict(gpu=gpu, cpu=cpu)


def part_repeat(args):
    "Whether every recipe, with the same seed, gives the same bits again"
    first = json.loads(args.out.read_text()).get('recipes', {}).get('gpu') or finish(
        begin('of_recipes', args, runs=args.home / 'gpu')
    )
    again = finish(begin('of_recipes', args, runs=args.home / 'again'))
    same = {name: first[name].get('sha256') == again[name].get('sha256') and 'sha256' in again[name] for name in first}
    return dict(passed=sum(same.values()), tried=len(same), differ=[name for name in same if not same[name]])


def killed(args):
    "A run that ends itself with SIGKILL after some steps of its second fit, or of its first"
    from fastai.basics import Callback

    from kdfast.training import checkpoints

    checkpoints.EVERY = 0

    class Kill(Callback):
        steps = 0

        def after_batch(self):
            Kill.steps += self.training
            if Kill.steps == args.at:
                os.kill(os.getpid(), signal.SIGKILL)

    trained(args.recipe, args.runs, [lambda folder: Kill()], epochs=2)


def part_accuracy(args):
    "Of each row and seed, in percent"

    def study(where, **env):
        runs = args.home / f'accuracy-{where}'
        return runs, subprocess.Popen(
            [sys.executable, '-P', '-m', 'kdfast', 'study', '--seeds', '2', '--jobs', '4', '--runs', str(runs)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=args.env | env,
        )

    started, found = (
        {where: study(where, **env) for where, env in dict(gpu={}, cpu=dict(CUDA_VISIBLE_DEVICES='')).items()},
        {},
    )
    for where, (runs, process) in started.items():
        _, said = process.communicate()
        found[where] = results(runs) | (dict(error=said[-500:]) if process.returncode else {})
    return found


def results(runs):
    "Accuracy in percent and seconds of each finished run"
    read = {file: json.loads(file.read_text()) for file in sorted(Path(runs).glob('*/*/*/result.json'))}
    return {
        '/'.join(file.parts[-3:-1]): [
            100 * one['valid_accuracy'] if one.get('valid_accuracy') is not None else None,
            one.get('seconds'),
        ]
        for file, one in read.items()
    }


def part_resume(args):
    def trial(name):
        runs = args.home / f'killed-{name}'
        whole, ended = (
            begin('one', args, runs=args.home / f'whole-{name}', recipe=name),
            begin('killed', args, runs=runs, recipe=name, at=7),
        )
        ended.process.wait()
        resumed = finish(begin('one', args, runs=runs, recipe=name))
        return dict(killed=ended.process.returncode == -signal.SIGKILL, same=resumed == finish(whole))

    with ThreadPoolExecutor() as pool:
        found = dict(zip(RESUMED, pool.map(trial, RESUMED)))
    return found | dict(passed=sum(one['killed'] and one['same'] for one in found.values()), tried=len(found))


def one(args):
    return digest(trained(args.recipe, args.runs, epochs=2))


def part_graphs(args):
    "Of each recipe with graphs and without: weights, milliseconds a step in the second epoch, and what was replayed"
    from kdfast.data import load
    from kdfast.distill.cuda_graphs import passes, replay
    from kdfast.runs.recipes import find_recipe
    from kdfast.training import execute
    from kdfast.training.run import Run

    data, replays, on_gpu = load('digits'), [], replay.on_gpu
    for kind in passes.TrainingGraph, passes.InferenceGraph:
        counted(kind, replays)

    def train(recipe, runs, watch, given):
        return execute.train(recipe, data, 0, given | dict(epochs=2), runs, watch, rehearsed=True)

    Run.train = lambda run, name, given: train(find_recipe(name), run.runs, (), given)

    def tried(name, graphs):
        replay.on_gpu = on_gpu if graphs else lambda x: False
        replays.clear()
        clock = epoch_clock()
        folder = train(find_recipe(name), args.home / f'graphs-{graphs}', [lambda _: clock], {})
        return dict(
            sha256=digest(folder),
            ms=clock.ms,
            replayed={kind: replays.count(kind) for kind in set(replays)},
            notes=folder.run.get('notes', []),
        )

    found = {}
    for name in REPLAYED:
        try:
            with_graphs, without = tried(name, True), tried(name, False)
        except Exception as e:
            found[name] = dict(error=f'{type(e).__name__}: {e}'[:500])
        else:
            found[name] = dict(
                same=with_graphs.pop('sha256') == without.pop('sha256'), graphs=with_graphs, eager=without
            )
    replay.on_gpu = on_gpu
    try:
        failed = failed_capture()
    except Exception as e:
        failed = dict(error=f'{type(e).__name__}: {e}'[:500])
    return found | dict(failed_capture=failed)


def counted(kind, replays):
    call = kind.__call__

    def counting(self, x):
        replays.append(kind.__name__)
        return call(self, x)

    kind.__call__ = counting


def epoch_clock():
    "Milliseconds a step of the last epoch"
    import torch
    from fastai.basics import Callback

    def wait():
        torch.cuda.synchronize() if torch.cuda.is_available() else None

    class Clock(Callback):
        order, ms = -100, None

        def before_train(self):
            wait()
            self.began = perf_counter()

        def after_train(self):
            wait()
            self.ms = (perf_counter() - self.began) / len(self.dls.train) * 1e3

    return Clock()


def failed_capture():
    "Whether a network that cannot be captured computes on as ever, in its forward and in its backward pass"
    import torch

    from kdfast.distill.cuda_graphs import replay
    from kdfast.distill.cuda_graphs.passes import TrainingGraph
    from kdfast.distill.cuda_graphs.replay import GraphedInference, Recordings

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    replay.problem = lambda *_: ''

    class Reads(torch.autograd.Function):
        where = 'forward'

        @staticmethod
        def forward(ctx, x):
            return x * (1 + float(Reads.where == 'forward' and x.sum().item() > 0))

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1 + float(Reads.where == 'backward' and gradient.sum().item() > 0))

    class Net(torch.nn.Linear):
        def forward(self, x):
            return Reads.apply(super().forward(x))

    found = {}
    for where in 'forward', 'backward':
        Reads.where, net, said = where, Net(64, 64).to(device), []
        x, recordings, answers = (
            torch.randn(32, 64, device=device),
            Recordings(TrainingGraph, said.append),
            GraphedInference(),
        )
        none = [recordings.find(net, (x,)) is None for _ in range(6)]
        stream = torch.cuda.current_stream() == torch.cuda.default_stream() if device.type == 'cuda' else True
        same = all(torch.equal(answers(net, (x,))[0], net(x)) for _ in range(6))
        net(x).sum().backward()
        found[where] = dict(
            eager=all(none), said=said, stream=stream, same=same, finite=bool(net.weight.grad.isfinite().all())
        )
    return found


def part_fastai(args):
    import torch
    from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, Learner, ProgressCallback, noop

    from kdfast.distill.distill import Distill
    from kdfast.distill.hint import Hint
    from kdfast.distill.losses.features import at_loss, hint_loss
    from kdfast.distill.match import Match
    from kdfast.distill.regressor import regressor
    from kdfast.models.front import front
    from kdfast.models.study_networks import thin, wide

    device, found = torch.device('cuda' if torch.cuda.is_available() else 'cpu'), {}
    x, y = torch.rand(512, 3, 32, 32), torch.randint(10, (512,))
    teacher = wide(10).to(device).eval()

    class Seen(Callback):
        order = 9

        def after_loss(self):
            if not self.training or not hasattr(self.learn, 'distill'):
                return
            with torch.no_grad():
                expected = teacher(*self.xb)
            found['off'] = max(
                found.get('off', 0),
                float((self.learn.distill.target.float() - expected.float()).abs().max() / expected.abs().max()),
            )

    results = {}
    for precision in ('float32', 'float16', 'bfloat16'):
        for kind in ('Distill', 'Hint', 'Match'):
            found.clear()
            torch.manual_seed(0)
            student = thin(10).to(device)
            if kind == 'Hint':
                student = torch.nn.Sequential(
                    front(student), regressor(front(student), front(teacher), x[:2].to(device)).to(device)
                )
            dls = DataLoaders.from_dsets(list(zip(x, y)), list(zip(x, y)), bs=64, device=device, num_workers=0)
            learn = Learner(dls, student, hint_loss if kind == 'Hint' else CrossEntropyLossFlat())
            learn.remove_cbs(ProgressCallback)
            learn.logger = noop
            if precision != 'float32' and device.type == 'cuda':
                learn = learn.to_fp16() if precision == 'float16' else learn.to_bf16()
            cb = dict(
                Distill=lambda: Distill(teacher),
                Hint=lambda: Hint(front(teacher)),
                Match=lambda: Match(teacher, at_loss, 10.0, 'stage2:stage2'),
            )[kind]()
            try:
                learn.fit(1, 1e-3, cbs=[cb, Seen()])
            except Exception as e:
                results[f'{kind} {precision}'] = f'{type(e).__name__}: {e}'[:500]
            else:
                finite = all(torch.isfinite(p).all() for p in learn.model.parameters())
                results[f'{kind} {precision}'] = dict(
                    finite=bool(finite), off=found.get('off'), valid_loss=learn.recorder.values[-1][-1]
                )
    return results


def part_export(args):
    command = [sys.executable, '-P', '-m', 'kdfast']

    def do(*words):
        return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, env=args.env)

    runs, onnx = args.home / 'export', args.home / 'student.onnx'
    steps = dict(run=do('run', 'kd', '--epochs', 1, '--runs', runs))
    folder = next(runs.glob('*/kd*/0'), runs)
    steps |= dict(
        onnx=do('export', folder, '--to', onnx),
        safetensors=do('export', folder, '--to', args.home / 'student.safetensors'),
        check=do('check', runs),
    )
    return {name: dict(status=done.returncode, said=(done.stdout + done.stderr)[-600:]) for name, done in steps.items()}


# Speed


def loops(args):
    "Seconds of an epoch for each way to train, round by round"
    import torch
    from fastai.basics import Callback
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    from kdfast.core.cores import usable_cores
    from kdfast.data import load
    from kdfast.data.crops import crop_and_flip
    from kdfast.data.dataset import assemble
    from kdfast.models.study_networks import thin, wide
    from kdfast.runs.recipes import find_recipe
    from kdfast.runs.run_dir import RunDir
    from kdfast.training import evaluation
    from kdfast.training.execute import train
    from kdfast.training.run import Run

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    data = load(args.data or 'digits')
    images, labels = (part[: args.images] for part in data.train)
    data = assemble('bench', data.classes, (images, labels), tuple(part[:256] for part in data.valid))
    mean, std = (torch.tensor(each, device=device).float().view(3, 1, 1) for each in (data.mean, data.std))

    def last(net):
        return net.to(device, memory_format=torch.channels_last)

    teacher = last(wide(len(data.classes))).eval().requires_grad_(False)

    def wait():
        torch.cuda.synchronize() if device.type == 'cuda' else None

    def step(net, sgd, x, y, kd):
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                target = teacher(x).float() if kd else None
            out = net(x).float()
        loss = cross_entropy(out, y)
        if kd:
            loss = torch.lerp(
                loss,
                T**2
                * kl_div(log_softmax(out / T, 1), log_softmax(target / T, 1), reduction='batchmean', log_target=True),
                ALPHA,
            )
        loss.backward()
        sgd.step()
        sgd.zero_grad()

    def timed(batches, kd):
        net = last(thin(len(data.classes))).train()
        sgd = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=5e-4)
        wait()
        began = perf_counter()
        for x, y in batches():
            step(net, sgd, x, y, kd)
        wait()
        return perf_counter() - began

    resident, where = (
        torch.from_numpy(images.copy()).to(device).movedim(-1, 1),
        torch.from_numpy(labels.copy()).to(device),
    )

    def floor():
        for rows in torch.randperm(len(where), device=device).split(BATCH)[: len(where) // BATCH]:
            x = crop_and_flip(resident[rows], True, torch.default_generator)
            yield (x.float() / 255 - mean) / std, where[rows]

    def loader():
        from PIL import Image
        from torchvision import transforms

        tfms = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[1], padding=SHIFT),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

        class Pictures(torch.utils.data.Dataset):
            def __len__(self):
                return len(labels)

            def __getitem__(self, i):
                return tfms(Image.fromarray(images[i])), int(labels[i])

        for x, y in torch.utils.data.DataLoader(
            Pictures(),
            BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=min(8, usable_cores()),
            pin_memory=device.type == 'cuda',
        ):
            yield x.to(device, memory_format=torch.channels_last, non_blocking=True), y.to(device, non_blocking=True)

    class Clock(Callback):
        order = -100

        def before_train(self):
            wait()
            self.began = perf_counter()

        def after_train(self):
            wait()
            self.took = perf_counter() - self.began

    evaluation.evaluate = lambda *_: {}

    def kdfast(name):
        Run.needs = lambda run, needed, **_: teacher
        clock = Clock()
        with tempfile.TemporaryDirectory() as runs:
            train(find_recipe(name), data, 0, dict(epochs=1), Path(runs), [lambda _: clock], rehearsed=True)
        return clock.took

    ways = {
        'kd floor': lambda: timed(floor, True),
        'kd loader': lambda: timed(loader, True),
        'kd kdfast': lambda: kdfast('kd'),
        'baseline floor': lambda: timed(floor, False),
        'baseline kdfast': lambda: kdfast('baseline'),
    }
    seconds = {name: [] for name in ways}
    for turn in range(args.rounds + 1):  # the first warms up
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took = ways[name]()
            if turn:
                seconds[name].append(took)
    return dict(
        seconds=seconds,
        images=len(labels) // BATCH * BATCH,
        precision=Run(RunDir(args.home / 'x'), data, 0, args.home).precision,
    )


def part_speed(args):
    found = finish(begin('loops', args))
    rates = {name: [found['images'] / s for s in took] for name, took in found['seconds'].items()}

    def spread(values):
        return [median(values), min(values), max(values)]

    def ratio(a, b):
        return spread([x / y for x, y in zip(found['seconds'][a], found['seconds'][b])])

    return dict(
        images_a_second={name: spread(values) for name, values in rates.items()},
        precision=found['precision'],
        ratios={
            'kd/floor': ratio('kd kdfast', 'kd floor'),
            'baseline/floor': ratio('baseline kdfast', 'baseline floor'),
            'loader/kd': ratio('kd loader', 'kd kdfast'),
        },
    )


def part_jobs(args):
    "16 runs of the baseline for one epoch"
    found = {}
    for jobs in (*args.jobs, None):
        name, home = jobs or 'chosen', args.home / f'jobs{jobs or ""}'
        began = perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                '-P',
                '-m',
                'kdfast',
                'study',
                'baseline',
                '--seeds',
                '16',
                '--epochs',
                str(args.epochs or 5),
                *(['--jobs', str(jobs)] if jobs else []),
                '--data',
                str(args.data or 'digits'),
                '--runs',
                str(home),
            ],
            capture_output=True,
            text=True,
            env=args.env,
        )
        found[name] = dict(
            seconds=perf_counter() - began, status=done.returncode, said=done.stderr[-300:] if done.returncode else ''
        )
        weights = sorted(digest(file.parent) for file in home.glob('*/*/*/weights.safetensors'))
        found[name]['weights'] = hashlib.sha256(''.join(weights).encode()).hexdigest()
    return found


def part_rows(args):
    "One seed of the report's study"
    began = perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            '-P',
            '-m',
            'kdfast',
            'study',
            '--seeds',
            '1',
            '--jobs',
            '5',
            '--data',
            str(args.data or 'digits'),
            '--runs',
            str(args.home / 'rows'),
            *(['--epochs', str(args.epochs)] if args.epochs else []),
        ],
        capture_output=True,
        text=True,
        env=args.env,
    )
    return dict(
        seconds=perf_counter() - began,
        status=done.returncode,
        rows=results(args.home / 'rows'),
        said=done.stderr[-600:] if done.returncode else '',
    )


# Processes


class Started:
    def __init__(self, process, answer):
        self.process, self.answer = process, answer


def begin(part, args, runs=None, recipe=None, at=None, **env):
    answer = Path(tempfile.mkstemp(dir=args.home)[1])
    words = dict(
        part=part,
        answer=answer,
        runs=runs,
        recipe=recipe,
        at=at,
        home=args.home,
        out=args.out,
        images=args.images,
        rounds=args.rounds,
        epochs=args.epochs,
    )
    command = [
        sys.executable,
        '-P',
        __file__,
        *([args.data] if args.data else []),
        *(word for name, value in words.items() if value is not None for word in (f'--{name}', str(value))),
        '--jobs',
        ','.join(map(str, args.jobs)),
    ]
    log = open(f'{answer}.log', 'w')
    return Started(
        subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | dict(PYTHONWARNINGS='ignore', OMP_NUM_THREADS='2') | env
        ),
        answer,
    )


def finish(started):
    status = started.process.wait()
    if status:
        raise RuntimeError(f'status {status}: {Path(f"{started.answer}.log").read_text()[-1500:]}')
    return json.loads(started.answer.read_text())


def about():
    import torch

    from kdfast.training.environment import environment

    return environment() | dict(cuda=torch.version.cuda, tf32=torch.backends.cuda.matmul.allow_tf32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [name.removeprefix('part_') for name in globals() if name.startswith('part_')]
    (
        parser.add_argument('data', nargs='?'),
        parser.add_argument('--parts', default=','.join(parts)),
        parser.add_argument('--out', type=Path, default=Path('gpu.json')),
    )
    (
        parser.add_argument('--images', type=int, default=12800),
        parser.add_argument('--rounds', type=int, default=5),
        parser.add_argument('--epochs', type=int),
    )
    parser.add_argument('--jobs', type=lambda text: [int(n) for n in text.split(',')], default=[1, 2, 4, 8, 16])
    for hidden, kind in dict(part=str, answer=Path, runs=Path, recipe=str, at=int, home=Path).items():
        parser.add_argument(f'--{hidden}', type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.env = os.environ | dict(PYTHONWARNINGS='ignore')
    if args.part:
        return args.answer.write_text(json.dumps(globals()[args.part](args)))
    args.home = Path(tempfile.mkdtemp())
    found = {}
    for part in ['about', *args.parts.split(',')]:
        began = perf_counter()
        name = part if part == 'about' else f'part_{part}'
        try:
            found[part] = about() if part == 'about' else finish(begin(name, args))
        except RuntimeError as e:
            found[part] = dict(error=str(e))
        print(f'{part}, {perf_counter() - began:.0f} s: {json.dumps(found[part])[:1500]}', flush=True)
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
