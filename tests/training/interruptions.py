"Runs that are interrupted at a moment, and what runs that end alike have in common."

import csv

import pytest
from conftest import beside, equal, weights
from fastai.basics import Callback

from kdfast.runs.recipes import find_recipe
from kdfast.training import checkpoints, execute

BOTH = '''"Both stages in one file, and random numbers of every kind."
from kdfast.all import *

class Draws(Callback):
    "Moves the weights by a little that Python, numpy and torch decide"
    def after_step(self):
        draw = random.random() + np.random.rand() + torch.rand(1).item()
        with torch.no_grad(): next(self.model.parameters()).mul_(1 + 1e-3*draw)

def main(run, epochs:int=2, hint_epochs:int=2):
    net,teacher = run.build(thin),run.needs('teacher')
    stage_one = run.learner(run.guide(net, teacher), loss_func=hint_loss, metrics=None)
    stage_one.fit_one_cycle(hint_epochs, .1, cbs=[Hint(front(teacher)), Draws()])
    learn = run.learner(net, splitter=front_back)
    learn.fit_one_cycle(epochs, .1, cbs=[Distill(teacher), MixUp(), Draws()])
    return learn
'''


PER_EPOCH = 9  # steps: 72 images, 8 a batch


class Interrupt(Callback):
    "As Ctrl-C, at one moment of the run"

    order = 90

    def __init__(self, stage, epoch, step, event='after_batch'):
        def act():
            if (self.learn.metrics_log.stage, self.epoch, self.iter) == (stage, epoch, step) and self.training == (
                event != 'after_validate'
            ):
                raise KeyboardInterrupt

        setattr(self, event, act)


def train(recipe, data, runs, at=None, **given):
    watch = [lambda folder: Interrupt(*at)] if at else []
    return execute.train(recipe, data, 0, given, runs, watch)


def often(monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)


def both(tmp_path_factory):
    file = tmp_path_factory.mktemp('recipe') / 'both.py'
    file.write_text(BOTH)
    return find_recipe(str(file))


def whole(study, data, both, tmp_path_factory):
    "Runs that nothing interrupts"
    runs = beside(study, tmp_path_factory.mktemp('whole'), 'teacher', 'hint')
    return {
        name: train(recipe, data, runs, epochs=2)
        for name, recipe in [('both', both), *((name, find_recipe(name)) for name in ('kd', 'exp1'))]
    }


def same(one, other):
    "Equal weights, predictions and numbers, no row lost or twice; but for the time it took"

    def rows(folder, name):  # of kdfast, or of fastai's CSVLogger
        times = ('seconds', 'time')
        return [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader((folder / name).open())]

    def numbers(folder):
        return {k: v for k, v in folder.result.items() if k not in ('seconds', 'latency')}

    if not all((one / name).exists() for name in other.files):
        return False
    tables = {name for name in other.files if name.endswith('.csv')} | {'metrics.csv', 'steps.csv'}
    return (
        equal(weights(one), weights(other))
        and all(rows(one, name) == rows(other, name) for name in tables)
        and numbers(one) == numbers(other)
        and all(
            (one / name).read_bytes() == (other / name).read_bytes()
            for name in other.files.keys() - tables - {'result.json'}
        )
    )


def interrupted(recipe, data, runs, at, **given):
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, runs, at, **given)
