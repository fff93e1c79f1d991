"What can be known before training is said before training, and trying it leaves nothing behind."

import json
import random
import shutil
import signal
import tempfile

import numpy as np
import pytest
import torch
from conftest import beside, equal, weights
from fastai.basics import Callback

from kdfast.core.errors import Diverged, KdfastError
from kdfast.models.saved import load_network
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, execute, rehearsal, room
from kdfast.training.execute import train
from kdfast.training.rehearsal import rehearse
from kdfast.training.run import Run
from kdfast.training.small import IMAGES

NETS = '''
import torch
from torch import nn

def body(n): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), \
nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))

class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body = body(n)
    def forward(self, x): return self.body(x)

class Pair(Net):
    def forward(self, x): return (self.body(x), x) if self.training else self.body(x)

class Detached(Net):
    def forward(self, x): return self.body(x).detach()

class Forgets(Net):
    def __init__(self, n):
        super().__init__(n)
        self.scale = torch.rand(1)
    def forward(self, x): return self.body(x)*self.scale

class Breaks(Net):
    def forward(self, x):
        if len(x) == 8 and self.training: raise RuntimeError('eight images')
        return self.body(x)

def good(n): return Net(n)
def pair(n): return Pair(n)
def detached(n): return Detached(n)
def forgets(n): return Forgets(n)
def breaks(n): return Breaks(n)
def number(n): return 5
'''


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    "Where rehearsals are: empty in the end"
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield folder
    assert not list(folder.glob('kdfast-*'))  # torch keeps a folder of its own there


@pytest.fixture
def never_trained(monkeypatch):
    def train(*_):
        raise AssertionError('it was trained')

    monkeypatch.setattr(execute, 'train_alone', train)


def nets(tmp_path, name):
    (tmp_path / 'nets.py').write_text(NETS)
    return f'{tmp_path}/nets.py:{name}'


WRONG = [
    ('exp2 --hint stage2:stagetwo', 'no layer stagetwo'),
    ('exp1 --hint stagetwo:stage2', 'no layer stagetwo'),
    ('hint --hint stage2:head.1', 'no regressor maps guided features 88'),
    ('fitnets --hint stage2:nowhere', 'no layer nowhere'),
    ('at --layers stage2:stage2,stage3:x', 'no layer x'),
    ('reviewkd --layers stage1:y', 'no layer y'),
    ('crd --hint z:head.1', 'no layer z'),
    ('at --layers stage2', '--layers stage2 of at is out of range'),
    ('kd --teacher NETS:pair', 'expected 2×3'),
    ('kd --student NETS:pair', 'expected 2×3'),
    ('exp2 --student NETS:number', 'gave int'),
    ('baseline --student NETS:forgets', 'has different outputs after it is saved and loaded'),
    ('kd --teacher NETS:forgets', 'has different outputs'),
    ('baseline --student NETS:breaks', 'nets.py, line 27: RuntimeError: eight images'),
    ('kd --teacher NETS:breaks', 'nets.py, line 27: RuntimeError: eight images'),
    ('exp2 --student NETS:detached --hint stage2:body.0', 'RuntimeError: element 0 of tensors does not require grad'),
]


@pytest.mark.parametrize('command,said', WRONG)
def test_it_is_said_before_anything_is_trained_or_written(
    kdfast, data, images, tmp_path, temporary, never_trained, command, said
):
    name, *options = command.replace('NETS', f'{tmp_path}/nets.py').split()
    nets(tmp_path, '')
    done = kdfast('run', name, *options, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), (
        done.err
    )


FAULTS = [
    (
        'teacher = run.needs("teacher"); learn.fit(1, cbs=Distill(wide))',
        'line 7: TypeError: the teacher must be an nn.Module',
    ),
    ('learn.fit(1, cbs=Distill(run.needs("teacher"), T=-1))', 'line 7: ValueError: the temperature'),
    ('learn.fit(1, cbs=[Wrong()])', 'line 13: KeyError: no'),
    ('learn.fit(1, cbs=[Silent()])', 'line 15: AssertionError'),
    ('learn.fit(1); learn.no_such_thing()', "line 7: AttributeError"),
    ('learn.fit(1); return 5', 'mine.py: main returns int, expected'),
    ('pass', 'trained nothing'),
    ('run.needs("techer")', 'no recipe techer; did you mean teacher?'),
    ('run.needs("teacher", epochs=0)', '--epochs 0 of teacher is out of range'),
    ('import nowhere', "ModuleNotFoundError: No module named 'nowhere'"),
    ('open("nowhere.txt")', 'nowhere.txt: No such file'),
    ('run.needs("FILE")', 'mine depends on itself'),
]


@pytest.mark.parametrize('body,said', FAULTS)
def test_an_error_of_a_recipe_names_its_file_and_line(
    kdfast, data, images, tmp_path, temporary, never_trained, body, said
):
    body = body.replace('FILE', str(tmp_path / 'mine.py'))
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\n\ndef main(run, epochs:int=1):\n'
        f'    learn = run.learner(run.build(thin))\n    {body}\n    return learn\n\n'
        'class Wrong(Callback):\n    order = 3\n    def after_loss(self):\n        raise KeyError("no")\n'
        'class Silent(Callback):\n    def after_pred(self): assert 1 == 2\n'
    )
    done = kdfast('run', tmp_path / 'mine.py', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), (
        done.err
    )
    assert ('mine.py, line' in done.err) == ('line' in said or 'Error' in said)


# What it leaves: nothing


def here():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.backends.cudnn.deterministic,
        torch.is_autocast_enabled('cpu'),
        signal.getsignal(signal.SIGTERM),
    )


def tried(recipe, data, kept_in, **given):
    found = find_recipe(str(recipe))
    arguments = found.resolve(given)
    rehearse(Run(locate_run(kept_in, data.name, found.folder_name(arguments), 0), data, 0, kept_in), found, arguments)


@pytest.mark.parametrize('recipe', ['exp2', 'funmatch'])
def test_the_process_is_as_it_was(data, tmp_path, temporary, capsys, recipe):
    before = here()
    tried(recipe, data, tmp_path / 'runs')
    assert here() == before and not (tmp_path / 'runs').exists() and capsys.readouterr() == ('', '')


def test_a_run_that_was_tried_ends_with_the_same_bits(study, data, tmp_path):
    found = find_recipe('kd')
    one, two = (
        train(found, data, 0, dict(epochs=1), beside(study, tmp_path / name, 'teacher'), rehearsed=name == 'two')
        for name in ('one', 'two')
    )
    assert equal(weights(one), weights(two))


def test_what_is_there_is_taken_and_not_touched(study, data, tmp_path, temporary):
    "A finished teacher is not tried, and its outputs for the few images are not kept"
    kept_in = beside(study, tmp_path / 'runs', 'teacher', 'hint')
    before = {file: file.read_bytes() for file in kept_in.rglob('*') if file.is_file()}
    tried('exp1', data, kept_in)
    assert {file: file.read_bytes() for file in kept_in.rglob('*') if file.is_file()} == before


def test_it_is_not_tried_again_when_it_goes_on(data, tmp_path, monkeypatch):
    def end(_):
        raise KeyboardInterrupt

    found, count = find_recipe('baseline'), []
    monkeypatch.setattr(rehearsal, 'rehearse', lambda *_: count.append(1))
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, 'evaluate', lambda *_: end(_))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(found, data, 0, dict(epochs=1), tmp_path)
    assert count == [1] and train(found, data, 0, dict(epochs=1), tmp_path).finished and count == [1]


def test_an_infinite_loss_of_a_few_images_refuses_nothing(data, tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(
        '"Diverges."\nfrom kdfast.all import *\ndef main(run):\n'
        '    learn = run.learner(run.build(thin), loss_func=lambda p, y: p.sum()/0)\n'
        '    learn.fit(1)\n    return learn\n'
    )
    tried(tmp_path / 'mine.py', data, tmp_path / 'runs')
    with pytest.raises(Diverged):
        train(find_recipe(str(tmp_path / 'mine.py')), data, 0, {}, tmp_path / 'runs')


# What recipes do

ABLE = dict(
    finds_a_rate='lr = learn.lr_find(show_plot=False).valley; learn.fit_one_cycle(3, lr)',
    finds_two_rates='a,b = learn.lr_find(show_plot=False, suggest_funcs=(minimum, steep)); '
    'learn.fit_one_cycle(2, min(a, b))',
    fits_in_stages='learn.fit_one_cycle(9); learn.fit_flat_cos(9); learn.fit_sgdr(2, 2); '
    'learn.fine_tune(5, freeze_epochs=3)',
    goes_through_epochs='for epoch in range(4): learn.fit(1, 1e-3)',
    starts_late='learn.fit_one_cycle(5, start_epoch=2)',
    has_callbacks='learn.fit_one_cycle(5, cbs=[EarlyStoppingCallback(patience=1), SaveModelCallback(), '
    'GradientAccumulation(16), MixUp(), GradientClip()])',
    predicts='learn.fit(2); learn.validate(); learn.get_preds();  assert len(learn.get_preds()[0]) >= 2',
    indexes='x,y = run.dls.train_ds[70]; assert len(run.dls.train_ds) == 72 and len(run.data.train[1]) == 72; '
    'learn.fit(1)',
    own_loader='dl = run.dls.train.new(run.dls.train_ds.plain(), shuffle=False); '
    'learn.dls = DataLoaders(dl, run.dls.valid, device=run.dls.device); learn.fit(2)',
    freezes='learn = run.learner(run.build(thin), splitter=run.front_back()); '
    'learn.freeze(); learn.fit(2, cbs=BnFreeze())',
    rates_by_group='learn = run.learner(run.build(thin), splitter=run.front_back()); '
    'learn.fit_one_cycle(2, slice(1e-4, 1e-2))',
    has_two_teachers='a,b = run.needs("teacher"),run.needs("teacher", network="thin"); '
    'learn.fit(1, cbs=[Distill(a), Match(b, at_loss, 1., "stage2:stage2")])',
    says='run.say("a note"); print("a word"); learn.fit(1)',
)


@pytest.mark.parametrize('name', ABLE)
def test_what_recipes_do_can_be_tried(data, tmp_path, temporary, capsys, name):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n'
        f'    learn = run.learner(run.build(thin))\n    {ABLE[name]}\n    return learn\n'
    )
    tried(tmp_path / 'mine.py', data, tmp_path / 'runs')
    assert capsys.readouterr() == ('', '') and not (tmp_path / 'runs').exists()


def test_epochs_steps_and_images_are_few_and_no_weight_moves(data, tmp_path, monkeypatch):
    seen, perform = [], evaluation.evaluate

    def judge(run, arguments, outcome):
        seen.append((len(run.metrics_log.epochs), run.folder.metrics('steps.csv')))
        assert len(run.data.train[1]) == len(run.data.valid[1]) == IMAGES
        new = run.build('thin').state_dict()
        assert all(torch.equal(new[name], p.cpu()) for name, p in outcome.model.named_parameters())
        return perform(run, arguments, outcome)

    monkeypatch.setattr(evaluation, 'evaluate', judge)
    tried('baseline', data, tmp_path, epochs=50)
    [(epochs, steps)] = seen
    assert epochs == 1 and len(steps) == 2


# Room


def test_room_is_asked_for(study, data, tmp_path, monkeypatch):
    "As much as a run takes: not less than it has at its largest, not three times as much"
    asked, taken, there = [], [], beside(study, tmp_path, 'teacher')
    monkeypatch.setattr(rehearsal, 'check_room', lambda kept_in, n: asked.append(n))

    def look():
        return sum(file.stat().st_size for file in there.rglob('*') if file.is_file())

    class Look(Callback):
        def after_step(self):
            taken.append(look())

    shutil.rmtree(there / 'tiny' / 'teacher' / '0' / 'outputs')
    before = look()
    train(find_recipe('kd'), data, 0, dict(epochs=2), there, [lambda _: Look()])
    largest = max(*taken, look()) - before
    assert largest <= asked[0] < 3 * largest


def test_a_full_disk_is_said_before_training(data, tmp_path, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(room.shutil, 'disk_usage', lambda path: usage(path)._replace(free=10**5))
    with pytest.raises(
        KdfastError,
        match='training needs about 0.0 GB in .* for weights and checkpoints, 0.0 GB are free: '
        'free some space, or use --runs',
    ):
        train(find_recipe('baseline'), data, 0, {}, tmp_path / 'deep' / 'runs')
    assert not (tmp_path / 'deep').exists()


# Studies


def test_a_study_tries_every_recipe_once_and_names_all_that_fail(kdfast, images, tmp_path):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n'
        f'    with open("{tmp_path}/seen", "a") as f: print(run.rehearsal, run.seed, file=f)\n'
        '    learn = run.learner(run.build(thin))\n    learn.fit(1)\n    return learn\n'
    )
    wrong = [[name, dict(hint='stage2:stagetwo'), [0, 1]] for name in ('hint', 'exp1', 'fitnets')]
    done = kdfast(
        'rehearse',
        json.dumps([*wrong, [str(tmp_path / 'mine.py'), {}, [3]]]),
        '--data',
        images,
        '--runs',
        tmp_path / 'runs',
    )
    assert done.status == 2 and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), done.err
    assert (
        'nothing was trained: hint,hint=stage2_stagetwo, exp1,hint=stage2_stagetwo, fitnets,hint=stage2_stagetwo: '
        in done.err
    )
    done = kdfast(
        'study', tmp_path / 'mine.py', '--seeds', 2, '--jobs', 1, '--data', images, '--runs', tmp_path / 'runs'
    )
    assert done.status == 0 and (tmp_path / 'seen').read_text().splitlines() == [
        'True 3',
        'True 0',
        'False 0',
        'False 1',
    ], done.err


@pytest.mark.parametrize('made', ['lambda n: thin(n)', 'inner', 'partial(thin)', 'partial(network, (4, 8, 12))'])
def test_a_network_that_nothing_could_build_again_is_trained_and_that_is_said(kdfast, images, tmp_path, made):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n    def inner(n): return thin(n)\n'
        f'    learn = run.learner(run.build({made}))\n    learn.fit_one_cycle(epochs, .1)\n    return learn\n'
    )
    done = kdfast('run', tmp_path / 'mine.py', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
    folder = RunDir(tmp_path / 'runs' / 'tiny' / 'mine' / '0')
    if 'cannot load them' in done.err:
        with pytest.raises(KdfastError, match='does not name what builds its network'):
            load_network(folder)
    else:
        assert equal(load_network(folder).state_dict(), weights(folder))
    assert made == 'partial(thin)' or 'cannot load them' in done.err
