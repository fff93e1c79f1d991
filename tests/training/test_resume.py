"A run that is interrupted at any moment ends with the same bits as one that never was."

import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import beside, equal, seal, weights
from fastai.basics import Callback

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.training import checkpoints, evaluation, execute
from kdfast.training.checkpoint_files import FORMAT
from kdfast.training.checkpoints import KEPT, Checkpoints

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


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    file = tmp_path_factory.mktemp('recipe') / 'both.py'
    file.write_text(BOTH)
    return find_recipe(str(file))


@pytest.fixture(scope='module')
def whole(study, data, both, tmp_path_factory):
    "Runs that nothing interrupts"
    runs = beside(study, tmp_path_factory.mktemp('whole'), 'teacher', 'hint')
    return {
        name: train(recipe, data, runs, epochs=2)
        for name, recipe in [('both', both), *((name, find_recipe(name)) for name in ('kd', 'exp1'))]
    }


def same(one, other):
    "Equal weights, predictions and numbers, no row lost or twice; but for the time it took"

    def rows(folder, name):
        return [{k: v for k, v in row.items() if k != 'seconds'} for row in csv.DictReader((folder / name).open())]

    def numbers(folder):
        return {k: v for k, v in folder.result.items() if k not in ('seconds', 'latency')}

    if not all((one / name).exists() for name in other.files):
        return False
    return (
        equal(weights(one), weights(other))
        and all(rows(one, name) == rows(other, name) for name in ('metrics.csv', 'steps.csv'))
        and numbers(one) == numbers(other)
        and all(
            (one / name).read_bytes() == (other / name).read_bytes()
            for name in other.files
            if name not in ('metrics.csv', 'steps.csv', 'result.json')
        )
    )


MOMENTS = [(1, 0, 0), (1, 1, 4), (1, 1, PER_EPOCH - 1), (2, 0, 0), (2, 1, 2), (2, 1, PER_EPOCH - 1)]


def interrupted(recipe, data, runs, at, **given):
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, runs, at, **given)


@pytest.mark.parametrize('at', MOMENTS)
def test_both_stages_whenever(study, data, both, whole, tmp_path, capsys, at):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(both, data, runs, at, epochs=2)
    done = train(both, data, runs, epochs=2)
    assert same(done, whole['both']) and not (done / 'resume').exists()
    assert 'resumes at epoch' in capsys.readouterr().err or at[1:] == (1, PER_EPOCH - 1)


@pytest.mark.parametrize('recipe', ['kd', 'exp1'])
def test_twice_in_one_run(study, data, whole, tmp_path, recipe):
    runs, found = beside(study, tmp_path, 'teacher', 'hint'), find_recipe(recipe)
    for at in ((1, 0, 3), (1, 1, 6)):
        interrupted(found, data, runs, at, epochs=2)
    assert same(train(found, data, runs, epochs=2), whole[recipe])


def test_muon_goes_on(data, tmp_path):
    found, given = find_recipe('baseline'), dict(epochs=2, optimizer='muon')
    undisturbed = train(found, data, tmp_path / 'whole', **given)
    for at in ((1, 0, 3), (1, 1, 6)):
        interrupted(found, data, tmp_path, at, **given)
    assert same(train(found, data, tmp_path, **given), undisturbed)


def test_after_the_last_step_and_in_validation(study, data, both, whole, tmp_path, monkeypatch):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(both, data, runs, (2, 1, 0, 'after_validate'), epochs=2)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, 'evaluate', stop)
        with pytest.raises(KeyboardInterrupt):
            train(both, data, runs, epochs=2)
    assert same(train(both, data, runs, epochs=2), whole['both'])


LEFT_OUT = {  # of what a checkpoint gives back: how it is without it, and how to make it so again
    'model': (
        lambda learn: {k: v.clone() for k, v in learn.model.state_dict().items()},
        lambda learn, was: learn.model.load_state_dict(was),
    ),
    'opt': (lambda learn: None, lambda learn, _: learn.opt.clear_state()),
    'rates': (
        lambda learn: [dict(h) for h in learn.opt.hypers],
        lambda learn, was: [h.update(w) for h, w in zip(learn.opt.hypers, was)],
    ),
    'schedule': (lambda learn: learn.pct_train, lambda learn, was: setattr(learn, 'pct_train', was)),
    'log': (lambda learn: list(learn.metrics_log.epochs), lambda learn, was: setattr(learn.metrics_log, 'epochs', was)),
    'torch': (lambda _: torch.get_rng_state(), lambda _, was: torch.set_rng_state(was)),
    'python': (lambda _: random.getstate(), lambda _, was: random.setstate(was)),
    'numpy': (lambda _: np.random.get_state(), lambda _, was: np.random.set_state(was)),
}


@pytest.fixture(scope='module')
def cut(study, data, both, tmp_path_factory):
    "The runs at two moments: within an epoch, and after the last one"
    found = {}
    for at in ((2, 1, 4), (2, 1, 0, 'after_validate')):
        found[at] = beside(study, tmp_path_factory.mktemp('cut'), 'teacher')
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(checkpoints, 'EVERY', 0)
            interrupted(both, data, found[at], at, epochs=2)
    return found


@pytest.mark.parametrize('left_out', [*LEFT_OUT, 'position'])
def test_every_item_of_a_checkpoint_is_needed(cut, data, both, whole, tmp_path, monkeypatch, left_out):
    "Negative controls: without it, the run ends otherwise"
    runs = tmp_path / 'runs'
    shutil.copytree(cut[(2, 1, 0, 'after_validate') if left_out == 'rates' else (2, 1, 4)], runs)
    put, newest = Checkpoints.restore, Checkpoints.newest

    def partly(self, learn):
        take, give = LEFT_OUT[left_out]
        was = take(learn)
        found = put(self, learn)
        give(learn, was)
        return found

    def at_the_start(*args):  # the epoch is known, the step is not
        place = newest(*args)
        return place and replace(place, step=0)

    monkeypatch.setattr(
        *(Checkpoints, 'newest', at_the_start) if left_out == 'position' else (Checkpoints, 'restore', partly)
    )
    assert not same(train(both, data, runs, epochs=2), whole['both'])


def test_a_damaged_checkpoint_is_passed_over(cut, data, both, whole, tmp_path, capsys):
    runs = tmp_path / 'runs'
    shutil.copytree(cut[2, 1, 4], runs)
    kept = sorted((runs / 'tiny' / 'both' / '0' / 'resume').glob('02-0*'))
    assert len(kept) == KEPT
    content = bytearray(kept[-1].read_bytes())
    content[len(content) // 2] ^= 1
    kept[-1].write_bytes(content)
    assert same(train(both, data, runs, epochs=2), whole['both']) and 'is damaged' in capsys.readouterr().err


def test_other_conditions_are_refused_by_name(study, data, tmp_path, monkeypatch):
    runs, kd = beside(study, tmp_path, 'teacher'), find_recipe('kd')
    interrupted(kd, data, runs, (1, 1, 4), epochs=2)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 7)
    with pytest.raises(KdfastError, match='cannot go on: threads was 1, is 7'):
        train(kd, data, runs, epochs=2)
    assert RunDir(runs / 'tiny' / 'kd,epochs=2' / '0').run['status'] == 'interrupted'


CONDITIONS = dict(
    arguments=dict(epochs=3),
    data_sha256='0' * 64,
    seed=1,
    batch_size=16,
    precision='float64',
    versions=dict(torch='1.0'),
    device='Tesla',
    machine='PDP-11',
    threads=7,
)


@pytest.fixture(scope='module')
def stopped(study, data, tmp_path_factory):
    runs = beside(study, tmp_path_factory.mktemp('stopped'), 'teacher')
    interrupted(find_recipe('kd'), data, runs, (1, 1, 4), epochs=2)
    return runs


@pytest.mark.parametrize('name', CONDITIONS)
def test_whatever_changed_is_refused_and_named(stopped, data, tmp_path, name):
    runs = tmp_path / 'runs'
    shutil.copytree(stopped, runs)
    folder = RunDir(runs / 'tiny' / 'kd,epochs=2' / '0')
    (folder / 'run.json').write_text(json.dumps(folder.run | {name: CONDITIONS[name]}))
    before = sorted(file.name for file in (folder / 'resume').iterdir())
    with pytest.raises(KdfastError, match=f'cannot go on: {name} was'):
        train(find_recipe('kd'), data, runs, epochs=2)
    assert sorted(file.name for file in (folder / 'resume').iterdir()) == before


def test_another_version_of_the_recipe_is_refused(stopped, data, tmp_path):
    runs = tmp_path / 'runs'
    shutil.copytree(stopped, runs)
    (runs / 'tiny' / 'kd,epochs=2' / '0' / 'recipe.py').write_text('"Another."')
    with pytest.raises(KdfastError, match='its recipe is another version'):
        train(find_recipe('kd'), data, runs, epochs=2)


def test_a_killed_process_goes_on(study, images, data, whole, tmp_path):
    runs, path = beside(study, tmp_path, 'teacher'), tmp_path / 'tiny' / 'kd,epochs=2' / '0'
    command = [sys.executable, '-P', '-m', 'kdfast', 'run', 'kd', '--epochs', '2', '--data', images, '--runs', runs]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(path.glob('resume/*.safetensors')):
        pass
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL and json.loads((path / 'run.json').read_text())['status'] == 'running'
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    assert same(RunDir(path), whole['kd'])


def test_another_teacher_is_refused_by_its_hash_until_the_old_one_is_back(study, data, whole, tmp_path):
    runs, kd = beside(study, tmp_path, 'teacher'), find_recipe('kd')
    interrupted(kd, data, runs, (1, 1, 4), epochs=2)
    teacher = runs / 'tiny' / 'teacher'
    shutil.copytree(teacher, tmp_path / 'old')
    file = teacher / '0' / 'weights.safetensors'
    with safetensors.safe_open(file, 'pt') as f:
        about = f.metadata()
    other = {name: t + 0.01 if t.is_floating_point() else t for name, t in weights(teacher / '0').items()}
    safetensors.torch.save_file(other, file, about)
    seal(RunDir(teacher / '0'))
    with pytest.raises(KdfastError, match='cannot go on: teacher was [0-9a-f]{8}, is [0-9a-f]{8}'):
        train(kd, data, runs, epochs=2)
    shutil.rmtree(teacher)
    (tmp_path / 'old').rename(teacher)
    assert same(train(kd, data, runs, epochs=2), whole['kd'])


def test_a_teacher_that_is_not_as_it_was_written_teaches_nobody(study, data, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    file = runs / 'tiny' / 'teacher' / '0' / 'weights.safetensors'
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(KdfastError, match='is damaged .weights.safetensors has changed since it was written'):
        train(find_recipe('kd'), data, runs, epochs=2)


def test_a_folder_that_no_run_made_is_left_alone(data, tmp_path):
    folder = tmp_path / 'tiny' / 'baseline,epochs=1' / '0'
    folder.mkdir(parents=True)
    (folder / 'thesis.tex').write_text('years of work')
    with pytest.raises(KdfastError, match='is not the folder of a run'):
        train(find_recipe('baseline'), data, tmp_path, epochs=1)
    (folder / 'run.json').write_text('{"status": "running", "format": 99}')
    with pytest.raises(KdfastError, match='made by a newer kdfast'):
        train(find_recipe('baseline'), data, tmp_path, epochs=1)
    assert (folder / 'thesis.tex').read_text() == 'years of work'


def test_it_makes_no_difference_when_the_teacher_was_trained(data, tmp_path):
    "By the student's run or before it: the student draws the same random numbers"
    (tmp_path / 'both.py').write_text(BOTH.replace("needs('teacher')", "needs('teacher', epochs=1)"))
    both = find_recipe(str(tmp_path / 'both.py'))
    here = train(both, data, tmp_path / 'runs', epochs=1)
    shutil.copytree(tmp_path / 'runs' / 'tiny' / 'teacher,epochs=1', tmp_path / 'before' / 'tiny' / 'teacher,epochs=1')
    assert same(train(both, data, tmp_path / 'before', epochs=1), here)


def test_checkpoints_of_another_format_are_passed_over_and_left(study, data, both, whole, tmp_path, capsys):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(both, data, runs, (1, 1, 4), epochs=2)
    folder = runs / 'tiny' / 'both' / '0' / 'resume'
    others = {}
    for file in folder.glob('*.safetensors'):
        content = safetensors.torch.save(safetensors.torch.load(file.read_bytes()), dict(format='1'))
        file.unlink()
        others[file.with_stem(file.stem[:-64] + hashlib.sha256(content).hexdigest())] = content
    for file, content in others.items():
        file.write_bytes(content)
    interrupted(both, data, runs, (2, 1, 4), epochs=2)
    said = capsys.readouterr().err
    assert f'has format 1, this version of kdfast reads {FORMAT}; it is ignored' in said and 'resumes at' not in said
    assert all(file.read_bytes() == content for file, content in others.items())
    assert same(train(both, data, runs, epochs=2), whole['both'])


def test_a_partial_row_at_the_end_of_the_steps_is_cut_off(study, data, whole, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(find_recipe('kd'), data, runs, (1, 1, 4), epochs=2)
    with (runs / 'tiny' / 'kd,epochs=2' / '0' / 'steps.csv').open('a') as f:
        f.write('1,2,14,0.1,0.5')
    assert same(train(find_recipe('kd'), data, runs, epochs=2), whole['kd'])


def test_steps_that_are_not_as_they_were_written_are_refused(study, data, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(find_recipe('kd'), data, runs, (1, 1, 4), epochs=2)
    file = runs / 'tiny' / 'kd,epochs=2' / '0' / 'steps.csv'
    file.write_text(file.read_text().replace('1,1,3,', '1,1,7,'))
    with pytest.raises(KdfastError, match='steps.csv has changed since this run wrote it'):
        train(find_recipe('kd'), data, runs, epochs=2)


ASKS = 'before_fit', 'after_pred', 'before_validate', 'after_fit'  # every event: tests/slow/nested.py, test_fit.py


class Asks(Callback):
    "Predicts and validates at an event of a fit"

    order = 65

    def __init__(self, event):
        def act():
            if (
                hasattr(self.learn, 'gather_preds')
                or self.busy
                or (self.epoch, getattr(self, 'iter', 0)) not in ((0, 0), (1, 3), (1, 8))
            ):
                return
            self.busy = True
            with self.learn.no_bar():
                self.learn.get_preds(), self.learn.validate()
            self.busy = False

        self.busy = False
        setattr(self, event, act)


@pytest.mark.parametrize('event', ASKS)
def test_predictions_in_the_middle_of_a_run_change_nothing(study, data, whole, tmp_path, event):
    runs, kd = beside(study, tmp_path, 'teacher'), find_recipe('kd')
    watch = [lambda _: Asks(event)]
    with pytest.raises(KeyboardInterrupt):
        execute.train(kd, data, 0, dict(epochs=2), runs, [*watch, lambda _: Interrupt(1, 1, 4)])
    assert same(execute.train(kd, data, 0, dict(epochs=2), runs, watch), whole['kd'])
