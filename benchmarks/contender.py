"""Train in one way, in a process of its own, and measure epochs of distillation on request.

Started by speed.py. Reads requests from stdin, one JSON object per line, and writes one answer per line to stdout.
Everything else that is printed goes to stderr.
"""

import json
import os
import resource
import sys
import tempfile
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))
from kdfast.models.study_networks import thin, wide

answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss

T, ALPHA, LR, MOMENTUM, WD, BATCH, SHIFT = 4.0, 0.9, 0.01, 0.9, 5e-4, 128, 2


def network(factory, home):
    "A network with the weights that all contenders start from"
    net = factory(10)
    with np.load(home / f'{factory.__name__}.npz') as state:
        net.load_state_dict({name: torch.from_numpy(state[name]) for name in state.files})
    return net.to(memory_format=torch.channels_last)


def arrays(home):
    with np.load(home / 'images.npz') as file:
        return {name: file[name] for name in file.files}


def normalized(images, mean, std):
    return (torch.from_numpy(images).movedim(-1, 1).float() / 255 - mean) / std


def blend(student, teacher, y):
    soft = T**2 * kl_div(
        log_softmax(student / T, 1), log_softmax(teacher / T, 1), reduction='batchmean', log_target=True
    )
    return torch.lerp(cross_entropy(student, y), soft, ALPHA)


class Contender:
    "What they share: the two networks, the images, a batch to compute the loss of."

    def __init__(self, home, bfloat16=False):
        self.home, self.bfloat16 = home, bfloat16
        self.images = arrays(home)
        self.mean, self.std = (torch.tensor(self.images[name]).float().view(3, 1, 1) for name in ('mean', 'std'))
        self.teacher, self.student = network(wide, home).eval(), network(thin, home)

    def fixed_batch(self):
        x = normalized(self.images['train_images'][:BATCH], self.mean, self.std).contiguous(
            memory_format=torch.channels_last
        )
        return x, torch.from_numpy(self.images['train_labels'][:BATCH])

    def precision(self):
        return torch.autocast('cpu', torch.bfloat16) if self.bfloat16 else nullcontext()

    def sgd(self, net):
        return torch.optim.SGD(net.parameters(), LR, MOMENTUM, weight_decay=WD)


class Floor(Contender):
    "Resident images, the teacher without gradient, the student's step: nothing else."

    def __init__(self, *args):
        super().__init__(*args)
        from kdfast.data.crops import crop_and_flip

        self.augment = crop_and_flip

    def batches(self, split, augment):
        images, labels = (torch.from_numpy(self.images[f'{split}_{what}']) for what in ('images', 'labels'))
        order = torch.randperm(len(labels)) if augment else torch.arange(len(labels))
        for rows in order.split(BATCH):
            x = images[rows].movedim(-1, 1)
            if augment:
                x = self.augment(x, True, torch.default_generator)
            yield (x.float() / 255 - self.mean) / self.std, labels[rows]

    def loss(self):
        x, y = self.fixed_batch()
        with torch.no_grad():
            return float(blend(self.student.train()(x), self.teacher(x), y))

    def epoch(self, task):
        net, teacher, compute = dict(
            kd=(self.student, self.teacher, lambda out, hint, y: blend(out, hint, y)),
            baseline=(self.student, None, lambda out, _, y: cross_entropy(out, y)),
            hint=(
                torch.nn.Sequential(self.student[:3], torch.nn.Conv2d(40, 84, 1)).to(memory_format=torch.channels_last),
                self.teacher[:3],
                lambda out, hint, _: 0.5 * mse_loss(out, hint),
            ),
        )[task.removesuffix('+valid')]
        sgd = self.sgd(net)
        net.train()
        began = perf_counter()
        for x, y in self.batches('train', True):
            with self.precision():
                if teacher:
                    with torch.no_grad():
                        hint = teacher(x).float()
                else:
                    hint = None
                out = net(x).float()
            loss = compute(out, hint, y)
            loss.backward()
            sgd.step()
            sgd.zero_grad()
        if task.endswith('+valid'):
            net.eval()
            with torch.no_grad():
                for x, y in self.batches('valid', False):
                    with self.precision():
                        (net(x).argmax(1) == y).sum()
        return perf_counter() - began


class Torchvision(Contender):
    "A plain loop over a DataLoader of PIL images with torchvision's transforms: the shape of most distillation code."

    workers = 0

    def pictures(self):
        from PIL import Image
        from torch.utils.data import Dataset
        from torchvision import transforms

        tfms = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=SHIFT),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(self.mean.flatten().tolist(), self.std.flatten().tolist()),
            ]
        )
        images, labels = self.images['train_images'], self.images['train_labels'].tolist()

        class Pictures(Dataset):
            def __len__(self):
                return len(labels)

            def __getitem__(self, i):
                return tfms(Image.fromarray(images[i])), labels[i]

        return Pictures()

    loss = Floor.loss

    def epoch(self, task):
        from torch.utils.data import DataLoader

        sgd, loader = (
            self.sgd(self.student),
            DataLoader(self.pictures(), BATCH, shuffle=True, drop_last=True, num_workers=self.workers),
        )
        self.student.train()
        began = perf_counter()
        for x, y in loader:
            x = x.contiguous(memory_format=torch.channels_last)
            with self.precision():
                with torch.no_grad():
                    target = self.teacher(x).float()
                out = self.student(x).float()
            loss = blend(out, target, y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        return perf_counter() - began


class Torchvision2(Torchvision):
    workers = 2


class Torchvision4(Torchvision):
    workers = 4


class Fasterai(Contender):
    "fasterai's callback on fastai's ImageDataLoaders, from a folder of JPEG files."

    def __init__(self, *args):
        super().__init__(*args)
        from functools import partial

        from fastai.vision.all import (
            SGD,
            CropPad,
            CrossEntropyLossFlat,
            FlipItem,
            ImageDataLoaders,
            Learner,
            Normalize,
            ProgressCallback,
            RandomCrop,
            noop,
        )
        from fasterai.distill.all import KnowledgeDistillationCallback, SoftTarget

        stats = self.mean.flatten().tolist(), self.std.flatten().tolist()
        self.dls = ImageDataLoaders.from_folder(
            self.home / 'files',
            valid='valid',
            bs=BATCH,
            num_workers=0,
            item_tfms=[CropPad(32 + 2 * SHIFT, pad_mode='zeros'), RandomCrop(32), FlipItem()],
            batch_tfms=[Normalize.from_stats(*stats)],
            device='cpu',
        )
        self.kd = KnowledgeDistillationCallback(self.teacher, partial(SoftTarget, T=T), weight=ALPHA)
        self.learn = Learner(self.dls, self.student, CrossEntropyLossFlat(), opt_func=partial(SGD, mom=MOMENTUM))
        self.learn.remove_cbs(ProgressCallback)
        self.learn.logger = noop

    def loss(self):
        from fastai.vision.all import TensorCategory

        x, y = self.fixed_batch()
        learn = self.learn
        learn.pred, learn.xb, learn.yb = self.student.train()(x).detach(), (x,), (TensorCategory(y),)
        learn.loss_grad = cross_entropy(learn.pred, y)
        self.kd.learn = learn
        with torch.no_grad():
            self.kd.after_loss()
        return float(learn.loss_grad)

    def epoch(self, task):
        from fastai.vision.all import Callback

        clock = Clock(Callback)
        with self.learn.no_bar():
            self.learn.fit(1, LR, cbs=[self.kd, clock])
        return clock.training


class Torchdistill(Torchvision):
    "torchdistill's DistillationBox on the same DataLoader, as its examples use it."

    def __init__(self, *args):
        super().__init__(*args)
        from torch.utils.data import RandomSampler
        from torchdistill.core.distillation import DistillationBox

        term = dict(
            key='KDLoss',
            kwargs=dict(
                student_module_path='.',
                student_module_io='output',
                teacher_module_path='.',
                teacher_module_io='output',
                temperature=T,
                alpha=1 - ALPHA,
            ),
        )
        config = dict(
            num_epochs=1,
            train_data_loader=dict(
                dataset_id='train',
                requires_supp=True,
                sampler=dict(class_or_func=RandomSampler, kwargs={}),
                kwargs=dict(batch_size=BATCH, num_workers=0, drop_last=True),
            ),
            teacher=dict(forward_proc='forward_batch_only', requires_grad=False, wrapper=None),
            student=dict(forward_proc='forward_batch_only', requires_grad=True, wrapper=None),
            optimizer=dict(key='SGD', kwargs=dict(lr=LR, momentum=MOMENTUM, weight_decay=WD)),
            criterion=dict(key='WeightedSumLoss', kwargs=dict(sub_terms=dict(kd=dict(criterion=term, weight=1.0)))),
        )
        self.box = DistillationBox(
            self.teacher, self.student, dict(train=self.pictures()), config, torch.device('cpu'), None, False, 1
        )

    def loss(self):
        x, y = self.fixed_batch()
        self.student.train()
        with torch.no_grad():
            return float(self.box.forward_process(x, y, supp_dict={}))

    def epoch(self, task):
        box = self.box
        box.student_model.train(), box.teacher_model.eval()
        began = perf_counter()
        for x, y, supp in box.train_data_loader:
            box.post_forward_process(loss=box.forward_process(x, y, supp))
        return perf_counter() - began


def Clock(Callback):
    "A callback that times an epoch's training, and training with validation"

    class Clocked(Callback):
        order = -100

        def before_train(self):
            self.began, self.whole = perf_counter(), None

        def after_train(self):
            self.training = perf_counter() - self.began

        def after_epoch(self):
            self.whole = self.whole or perf_counter() - self.began  # not of the evaluation after training

    return Clocked()


class Kdfast(Contender):
    "Run kdfast's recipes through its public interface; teacher and front are passed in, not trained."

    def __init__(self, *args):
        super().__init__(*args)
        from kdfast.core.memory import keep_freed_memory
        from kdfast.data.dataset import assemble
        from kdfast.training.execute import train
        from kdfast.training.run import Run
        from kdfast.training.teacher_cache import TeacherCache

        keep_freed_memory()  # as `kdfast run` does
        self.Run, self.train, self.TeacherCache = Run, train, TeacherCache
        a = self.images
        self.data = assemble(
            'bench',
            [str(k) for k in range(10)],
            (a['train_images'], a['train_labels']),
            (a['valid_images'], a['valid_labels']),
        )
        Run.precision = 'bfloat16' if self.bfloat16 else 'float32'

    def loss(self):
        from fastai.basics import DataLoader, DataLoaders, Learner

        from kdfast.distill.distill import Distill

        batch = DataLoader(list(zip(*self.fixed_batch())), bs=BATCH)
        learn = Learner(
            DataLoaders(batch, batch), deepcopy(self.student), cross_entropy, cbs=Distill(self.teacher, T, ALPHA)
        )
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, lr=0.0)
        return float(learn.recorder.losses[0])

    def epoch(self, task):
        from fastai.basics import Callback

        from kdfast.runs.recipes import find_recipe

        name, _, cached = task.removesuffix('+valid').partition(' ')

        def needs(run, needed, **_):
            if needed != 'teacher':
                return network(thin, self.home)
            run.teacher_caches = [self.TeacherCache(self.home / 'outputs', self.teacher)] if cached else []
            return self.teacher

        self.Run.needs = needs
        clock = Clock(Callback)
        with tempfile.TemporaryDirectory() as runs:
            self.train(find_recipe(name), self.data, 0, dict(epochs=1, optimizer='sgd'), Path(runs), [lambda _: clock])
        return clock.whole if task.endswith('+valid') else clock.training


CONTENDERS = dict(
    floor=Floor,
    torchvision=Torchvision,
    torchvision2=Torchvision2,
    torchvision4=Torchvision4,
    fasterai=Fasterai,
    torchdistill=Torchdistill,
    kdfast=Kdfast,
)


def main(name, home, threads, precision):
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    contender = CONTENDERS[name](Path(home), precision == 'bfloat16')
    for line in sys.stdin:
        task = json.loads(line)
        answer = contender.loss() if task == 'loss' else contender.epoch(task)
        print(
            json.dumps(
                dict(answer=answer, megabytes=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
            ),
            file=answers,
            flush=True,
        )


if __name__ == '__main__':
    main(*sys.argv[1:])
