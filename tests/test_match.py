"Learning from whatever a teacher computes: Match on any Learner, and what it leaves behind (nothing)."
from functools import partial

import pytest
import torch
from conftest import equal
from fastai.vision.all import SGD, Callback, CrossEntropyLossFlat, Learner, MixUp, ProgressCallback, noop
from kdfast.distill import Distill
from kdfast.errors import KdfastError
from kdfast.folding import faster
from kdfast.loader import loaders
from kdfast.losses import hint_loss, kd_loss
from kdfast.match import Match
from kdfast.models import matched, thin, wide
from torch import nn


def learner(data, net=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net or matched(3), CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9))
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def teacher():
    torch.manual_seed(1)
    return wide(3).eval()


def copy(net): return {name: t.clone() for name,t in net.state_dict().items()}
def hooks(net): return sum(len(m._forward_hooks) for m in net.modules())


class Regressed(nn.Module):
    "A loss that is trained: FitNets' hint, joint"
    def __init__(self):
        super().__init__()
        self.matrix = nn.Conv2d(40, 84, 1)
    def forward(self, guided, hint): return hint_loss(self.matrix(guided), hint)


class At(Callback):
    "Calls `look` with the Learner before each step"
    order = 50
    def __init__(self, look): self.look = look
    def before_step(self): self.look(self.learn)


def test_weight_0_is_plain_training_to_the_bit(data):
    plain,matching = learner(data),learner(data)
    plain.fit_one_cycle(1, .1)
    matching.fit_one_cycle(1, .1, cbs=Match(teacher(), hint_loss, 0., 'stage2:stage2'))
    assert equal(copy(plain.model), copy(matching.model))


def test_on_logits_it_adds_the_loss_of_both_networks_outputs(data):
    net,losses = teacher(),[]
    def look(learn):
        with torch.no_grad(): soft = kd_loss(learn.pred, faster(net, learn.xb)(*learn.xb))
        match = learn.match
        torch.testing.assert_close(match.parts['fit'], soft)
        torch.testing.assert_close(match.parts['total'], match.parts['hard'] + 3*soft)
        losses.append(float(soft))
    learner(data).fit(1, .01, cbs=[Match(net, kd_loss, 3.), At(look)])
    assert len(losses) == 9


def test_the_layers_are_those_named_whatever_overwrites_them(data):
    "The stem ends in an in-place ReLU behind its batch norm, and the teacher's batch norm is folded away"
    net,student,shown = teacher(),matched(3),[]
    for stem in (net.stem, student.stem): stem[2].inplace = True
    def loss(guided, hint):
        shown.append((guided.min().item(), hint.min().item(), guided, hint))
        return guided.square().mean() + hint.sum()*0
    learner(data, student).fit(1, .01, cbs=Match(net, loss, 1., 'stem.1:stem.1'))
    assert all(g < 0 and h < 0 for g,h,*_ in shown)
    def convolved(learn):
        with torch.no_grad(): torch.testing.assert_close(shown[-1][3], net.stem[0](*learn.xb))
    learner(data).fit(1, .01, cbs=[Match(net, lambda g, h: loss(g, h), 1., 'stem.0:stem.1'), At(convolved)])


def test_several_pairs_are_summed_or_given_together(data):
    seen = []
    def each(guided, hint): return seen.append(guided.shape[1]) or guided.mean()*0
    def both(guided, hint): return seen.append([g.shape[1] for g in guided]) or guided[0].mean()*0
    both.together = True
    for loss in (each, both): learner(data).fit(1, .01, cbs=Match(teacher(), loss, 1., 'stage1:stage1,stage2:stage2'))
    assert seen == [16, 84]*10 + [[16, 84]]*10 # 9 steps and a batch of validation


def test_a_loss_may_ask_for_labels_and_for_the_places_of_the_images(data):
    learn,asked = learner(data),[]
    labels = torch.as_tensor(learn.dls.train_ds.labels)
    def loss(guided, hint, y, index):
        assert (labels[index] == y).all()
        asked.extend(index.tolist())
        return guided.mean()*0
    learn.fit(2, .01, cbs=Match(teacher(), loss, 1.))
    assert sorted(asked) == sorted([*range(72)]*2) and asked[:72] != list(range(72))
    with pytest.raises(KdfastError, match='loss needs the label of each image, and MixUp'): learn.fit(1, .01, cbs=[MixUp(), Match(teacher(), loss)])


def test_a_loss_with_parameters_is_trained_with_the_student_and_never_part_of_it(data):
    learn,loss = learner(data, thin(3)),Regressed()
    before,names = copy(loss),set(copy(learn.model))
    held = []
    learn.fit_one_cycle(2, .05, cbs=[Match(teacher(), loss, 1., 'stage2:stage2'), At(lambda learn: held.append(sum(p is loss.matrix.weight for p,*_ in learn.opt.all_params())))])
    assert held == [1]*18 and not equal(before, copy(loss)) and set(copy(learn.model)) == names
    assert {id(p) for p,*_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}




@pytest.mark.parametrize('error', [KeyboardInterrupt(), ValueError('no')])
def test_nothing_is_left_behind_however_the_fit_ends(data, error):
    learn,net,loss = learner(data, thin(3)),teacher(),Regressed()
    before = copy(net)
    def fail(_): raise error
    with pytest.raises(type(error)): learn.fit(1, .01, cbs=[Match(net, loss, 1., 'stage2:stage2'), At(fail)])
    assert hooks(learn.model) == hooks(net) == 0 and not hasattr(learn, 'match') and equal(before, copy(net))
    assert {id(p) for p,*_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()} and all(p.grad is None for p in net.parameters())
    learn.fit(1, .01, cbs=Match(net, loss, 1., 'stage2:stage2'))
    assert hooks(learn.model) == 0


def test_it_adds_to_what_distill_blends_and_the_record_has_every_part(data, tmp_path):
    from kdfast.metrics_log import merged
    parts = []
    def look(learn): parts.append(merged([learn.distill.parts, learn.match.parts]))
    learner(data).fit(1, .01, cbs=[Distill(teacher(), alpha=.5), Match(teacher(), hint_loss, 2., 'stage2:stage2'), At(look)])
    for p in parts: torch.testing.assert_close(p['total'], .5*p['hard'] + .5*p['soft'] + 2*p['fit'])


def test_a_wrong_layer_is_named(data):
    with pytest.raises(KdfastError, match='Sequential has no layer stage9; did you mean stage'): learner(data).fit(1, .01, cbs=Match(teacher(), hint_loss, 1., 'stage9:stage2'))


TRAINED = '''"A loss that is trained, too."
from kdfast.all import *

class Regressed(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Conv2d(40, 84, 1)
    def forward(self, guided, hint): return hint_loss(self.matrix(guided), hint)

def main(run, epochs:int=2):
    teacher = run.needs('teacher')
    learn = run.learner(run.build('thin'))
    learn.fit_one_cycle(epochs, .1, cbs=Match(teacher, Regressed(), 1., 'stage2:stage2'))
    return learn
'''


def test_a_run_whose_loss_is_trained_goes_on_to_the_same_bits(data, study, tmp_path):
    from conftest import beside
    from kdfast import recipe as recipes
    from test_resume import same, train
    (tmp_path/'trained.py').write_text(TRAINED)
    recipe = recipes.find(str(tmp_path/'trained.py'))
    whole = train(recipe, data, beside(study, tmp_path/'whole', 'teacher'))
    with pytest.raises(KeyboardInterrupt): train(recipe, data, beside(study, tmp_path/'cut', 'teacher'), at=(1, 1, 4))
    assert same(train(recipe, data, tmp_path/'cut'), whole)
