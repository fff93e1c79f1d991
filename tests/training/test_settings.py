"Settings of every training: each changes what it should, belongs to the run, and is resumed."

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import equal, weights
from fastai.basics import Callback

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe, recipe_names
from kdfast.runs.run_dir import RunDir
from kdfast.training import checkpoints
from kdfast.training.execute import train as train_recipe
from kdfast.training.precision import precision_on

PLAIN = '''"A recipe without any options."
from kdfast.all import *

def main(run, epochs: int = 1):
    learn = run.learner(run.build('thin'))
    learn.fit_one_cycle(epochs)
    return learn
'''
TAUGHT = PLAIN.replace('epochs: int = 1', "lr: float = 0.2, teacher: str = 'thin'").replace(
    'learn = run', "teacher = run.needs('teacher', network=teacher, epochs=1)\n    learn = run"
)
TABLE = 'class,weight\nape,1\nbee,2\ncat,4\n'
SETTINGS = [
    dict(wd=0.05),
    dict(precision='float32'),
    dict(precision='bfloat16'),
    dict(class_weights='table'),
    dict(optimizer='adamw'),
    dict(optimizer='muon'),
    dict(lr=0.01),
]


class Interrupt(Callback):
    order = 90

    def after_batch(self):
        if self.training and (self.epoch, self.iter) == (0, 5):
            raise KeyboardInterrupt


def train(recipe, data, runs, interrupt=False, rehearsed=True, **given):
    return train_recipe(recipe, data, 0, given, runs, [lambda _: Interrupt()] if interrupt else [], rehearsed)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)


@pytest.fixture
def given(request, tmp_path):
    "The parameter, with the file of a table"
    (tmp_path / 'w.csv').write_text(TABLE)
    return {name: str(tmp_path / 'w.csv') if value == 'table' else value for name, value in request.param.items()}


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    file = tmp_path_factory.mktemp('recipe') / 'plain.py'
    file.write_text(PLAIN)
    return find_recipe(str(file))


@pytest.fixture(scope='module')
def default(plain, data, tmp_path_factory):
    return train(plain, data, tmp_path_factory.mktemp('default'))


@pytest.mark.parametrize('given', SETTINGS, ids=str, indirect=True)
def test_each_setting_changes_the_weights_and_is_resumed(plain, default, data, tmp_path, given, monkeypatch):
    run = train(plain, data, tmp_path, **given)
    (name, value), *_ = given.items()
    assert run.recipe.startswith(f'plain,{name}=') and run.run['arguments'] == dict(epochs=1) | given
    automatic = name == 'precision' and default.run['precision'] == value
    assert equal(weights(run), weights(default)) == automatic
    differing = {k for k in default.run if k in run.run and default.run[k] != run.run[k]}
    expected = {'arguments', 'files', 'started', 'finished', *(['precision'] if name == 'precision' else [])}
    assert differing <= expected and run.run.keys() - default.run.keys() <= {'class_weights'}
    with pytest.raises(KeyboardInterrupt):
        train(plain, data, tmp_path / 'again', interrupt=True, **given)
    again = train(plain, data, tmp_path / 'again', **given)
    assert equal(weights(run), weights(again)) and steps(run) == steps(again)
    before = (run / 'weights.safetensors').stat().st_mtime_ns
    assert train(plain, data, tmp_path, **given).path == run.path
    assert (run / 'weights.safetensors').stat().st_mtime_ns == before


def test_weighted_losses_of_mixed_images_are_resumed(data, tmp_path):
    (tmp_path / 'mixed.py').write_text(TAUGHT.replace('(epochs)', '(1, cbs=[MixUp(), Distill(teacher, alpha=0.5)])'))
    recipe, given = find_recipe(str(tmp_path / 'mixed.py')), dict(class_weights='auto', optimizer='adamw')
    uneven = replace(data, train=(data.train[0][:60], data.train[1][:60]))  # 24, 24 and 12 images
    run = train(recipe, uneven, tmp_path, **given)
    assert run.run['class_weights'] == pytest.approx(dict(ape=60 / 72, bee=60 / 72, cat=60 / 36))
    shutil.copytree(tmp_path / 'tiny', tmp_path / 'again' / 'tiny', ignore=shutil.ignore_patterns('mixed*'))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, uneven, tmp_path / 'again', interrupt=True, **given)
    again = train(recipe, uneven, tmp_path / 'again', **given)
    assert equal(weights(run), weights(again)) and steps(run) == steps(again)
    assert 'notes' not in run.run


def steps(folder):
    return [row for row in csv.DictReader((folder / 'steps.csv').open())]


def test_the_defaults_are_those_of_before(plain, default, data, tmp_path):
    assert default.run['arguments'] == dict(epochs=1) and default.recipe == 'plain'
    same = train(plain, data, tmp_path, precision='auto', class_weights='none')
    assert same.recipe == 'plain' and equal(weights(same), weights(default))
    assert {o.name for o in plain.settings} == {'optimizer', 'lr', 'wd', 'precision', 'class_weights'}
    for name in recipe_names():
        assert find_recipe(name).folder_name(find_recipe(name).resolve({})) == name


def test_decay_is_that_of_the_optimizer(plain, data, tmp_path):
    "wd = 0.005 is the default; fastai multiplies it by the learning rate"
    assert equal(weights(train(plain, data, tmp_path, wd=0.005)), weights(train(plain, data, tmp_path)))


def test_runs_that_a_run_needs_have_its_settings_but_not_its_rate(data, tmp_path):
    (tmp_path / 'kd1.py').write_text(TAUGHT.replace('(epochs)', '(1, lr)'))
    recipe = find_recipe(str(tmp_path / 'kd1.py'))
    given = dict(lr=0.1, wd=0.01, class_weights='auto')
    run = train(recipe, data, tmp_path, **given)
    teacher = 'teacher,epochs=1,network=thin,wd=0.01,class_weights=auto'
    names = {f.name for f in (tmp_path / 'tiny').iterdir()}
    assert names == {teacher, 'kd1,lr=0.1,wd=0.01,class_weights=auto'}
    passed_on = dict(wd=0.01, class_weights='auto', network='thin', epochs=1)
    assert recipe.needed(run.run['arguments']) == [('teacher', passed_on)]
    by_folder = train(recipe, data, tmp_path, wd=0.02, teacher=str(tmp_path / 'tiny' / teacher / '0'))
    assert by_folder.run['stands_on'][0]['path'] == f'tiny/{teacher}/0'
    assert len(list((tmp_path / 'tiny').iterdir())) == 3


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
def test_an_optimizer_that_the_recipe_does_not_name_reaches_its_teacher(data, tmp_path, optimizer):
    (tmp_path / 'mine.py').write_text(
        PLAIN.replace("learn = run", "teacher = run.needs('teacher', epochs=1)\n    learn = run")
    )
    train(find_recipe(str(tmp_path / 'mine.py')), data, tmp_path, optimizer=optimizer)
    assert {f.name for f in (tmp_path / 'tiny').iterdir()} == {
        f'mine,optimizer={optimizer}',
        f'teacher,epochs=1,optimizer={optimizer}',
    }


@pytest.mark.parametrize(
    'old,new,given,said',
    [
        ("('thin'))", "('thin'), 'muon')", dict(optimizer='sgd'), 'the recipe sets optimizer itself, to muon'),
        ("('thin'))", "('thin'), opt_func=Adam)", dict(optimizer='sgd'), 'sets optimizer itself, to Adam'),
        ("('thin'))", "('thin'), wd=.1)", dict(wd=0.2), '--wd 0.2: the recipe sets wd itself, to 0.1'),
        ('(epochs)', '(epochs, wd=.1)', dict(wd=0.2), 'the recipe sets wd itself, to 0.1'),
        ('(epochs)', '(epochs, .1)', dict(lr=0.2), '--lr 0.2: the recipe sets lr itself, to 0.1'),
        ('fit_one_cycle(epochs)', 'fit(epochs, .1)', dict(lr=0.2), 'the recipe sets lr itself'),
        ('fit_one_cycle(epochs)', 'fit_flat_cos(epochs, .1)', dict(lr=0.2), 'the recipe sets lr itself'),
        ('fit_one_cycle(epochs)', 'fine_tune(epochs)', dict(lr=0.2), 'the recipe sets lr itself'),
        ('(epochs)', '(epochs, slice(.1))', dict(lr=0.2), 'the recipe sets lr itself'),
        ('fit_one_cycle(epochs)', 'fit(epochs, slice(.1))', dict(lr=0.2), 'sets lr itself, to 0.1'),
        ('fit_one_cycle(epochs)', 'fit(epochs, slice(.01, .1))', dict(lr=0.2), 'sets lr itself, to 0.1'),
        ('fit_one_cycle(epochs)', 'fit(epochs, [.1])', dict(lr=0.2), 'sets lr itself, to 0.1'),
        ('fit_one_cycle(epochs)', 'fit(epochs, np.array([.1]))', dict(lr=0.2), 'sets lr itself, to 0.1'),
        (
            "('thin'))",
            "('thin'), loss_func=BCEWithLogitsLossFlat())",
            dict(class_weights='auto'),
            'not known as one of a single class per image',
        ),
    ],
)
def test_what_the_recipe_fixes_is_refused_before_training(data, tmp_path, old, new, given, said):
    (tmp_path / 'mine.py').write_text(PLAIN.replace(old, new))
    with pytest.raises(KdfastError, match=said):
        train(find_recipe(str(tmp_path / 'mine.py')), data, tmp_path / 'runs', rehearsed=False, **given)
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
    'fit',
    [
        'fit_one_cycle(epochs)',
        'fit(epochs)',
        'fit_flat_cos(epochs)',
        'fit_one_cycle(epochs, .3)',
        'fit(epochs, slice(.01, .3))',
        'fit(epochs, [.3])',
    ],
)
def test_the_rate_is_that_of_every_fit_that_has_none(data, tmp_path, fit):
    (tmp_path / 'mine.py').write_text(PLAIN.replace('fit_one_cycle(epochs)', fit))
    run = train(find_recipe(str(tmp_path / 'mine.py')), data, tmp_path, lr=0.3)
    assert max(float(row['lr']) for row in steps(run)) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    'given,said',
    [
        (dict(wd=-1.0), '--wd -1.0 of plain is out of range: expected 0 or more'),
        (dict(wd=float('nan')), 'expected a finite number'),
        (dict(lr=0.0), 'expected above 0'),
        (dict(precision='float16'), 'expected auto or float32 or bfloat16'),
        (dict(optimizer='adam'), 'expected sgd or adamw or muon'),
        (
            dict(class_weights='no.csv'),
            '--class-weights no.csv of plain is out of range: expected none, auto, or a table',
        ),
    ],
)
def test_wrong_values_are_refused(plain, data, tmp_path, given, said):
    with pytest.raises(KdfastError, match=said):
        train(plain, data, tmp_path / 'runs', rehearsed=False, **given)
    assert not (tmp_path / 'runs').exists()


def test_a_recipe_with_a_parameter_of_its_own_keeps_it(data, tmp_path):
    source = PLAIN.replace('epochs: int = 1', 'epochs: int = 1, wd: float = 0.1').replace(
        "('thin'))", "('thin'), wd=wd)"
    )
    (tmp_path / 'mine.py').write_text(source)
    mine = find_recipe(str(tmp_path / 'mine.py'))
    assert 'wd' not in {setting.name for setting in mine.settings}
    assert train(mine, data, tmp_path, wd=0.2).run['arguments'] == dict(epochs=1, wd=0.2)


def test_a_table_that_has_changed_is_noticed(plain, data, tmp_path):
    (tmp_path / 'w.csv').write_text(TABLE)
    given = dict(class_weights=str(tmp_path / 'w.csv'))
    with pytest.raises(KeyboardInterrupt):
        train(plain, data, tmp_path / 'half', interrupt=True, **given)
    run = train(plain, data, tmp_path, **given)
    assert run.run['class_weights'] == pytest.approx(dict(ape=3 / 7, bee=6 / 7, cat=12 / 7))
    (tmp_path / 'w.csv').write_text(TABLE.replace('4', '5'))
    with pytest.raises(KdfastError, match='was trained with other class weights'):
        train(plain, data, tmp_path, **given)
    with pytest.raises(KdfastError, match='cannot go on: class_weights was'):
        train(plain, data, tmp_path / 'half', **given)


def test_a_precision_that_the_device_lacks_is_refused():
    assert precision_on(torch.device('cpu'), 'bfloat16') == 'bfloat16'
    assert precision_on(torch.device('mps'), 'auto') == 'float32'
    with pytest.raises(KdfastError, match='--precision bfloat16: mps has no bfloat16; use float32 or auto'):
        precision_on(torch.device('mps'), 'bfloat16')


def test_a_fixed_precision_resumes_on_other_hardware_and_an_automatic_one_does_not(plain, data, tmp_path, monkeypatch):
    from kdfast.training import precision

    for fixed in (dict(precision='bfloat16'), {}):
        monkeypatch.setattr(precision, 'multiplies_bfloat16', lambda device: True)
        with pytest.raises(KeyboardInterrupt):
            train(plain, data, tmp_path, interrupt=True, **fixed)
        monkeypatch.setattr(precision, 'multiplies_bfloat16', lambda device: False)
        if fixed:
            assert train(plain, data, tmp_path, **fixed).run['precision'] == 'bfloat16'
        else:
            with pytest.raises(KdfastError, match='precision was bfloat16, is float32'):
                train(plain, data, tmp_path, **fixed)


def test_comments_of_a_recipe_may_change_and_code_may_not(plain, data, tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(PLAIN)
    train(find_recipe(str(file)), data, tmp_path)
    file.write_text(PLAIN.replace('epochs: int = 1', 'epochs:int=1 # Epochs\n'))
    assert train(find_recipe(str(file)), data, tmp_path).finished
    file.write_text(PLAIN.replace("'thin'", "'matched'"))
    with pytest.raises(KdfastError, match='another version of mine.py'):
        train(find_recipe(str(file)), data, tmp_path)


def test_threads(kdfast, plain, images, tmp_path):
    "As many as OMP_NUM_THREADS sets: the same bits. Recorded, and not part of the name"
    words = ['run', str(plain.file), '--data', str(images), '--runs']
    environment = os.environ | dict(OMP_NUM_THREADS='2', MKL_NUM_THREADS='2')
    command = [sys.executable, '-W', 'ignore', '-m', 'kdfast', *words, str(tmp_path / 'environment')]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    done = kdfast(*words, tmp_path / 'option', '--threads', 2)
    assert done.status == 0, done.err
    assert process.wait() == 0, process.stderr.read()
    one, other = (RunDir(tmp_path / kind / 'tiny' / 'plain' / '0') for kind in ('option', 'environment'))
    assert one.run['threads'] == other.run['threads'] == 2 and equal(weights(one), weights(other))


def test_another_number_of_threads_is_not_the_same_run(kdfast, plain, images, default):
    asked = ['run', plain.file, '--data', images, '--runs', default.path.parents[2]]
    n = torch.get_num_threads()
    assert kdfast(*asked, '--threads', n).status == 0
    refused = kdfast(*asked, '--threads', n + 1)
    assert refused.status == 2 and f'was trained with {n} threads, requested are {n + 1}' in refused.err
    assert torch.get_num_threads() == n


def test_on_the_command_line(kdfast, plain, images, tmp_path):
    (tmp_path / 'w.csv').write_text(TABLE)
    settings = ['--wd', 0.01, '--precision', 'float32', '--class-weights', 'auto', '--optimizer', 'adamw', '--lr', 0.1]
    asked = ['--data', images, '--runs', tmp_path]
    done = kdfast('run', plain.file, *settings, *asked, '--json')
    assert done.status == 0, done.err
    name = 'plain,optimizer=adamw,lr=0.1,wd=0.01,precision=float32,class_weights=auto'
    assert json.loads(done.out)['recipe'] == name
    assert f'{name}/0 is finished; nothing to train' in kdfast('run', plain.file, *settings, *asked).err
    assert 'validation losses and accuracies count all images alike' in ' '.join(
        kdfast('compare', '--runs', tmp_path).out.split()
    )
    next_step = kdfast('run', 'teacher', '--epochs', 1, *settings, *asked).out
    assert '--optimizer adamw --wd 0.01 --precision float32 --class-weights auto --data' in next_step
    for wrong in (['--precision', 'float16'], ['--wd', '-1'], ['--class-weights', 'no.csv'], ['--threads', 0]):
        refused = kdfast('run', plain.file, *wrong, *asked)
        assert refused.status == 2 and refused.err.count('\n') == 1 and wrong[0][2:6] in refused.err, refused.err


def test_settings_have_a_section_of_the_help(kdfast, plain):
    flags = ['--optimizer', '--lr', '--wd', '--precision', '--class-weights', '--augment', '--batch-size', '--threads']
    for words in (['run', plain.file], ['run', 'kd'], ['lr-find', 'kd'], ['study'], ['matrix']):
        text = kdfast(*words, '--help').out
        section = text.partition('\nTraining:')[2].partition('\nData:')[0]
        assert all(text.count(f'\n  {flag} ') == section.count(f'\n  {flag} ') == 1 for flag in flags), text
    overview = kdfast('run', '--help').out
    assert all(overview.count(f'\n  {flag} ') == 1 for flag in flags)
    listed = json.loads(kdfast('ls', '--json').out)
    assert [s['name'] for s in listed['settings']] == ['optimizer', 'lr', 'wd', 'precision', 'class_weights']
