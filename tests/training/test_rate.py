"A learning rate for a recipe, by the range test."

import json

import pytest
import torch
from conftest import beside
from fastai.vision.all import set_seed
from match_learners import learner

from kdfast.core.errors import KdfastError
from kdfast.models.study_networks import thin
from kdfast.runs.recipes import find_recipe
from kdfast.training import lr_find
from kdfast.training.learner import SeededOrder


def test_it_is_fastais_own_on_the_recipes_learner(data, tmp_path):
    found = lr_find.find(find_recipe('baseline'), data, 0, dict(optimizer='sgd'), tmp_path)
    set_seed(0, reproducible=True)
    learn = learner(data, thin(3).to(memory_format=torch.channels_last))
    learn.wd = 5e-3
    learn.add_cb(SeededOrder())
    from kdfast.training.precision import Bfloat16, multiplies_bfloat16

    if multiplies_bfloat16(learn.dls.device):
        learn.add_cb(Bfloat16())
    assert len(found.rates) > 50 and found.rates[0] == pytest.approx(1e-7)
    with learn.no_bar():
        same = learn.lr_find(show_plot=False).valley
    assert found.suggested == pytest.approx(same) and found.losses[0] == pytest.approx(float(learn.recorder.losses[0]))


def test_the_loss_is_the_recipes_and_nothing_but_what_it_stands_on_is_left(kdfast, study, images, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    first = {}
    for alpha in (0, 1):
        done = kdfast('lr-find', 'kd', '--alpha', alpha, '--data', images, '--runs', runs, '--json')
        assert done.status == 0, done.err
        first[alpha] = json.loads(done.out)['losses'][0]
    assert first[0] != first[1] and [f.name for f in (runs / 'tiny').iterdir()] == ['teacher']


def test_people_are_shown_a_curve_and_what_to_type(kdfast, images, tmp_path):
    done = kdfast('lr-find', 'baseline', '--data', images, '--runs', tmp_path)
    assert done.status == 0 and 'suggested  --lr 0.' in done.out
    assert kdfast('lr-find', 'baselin').status == 2


def test_a_recipe_that_fits_otherwise_is_said(data, tmp_path):
    (tmp_path / 'flat.py').write_text('"Flat."\nfrom kdfast.all import *\ndef main(run): return run.build(thin)\n')
    with pytest.raises(KdfastError, match='does not call fit_one_cycle'):
        lr_find.find(find_recipe(str(tmp_path / 'flat.py')), data, 0, {}, tmp_path)
