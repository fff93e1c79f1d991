"""What holds on this machine's GPU, and how fast it is: one JSON file.

python benchmarks/gpu.py [cifar10-images.tar.xz] [--parts recipes,speed,…] [--out gpu.json]

recipes  every recipe for two epochs on the digits, on the GPU and on the CPU: what each of the two validates at
repeat   recipes again with the same seed: the same bits?
accuracy the report's five rows on the digits, two seeds, on the GPU and on the CPU
resume   runs killed in the middle and started again: the same bits as undisturbed ones?
fastai   Distill, Hint and Match on a plain Learner, in three precisions: are targets the teacher's outputs?
export   a run of the GPU's as ONNX and its predictions, against the run
speed    images a second: a bare loop, kdfast, and a loop over a DataLoader, all with bfloat16 autocast; interleaved
jobs     16 runs, 1, 2, 4, 8 and 16 side by side
rows     the report's five rows on CIFAR-10: accuracies and seconds

kdfast is the one that is installed. Each part is a process of its own, and a failure is put on record as such. Without
a GPU all of it runs on the CPU, as a rehearsal.
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


def of_recipes(asked):
    "Accuracies, losses and weights of all recipes for two epochs"
    from kdfast.runs.recipes import recipe_names

    found = {}
    for name in recipe_names():
        began = perf_counter()
        try:
            folder = trained(name, asked.runs, epochs=2)
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


def part_recipes(asked):
    gpu, cpu = (
        begin('of_recipes', asked, runs=asked.home / where, **env)
        for where, env in (('gpu', {}), ('cpu', dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='4')))
    )
    gpu, cpu = finish(gpu), finish(cpu)
    return dict(gpu=gpu, cpu=cpu)


def part_repeat(asked):
    "Whether every recipe, with the same seed, gives the same bits again"
    first = json.loads(asked.out.read_text()).get('recipes', {}).get('gpu') or finish(
        begin('of_recipes', asked, runs=asked.home / 'gpu')
    )
    again = finish(begin('of_recipes', asked, runs=asked.home / 'again'))
    same = {name: first[name].get('sha256') == again[name].get('sha256') and 'sha256' in again[name] for name in first}
    return dict(passed=sum(same.values()), tried=len(same), differ=[name for name in same if not same[name]])


def killed(asked):
    "A run that ends itself with SIGKILL after some steps of its second fit, or of its first"
    from fastai.basics import Callback

    from kdfast.training import checkpoints

    checkpoints.EVERY = 0

    class Kill(Callback):
        steps = 0

        def after_batch(self):
            Kill.steps += self.training
            if Kill.steps == asked.at:
                os.kill(os.getpid(), signal.SIGKILL)

    trained(asked.recipe, asked.runs, [lambda folder: Kill()], epochs=2)


def part_accuracy(asked):
    "Of each row and seed, in percent"

    def study(where, **env):
        runs = asked.home / f'accuracy-{where}'
        return runs, subprocess.Popen(
            [sys.executable, '-P', '-m', 'kdfast', 'study', '--seeds', '2', '--jobs', '4', '--runs', str(runs)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=asked.env | env,
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


def part_resume(asked):
    def trial(name):
        runs = asked.home / f'killed-{name}'
        whole, ended = (
            begin('one', asked, runs=asked.home / f'whole-{name}', recipe=name),
            begin('killed', asked, runs=runs, recipe=name, at=7),
        )
        ended.process.wait()
        resumed = finish(begin('one', asked, runs=runs, recipe=name))
        return dict(killed=ended.process.returncode == -signal.SIGKILL, same=resumed == finish(whole))

    with ThreadPoolExecutor() as pool:
        found = dict(zip(RESUMED, pool.map(trial, RESUMED)))
    return found | dict(passed=sum(one['killed'] and one['same'] for one in found.values()), tried=len(found))


def one(asked):
    return digest(trained(asked.recipe, asked.runs, epochs=2))


def part_fastai(asked):
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


def part_export(asked):
    command = [sys.executable, '-P', '-m', 'kdfast']

    def do(*words):
        return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, env=asked.env)

    runs, onnx = asked.home / 'export', asked.home / 'student.onnx'
    steps = dict(run=do('run', 'kd', '--epochs', 1, '--runs', runs))
    folder = next(runs.glob('*/kd*/0'), runs)
    steps |= dict(
        onnx=do('export', folder, '--to', onnx),
        safetensors=do('export', folder, '--to', asked.home / 'student.safetensors'),
        check=do('check', runs),
    )
    return {name: dict(status=done.returncode, said=(done.stdout + done.stderr)[-600:]) for name, done in steps.items()}


# Speed


def loops(asked):
    "Seconds of an epoch for each way to train, round by round"
    import torch
    from fastai.basics import Callback
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    from kdfast.data import load
    from kdfast.data.crops import crop_and_flip
    from kdfast.data.dataset import assemble
    from kdfast.models.study_networks import thin, wide
    from kdfast.runs.recipes import find_recipe
    from kdfast.training.execute import train
    from kdfast.runs.run_dir import RunDir
    from kdfast.training import evaluation
    from kdfast.training.run import Run

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    data = load(asked.data or 'digits')
    images, labels = (part[: asked.images] for part in data.train)
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
            num_workers=min(8, os.cpu_count()),
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
    for turn in range(asked.rounds + 1):  # the first warms up
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took = ways[name]()
            if turn:
                seconds[name].append(took)
    return dict(
        seconds=seconds,
        images=len(labels) // BATCH * BATCH,
        precision=Run(RunDir(asked.home / 'x'), data, 0, asked.home).precision,
    )


def part_speed(asked):
    found = finish(begin('loops', asked))
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


def part_jobs(asked):
    "16 runs of the baseline for one epoch"
    found = {}
    for jobs in asked.jobs:
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
                str(asked.epochs or 5),
                '--jobs',
                str(jobs),
                '--data',
                str(asked.data or 'digits'),
                '--runs',
                str(asked.home / f'jobs{jobs}'),
            ],
            capture_output=True,
            text=True,
            env=asked.env,
        )
        found[jobs] = dict(
            seconds=perf_counter() - began, status=done.returncode, said=done.stderr[-300:] if done.returncode else ''
        )
        found[jobs]['weights'] = hashlib.sha256(
            ''.join(
                sorted(digest(file.parent) for file in (asked.home / f'jobs{jobs}').glob('*/*/*/weights.safetensors'))
            ).encode()
        ).hexdigest()
    return found


def part_rows(asked):
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
            str(asked.data or 'digits'),
            '--runs',
            str(asked.home / 'rows'),
            *(['--epochs', str(asked.epochs)] if asked.epochs else []),
        ],
        capture_output=True,
        text=True,
        env=asked.env,
    )
    return dict(
        seconds=perf_counter() - began,
        status=done.returncode,
        rows=results(asked.home / 'rows'),
        said=done.stderr[-600:] if done.returncode else '',
    )


# Processes


class Started:
    def __init__(self, process, answer):
        self.process, self.answer = process, answer


def begin(part, asked, runs=None, recipe=None, at=None, **env):
    answer = Path(tempfile.mkstemp(dir=asked.home)[1])
    words = dict(
        part=part,
        answer=answer,
        runs=runs,
        recipe=recipe,
        at=at,
        home=asked.home,
        out=asked.out,
        images=asked.images,
        rounds=asked.rounds,
        epochs=asked.epochs,
    )
    command = [
        sys.executable,
        '-P',
        __file__,
        *([asked.data] if asked.data else []),
        *(word for name, value in words.items() if value is not None for word in (f'--{name}', str(value))),
        '--jobs',
        ','.join(map(str, asked.jobs)),
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
    asked = parser.parse_args()
    asked.env = os.environ | dict(PYTHONWARNINGS='ignore')
    if asked.part:
        return asked.answer.write_text(json.dumps(globals()[asked.part](asked)))
    asked.home = Path(tempfile.mkdtemp())
    found = {}
    for part in ['about', *asked.parts.split(',')]:
        began = perf_counter()
        name = part if part == 'about' else f'part_{part}'
        try:
            found[part] = about() if part == 'about' else finish(begin(name, asked))
        except RuntimeError as e:
            found[part] = dict(error=str(e))
        print(f'{part}, {perf_counter() - began:.0f} s: {json.dumps(found[part])[:1500]}', flush=True)
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
