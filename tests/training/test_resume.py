"A run that is interrupted at any moment ends with the same bits as one that never was."

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import interruptions
import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import beside, seal, until, weights
from fastai.basics import Callback
from interruptions import PER_EPOCH, Interrupt, interrupted, same, train

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.training import checkpoints, evaluation, execute
from kdfast.training.checkpoint_files import FORMAT
from kdfast.training.checkpoints import KEPT, Checkpoints

both = pytest.fixture(scope='module')(interruptions.both)
often = pytest.fixture(autouse=True)(interruptions.often)
whole = pytest.fixture(scope='module')(interruptions.whole)


MOMENTS = [(1, 0, 0), (1, 1, 4), (1, 1, PER_EPOCH - 1), (2, 0, 0), (2, 1, 2), (2, 1, PER_EPOCH - 1)]


@pytest.mark.parametrize('at', MOMENTS)
def test_both_stages_resume_from_any_moment(study, data, both, whole, tmp_path, capsys, at):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(both, data, runs, at, epochs=2)
    done = train(both, data, runs, epochs=2)
    assert same(done, whole['both']) and not (done / 'resume').exists()
    assert 'resumes at epoch' in capsys.readouterr().err or at[1:] == (1, PER_EPOCH - 1)


@pytest.mark.parametrize('recipe', ['kd', 'exp1'])
def test_a_run_that_is_interrupted_twice_ends_with_the_same_bits(study, data, whole, tmp_path, recipe):
    runs, found = beside(study, tmp_path, 'teacher', 'hint'), find_recipe(recipe)
    for at in ((1, 0, 3), (1, 1, 6)):
        interrupted(found, data, runs, at, epochs=2)
    assert same(train(found, data, runs, epochs=2), whole[recipe])


def test_a_loss_that_is_trained_resumes_with_the_same_bits(study, data, tmp_path):
    "Its weights are in the optimizer during the fit alone"
    found, runs = find_recipe('vid'), beside(study, tmp_path, 'teacher')
    undisturbed = train(found, data, beside(study, tmp_path / 'whole', 'teacher'), epochs=2)
    interrupted(found, data, runs, (1, 1, 4), epochs=2)
    assert same(train(found, data, runs, epochs=2), undisturbed)


def test_muon_resumes_with_the_same_bits(data, tmp_path):
    found, given = find_recipe('baseline'), dict(epochs=2, optimizer='muon')
    undisturbed = train(found, data, tmp_path / 'whole', **given)
    for at in ((1, 0, 3), (1, 1, 6)):
        interrupted(found, data, tmp_path, at, **given)
    assert same(train(found, data, tmp_path, **given), undisturbed)


def test_an_interruption_in_validation_or_evaluation_loses_nothing(study, data, both, whole, tmp_path, monkeypatch):
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


def test_a_killed_process_goes_on(study, images, data, whole, tmp_path):
    runs, path = beside(study, tmp_path, 'teacher'), tmp_path / 'tiny' / 'kd,epochs=2' / '0'
    command = [sys.executable, '-P', '-m', 'kdfast', 'run', 'kd', '--epochs', '2', '--data', images, '--runs', runs]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: list(path.glob('resume/*.safetensors')), lambda: process.poll() is not None)
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


ASKS = (
    'before_fit',
    'after_pred',
    'before_validate',
    'after_fit',
)  # all: tests/slow/nested.py, test_isolation.py


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
