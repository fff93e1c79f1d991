"What the study promises, on the runs that the command line made."

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CLASSES, beside, equal, weights

from kdfast.models.study_networks import matched, thin, wide
from kdfast.runs.recipes import find_recipe

RECIPES = ['teacher', 'baseline', 'kd', 'hint', 'exp1', 'exp2']


def part(state, *stages):
    return {name: t for name, t in state.items() if name.split('.')[0] in stages}


def front(state):
    return part(state, 'stem', 'stage1', 'stage2')


def back(state):
    return part(state, 'stage3', 'head')


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_every_recipe_ran(study):
    for recipe in RECIPES:
        assert read(study / recipe / '0', 'run.json')['status'] == 'finished'


def test_exp1_holds_the_front_still_batch_norm_included(study):
    stage_one, done = weights(study / 'hint' / '0'), weights(study / 'exp1' / '0')
    assert any('running_mean' in name for name in front(done)) and equal(front(stage_one), front(done))
    assert not equal(back(stage_one), back(done))


def test_exp2_moves_everything(study):
    stage_one, done = weights(study / 'hint' / '0'), weights(study / 'exp2' / '0')
    still = [name for name in done if (done[name] == stage_one[name]).all()]
    assert not still


def test_stage_one_trains_the_front_alone(study, data):
    "The back of stage one is as new: what any student of this seed starts from"
    from fastai.vision.all import set_seed

    set_seed(0)
    new = thin(3).state_dict()
    stage_one = weights(study / 'hint' / '0')
    assert equal(back(stage_one), back(new)) and not equal(front(stage_one), front(new))


@pytest.mark.parametrize('recipe', RECIPES)
def test_weights_hold_the_network_and_nothing_else(study, recipe):
    network = wide(3) if recipe == 'teacher' else thin(3)
    network.load_state_dict(weights(study / recipe / '0'), strict=True)


def test_both_experiments_stand_on_the_same_stage_one_and_all_on_one_teacher(study):
    from kdfast.core.atomic import sha256

    stands = {
        recipe: {entry['recipe']: entry for entry in read(study / recipe / '0', 'run.json')['stands_on']}
        for recipe in RECIPES
    }
    assert (
        stands['exp1']['hint']['sha256']
        == stands['exp2']['hint']['sha256']
        == sha256(study / 'hint' / '0' / 'weights.safetensors')
    )
    teachers = {stands[r]['teacher']['sha256'] for r in ('kd', 'hint', 'exp1', 'exp2')}
    assert (
        teachers
        == {sha256(study / 'teacher' / '0' / 'weights.safetensors')}
        == {read(study / 'exp1' / '0', 'result.json')['teacher_sha256']}
    )


def test_kd_with_alpha_0_is_the_baseline_to_the_bit(study, kdfast, images, tmp_path):
    "The same initial weights, images, order and augmentation: runs of one seed are pairs"
    done = kdfast('run', 'kd', '--alpha', 0, '--data', images, '--runs', beside(study, tmp_path, 'teacher'))
    assert done.status == 0, done.err
    assert equal(weights(tmp_path / 'tiny' / 'kd,alpha=0.0' / '0'), weights(study / 'baseline' / '0'))
    assert not equal(weights(study / 'kd' / '0'), weights(study / 'baseline' / '0'))


def test_the_same_seed_gives_the_same_weights_again_and_another_seed_others(study, kdfast, images, tmp_path):
    again = kdfast('run', 'exp2', '--data', images, '--runs', tmp_path)
    assert again.status == 0, again.err
    assert equal(weights(tmp_path / 'tiny' / 'exp2' / '0'), weights(study / 'exp2' / '0'))
    assert kdfast('run', 'baseline', '--seed', 1, '--data', images, '--runs', tmp_path).status == 0
    assert not equal(weights(tmp_path / 'tiny' / 'baseline' / '1'), weights(study / 'baseline' / '0'))


def test_a_finished_run_is_shown_and_not_trained_again(study, kdfast, images):
    before = (study / 'exp1' / '0' / 'weights.safetensors').stat().st_mtime_ns
    again = kdfast('run', 'exp1', '--data', images, '--runs', study.parent)
    assert again.status == 0 and 'nothing to train' in again.err and 'validation accuracy' in again.out
    assert (study / 'exp1' / '0' / 'weights.safetensors').stat().st_mtime_ns == before


@pytest.mark.parametrize('recipe', [r for r in RECIPES if r != 'hint'])
def test_the_reported_accuracy_is_the_confusion_matrixs_diagonal_and_the_predictions(study, recipe):
    header, *rows = csv.reader((study / recipe / '0' / 'confusion.csv').open())
    matrix = np.array([[int(n) for n in row[1:]] for row in rows])
    result, predictions = read(study / recipe / '0', 'result.json'), np.load(study / recipe / '0' / 'predictions.npz')
    assert header[1:] == [row[0] for row in rows] == CLASSES and matrix.sum() == 36
    assert (
        result['valid_accuracy']
        == matrix.trace() / matrix.sum()
        == (predictions['actual'] == predictions['predicted']).mean()
    )
    assert matrix[1][2] == ((predictions['actual'] == 1) & (predictions['predicted'] == 2)).sum()
    assert (predictions['logits'].argmax(1) == predictions['predicted']).mean() > 0.9
    off = sorted((n for i, row in enumerate(matrix.tolist()) for j, n in enumerate(row) if i != j and n), reverse=True)
    assert [n for *_, n in result['worst_pairs']] == off[:10]


def test_the_networks_learned_something(study):
    assert read(study / 'teacher' / '0', 'result.json')['train_accuracy'] > 0.6


def test_stage_one_classifies_nothing(study):
    result = read(study / 'hint' / '0', 'result.json')
    assert result['valid_accuracy'] is None and result['fit_loss'] > 0
    assert read(study / 'exp1' / '0', 'result.json')['fit_loss'] == result['fit_loss']


RELOAD = '''
import sys, numpy as np, torch
from kdfast.data import load, loaders
from kdfast.models.saved import load_network
from kdfast.runs.run_dir import RunDir
network = load_network(RunDir(sys.argv[2]))
x,_ = next(iter(loaders(load(sys.argv[1])).valid))
with torch.no_grad(): np.save(sys.argv[3], network(torch.Tensor(x)).numpy())
'''


def test_reloaded_weights_give_the_same_logits_in_a_fresh_process(study, images, data, tmp_path):
    from kdfast.data import dataloaders
    from kdfast.models.saved import load_network
    from kdfast.runs.run_dir import RunDir

    network = load_network(RunDir(study / 'exp2' / '0'))
    x, _ = next(iter(dataloaders.loaders(data).valid))
    with torch.no_grad():
        here = network(torch.Tensor(x)).numpy()
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RELOAD, images, study / 'exp2' / '0', tmp_path / 'there.npy'], check=True
    )
    there, kept = np.load(tmp_path / 'there.npy'), np.load(study / 'exp2' / '0' / 'predictions.npz')['logits']
    assert (here == there).all()
    assert (there.astype(np.float16) == kept).all()


@pytest.mark.parametrize('recipe,frozen', [('exp1', True), ('exp2', False)])
def test_stage_twos_optimizer_holds_every_student_parameter_once(study, data, tmp_path, recipe, frozen):
    from kdfast.runs.run_dir import locate_run
    from kdfast.training.execute import train
    from kdfast.training.run import Run

    folder = locate_run(beside(study, tmp_path, 'teacher', 'hint'), 'tiny', recipe, 0)
    folder.start({}, '')
    run = Run(folder, data, 0, tmp_path, train=train)
    learn = find_recipe(recipe).main()(run, epochs=1)
    held = [id(p) for p in learn.opt.all_params().itemgot(0)]
    assert sorted(held) == sorted(id(p) for p in learn.model.parameters())
    trained = [p for p, *_ in learn.opt.all_params() if p.requires_grad]
    assert len(trained) == (len(list(learn.model[3:].parameters())) if frozen else len(held))


FITNET = '''"Both stages in one file."
from kdfast.all import *

def main(run, epochs:int=2, hint_epochs:int=2):
    student,teacher = run.build(thin),run.needs('teacher')
    matrix = regressor(front(student), front(teacher), run.dls.one_batch()[0])
    stage_one = run.learner(nn.Sequential(front(student), matrix), loss_func=hint_loss, metrics=None)
    stage_one.fit_one_cycle(hint_epochs, .1, cbs=Hint(front(teacher)))
    learn = run.learner(student, splitter=front_back)
    learn.fit_one_cycle(epochs, .1, cbs=Distill(teacher))
    return learn
'''


def test_one_file_may_hold_both_stages_and_loses_no_row(study, kdfast, images, tmp_path):
    "And ends as exp2 does that stands on a stage one of its own"
    (tmp_path / 'fitnet.py').write_text(FITNET)
    done = kdfast(
        'run', tmp_path / 'fitnet.py', '--data', images, '--runs', beside(study, tmp_path, 'teacher'), '--json'
    )
    assert done.status == 0, done.err
    rows = list(csv.DictReader((tmp_path / 'tiny' / 'fitnet' / '0' / 'metrics.csv').open()))
    assert [(row['stage'], row['epoch']) for row in rows] == [('1', '1'), ('1', '2'), ('2', '1'), ('2', '2')]
    result = json.loads(done.out)
    assert result['fit_loss'] == float(rows[1]['train_fit']) and result['epochs'] == 4
    best = result['best_epoch']  # of all epochs, as the number of epochs is
    assert best in (3, 4) and float(rows[best - 1]['valid_accuracy']) == result['best_valid_accuracy']
    thin(3).load_state_dict(weights(tmp_path / 'tiny' / 'fitnet' / '0'), strict=True)


def test_the_matched_student_needs_no_matrix_and_takes_one_when_told(study, kdfast, images, tmp_path):
    beside(study, tmp_path, 'teacher')
    for options, matrix in (([], False), (['--matrix'], True)):
        done = kdfast(
            'run', 'exp1', '--epochs', 1, '--student', 'matched', *options, '--data', images, '--runs', tmp_path
        )
        assert done.status == 0, done.err
        name = 'student=matched' + ',matrix=True' * matrix
        stage_one, exp1 = tmp_path / 'tiny' / f'hint,{name}' / '0', tmp_path / 'tiny' / f'exp1,epochs=1,{name}' / '0'
        assert read(stage_one, 'result.json')['hint'] == dict(
            layers='stage2:stage2', guided_shape=[84, 2, 2], hint_shape=[84, 2, 2], matrix=matrix
        )
        matched(3).load_state_dict(weights(exp1), strict=True)
        assert equal(front(weights(stage_one)), front(weights(exp1)))
    assert read(study / 'hint' / '0', 'result.json')['hint'] == dict(
        layers='stage2:stage2', guided_shape=[40, 2, 2], hint_shape=[84, 2, 2], matrix=True
    )
