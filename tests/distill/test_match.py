"Learning from whatever a teacher computes: Match on any Learner, and what it leaves behind (nothing)."

from functools import partial

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    SGD,
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    MixUp,
    OptimWrapper,
    ProgressCallback,
    noop,
    ranger,
)
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match
from kdfast.models.folding import faster
from kdfast.models.study_networks import matched, thin, wide


def learner(data, net=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net or matched(3), CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9))
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def teacher():
    torch.manual_seed(1)
    return wide(3).eval()


def copy(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def hooks(net):
    return sum(len(m._forward_hooks) for m in net.modules())


class Regressed(nn.Module):
    "A loss that is trained: FitNets' hint, joint"

    def __init__(self):
        super().__init__()
        self.matrix = nn.Conv2d(40, 84, 1)

    def forward(self, guided, hint):
        return hint_loss(self.matrix(guided), hint)


class At(Callback):
    "Calls `look` with the Learner before each step"

    order = 50

    def __init__(self, look):
        self.look = look

    def before_step(self):
        self.look(self.learn)


def test_weight_0_is_plain_training_to_the_bit(data):
    plain, matching = learner(data), learner(data)
    plain.fit_one_cycle(1, 0.1)
    matching.fit_one_cycle(1, 0.1, cbs=Match(teacher(), hint_loss, 0.0, 'stage2:stage2'))
    assert equal(copy(plain.model), copy(matching.model))


def test_on_logits_it_adds_the_loss_of_both_networks_outputs(data):
    net, losses = teacher(), []

    def look(learn):
        with torch.no_grad():
            soft = kd_loss(learn.pred, faster(net, learn.xb)(*learn.xb))
        match = learn.match
        torch.testing.assert_close(match.parts['fit'], soft)
        torch.testing.assert_close(match.parts['total'], match.parts['hard'] + 3 * soft)
        losses.append(float(soft))

    learner(data).fit(1, 0.01, cbs=[Match(net, kd_loss, 3.0), At(look)])
    assert len(losses) == 9


def test_the_layers_are_those_named_whatever_overwrites_them(data):
    "The stem ends in an in-place ReLU behind its batch norm, and the teacher's batch norm is folded away"
    net, student, shown = teacher(), matched(3), []
    for stem in (net.stem, student.stem):
        stem[2].inplace = True

    def loss(guided, hint):
        shown.append((guided.min().item(), hint.min().item(), guided, hint))
        return guided.square().mean() + hint.sum() * 0

    learner(data, student).fit(1, 0.01, cbs=Match(net, loss, 1.0, 'stem.1:stem.1'))
    assert all(g < 0 and h < 0 for g, h, *_ in shown)

    def convolved(learn):
        with torch.no_grad():
            torch.testing.assert_close(shown[-1][3], net.stem[0](*learn.xb))

    learner(data).fit(1, 0.01, cbs=[Match(net, lambda g, h: loss(g, h), 1.0, 'stem.0:stem.1'), At(convolved)])


def test_several_pairs_are_summed_or_given_together(data):
    seen = []

    def each(guided, hint):
        return seen.append(guided.shape[1]) or guided.mean() * 0

    def both(guided, hint):
        return seen.append([g.shape[1] for g in guided]) or guided[0].mean() * 0

    both.together = True
    for loss in (each, both):
        learner(data).fit(1, 0.01, cbs=Match(teacher(), loss, 1.0, 'stage1:stage1,stage2:stage2'))
    assert seen == [16, 84] * 10 + [[16, 84]] * 10  # 9 steps and a batch of validation


def test_a_loss_may_ask_for_labels_and_for_the_places_of_the_images(data):
    learn, asked = learner(data), []
    labels = torch.as_tensor(learn.dls.train_ds.labels)

    def loss(guided, hint, y, index):
        assert (labels[index] == y).all()
        asked.extend(index.tolist())
        return guided.mean() * 0

    learn.fit(2, 0.01, cbs=Match(teacher(), loss, 1.0))
    assert sorted(asked) == sorted([*range(72)] * 2) and asked[:72] != list(range(72))
    with pytest.raises(KdfastError, match='loss needs the label or index of each image, and MixUp'):
        learn.fit(1, 0.01, cbs=[MixUp(), Match(teacher(), loss)])


def test_a_loss_with_parameters_is_trained_with_the_student_and_never_part_of_it(data):
    learn, loss = learner(data, thin(3)), Regressed()
    before, names = copy(loss), set(copy(learn.model))
    held = []
    learn.fit_one_cycle(
        2,
        0.05,
        cbs=[
            Match(teacher(), loss, 1.0, 'stage2:stage2'),
            At(lambda learn: held.append(sum(p is loss.matrix.weight for p, *_ in learn.opt.all_params()))),
        ],
    )
    assert held == [1] * 18 and not equal(before, copy(loss)) and set(copy(learn.model)) == names
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


class Memory(nn.Module):
    "A loss that behaves in evaluation mode in its own way, and remembers what it was called with"

    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm2d(40), []

    def forward(self, guided, hint):
        self.calls.append(self.training)
        return self.norm(guided).square().mean() + hint.mean() * 0


def parts_of(learn, *cbs):
    "Of each batch, whether it is of training, what Match holds and what it compared"
    seen = []

    class Look(Callback):
        order = 50

        def after_loss(self):
            seen.append(
                (
                    self.training,
                    dict(self.match.parts),
                    self.match.features['stage2'][0].detach().clone() if self.match.pairs else None,
                    float(self.loss),
                )
            )

    learn.fit(2, 0.01, cbs=[*cbs, Look()])
    return seen


def test_its_parts_are_those_of_the_batch_in_validation_too(data):
    net = teacher()
    for layers in ('stage2:stage2', None):

        def loss(s, t):
            return (s.float().mean() - t.float().mean()).square() + 1

        seen = []
        for training, parts, guided, task in parts_of(
            learner(data), Match(net, lambda s, t: seen.append(loss(s, t)) or seen[-1], 3.0, layers)
        ):
            now = seen.pop(0)
            torch.testing.assert_close(parts['fit'], now)
            torch.testing.assert_close(parts['total'], parts['hard'] + 3 * now)
            assert task == pytest.approx(float(parts['total'] if training else parts['hard']))


def test_validation_is_computed_by_a_copy_in_evaluation_mode_that_leaves_no_trace(data):
    loss = Memory()
    batches = parts_of(learner(data, thin(3)), Match(teacher(), loss, 1.0, 'stage2:stage2'))
    assert loss.calls == [True] * 18 and loss.norm.num_batches_tracked == 18
    norm = nn.functional.batch_norm
    training, parts, guided, _ = batches[-1]
    expected = (
        norm(guided, loss.norm.running_mean, loss.norm.running_var, loss.norm.weight, loss.norm.bias).square().mean()
    )
    assert not training and float(parts['fit']) == pytest.approx(float(expected), rel=1e-5)


def test_what_cannot_be_computed_on_validation_images_has_no_value_there(data):
    class Uncopied(Memory):
        def __deepcopy__(self, memo):
            raise TypeError('no')

    def of_places(guided, hint, index):
        return guided.mean() * 0 + index.float().mean()

    for loss in (of_places, Uncopied()):
        for training, parts, *_ in parts_of(learner(data, thin(3)), Match(teacher(), loss, 1.0, 'stage2:stage2')):
            assert bool(parts) == training


def test_beside_distill_the_total_in_validation_is_that_of_both(data):
    totals = []

    class Look(Callback):
        order = 50

        def after_loss(self):
            totals.append((self.distill.parts, self.match.parts))

    learner(data).fit(1, 0.01, cbs=[Distill(teacher()), Match(teacher(), hint_loss, 2.0, 'stage2:stage2'), Look()])
    assert len(totals) == 10
    for distill, match in totals:
        torch.testing.assert_close(match['total'], distill['total'] + 2 * match['fit'])


def loss_states(learn, loss):
    "What the optimizer knows of each of the loss's parameters"
    known = {id(p): state for p, _, state, _ in learn.opt.all_params()}
    return {name: known.get(id(p)) for name, p in loss.named_parameters()}


@pytest.mark.parametrize(
    'opt_func',
    [
        partial(SGD, mom=0.9),
        ranger,
        partial(OptimWrapper, opt=torch.optim.AdamW),
        partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9)),
    ],
)
def test_any_optimizer_trains_the_loss_and_forgets_it(data, opt_func):
    learn, loss, held = learner(data, thin(3)), nn.Sequential(), []

    class Normed(Regressed):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(84)

        def forward(self, guided, hint):
            return hint_loss(self.norm(self.matrix(guided)), hint)

    loss = Normed()
    learn.opt_func = opt_func
    before = copy(loss)
    for _ in range(2):
        learn.fit(
            1,
            0.01,
            cbs=[Match(teacher(), loss, 1.0, 'stage2:stage2'), At(lambda learn: held.append(loss_states(learn, loss)))],
        )
    assert all(not (before[name] == t).all() for name, t in copy(loss).items()) and len(held) == 18
    assert {name: state.get('do_wd', True) for name, state in held[0].items()} == {
        'matrix.weight': True,
        'matrix.bias': False,
        'norm.weight': False,
        'norm.bias': False,
    }
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}
    own = {id(p) for p in loss.parameters()}
    assert not own & {id(p) for p in learn.opt.state} and not own & {
        id(p) for p in getattr(getattr(learn.opt, 'opt', None), 'state', {})
    }
    assert all(p.grad is None for p in loss.parameters())


def test_norms_and_biases_of_a_loss_decay_where_the_students_do(data):
    learn, loss, held = learner(data, thin(3)), Regressed(), []
    learn.wd_bn_bias = True
    learn.fit(
        1,
        0.01,
        cbs=[Match(teacher(), loss, 1.0, 'stage2:stage2'), At(lambda learn: held.append(loss_states(learn, loss)))],
    )
    assert all(state.get('do_wd', True) for state in held[0].values())


def test_an_optimizer_that_was_loaded_trains_the_loss(data, tmp_path):
    learn, loss = learner(data, thin(3)), Regressed()
    learn.path = tmp_path
    learn.fit(1, 0.01)
    learn.save('student')
    learn.load('student')
    before = copy(loss)
    learn.fit(1, 0.01, cbs=Match(teacher(), loss, 1.0, 'stage2:stage2'))
    assert not equal(before, copy(loss))


def test_a_loss_that_holds_a_part_of_the_student_takes_nothing_away(data):
    class Holds(Regressed):
        def __init__(self, student):
            super().__init__()
            self.student = student

    learn = learner(data, thin(3))
    learn.fit(1, 0.01, cbs=Match(teacher(), Holds(learn.model), 1.0, 'stage2:stage2'))
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


def test_only_parameters_behind_the_two_tensors_ask_for_labels_and_places(data):
    def named(x, y):
        return (x.mean() - y.mean()).square()

    def both(x, index, y):
        return x.mean() * 0 + y.float().mean()

    for loss, wants in (
        (named, set()),
        (both, {'y'}),
        (partial(both, y=torch.zeros(3)), set()),
        (torch.dist, set()),
        (Regressed(), set()),
    ):
        assert Match(teacher(), loss).extra_inputs == wants
    learner(data).fit(1, 0.01, cbs=Match(teacher(), named))


def test_places_come_from_the_loader_and_are_where_the_labels_are(data):
    from kdfast.distill.loss_inputs import sample_indices

    class Loader:
        batch_idx = torch.tensor([30, 31])

    assert (
        sample_indices(Loader(), 3, torch.tensor([0, 1])).tolist() == [30, 31]
        and sample_indices(Loader(), 0, torch.zeros(2, device='meta')).device.type == 'meta'
    )
    with pytest.raises(KdfastError, match='Loader has 2 indices for a batch of 3'):
        sample_indices(Loader(), 0, torch.zeros(3))

    def loss(s, t, index):
        return s.mean() * 0

    learn = learner(data)
    learn.dls = DataLoaders(torch.utils.data.DataLoader(learn.dls.train_ds, 8), learn.dls.valid)
    with pytest.raises(KdfastError, match='loss needs the indices of the images of a batch, which DataLoader does not'):
        learn.fit(1, cbs=Match(teacher(), loss))


@pytest.mark.parametrize(
    'loss,found',
    [(lambda s, t: (s - t).square(), '8×3'), (lambda s, t: dict(loss=s.mean()), 'dict'), (lambda s, t: 0.0, 'float')],
)
def test_a_loss_that_is_not_one_number_is_refused(data, loss, found):
    with pytest.raises(KdfastError, match=f'returns {found}, expected a scalar'):
        learner(data).fit(1, cbs=Match(teacher(), loss))


def test_the_last_forward_pass_counts(data):
    "A callback may ask the student itself"

    class Asks(Callback):
        order = 20

        def before_batch(self):
            self.model(self.xb[0] * 0)

        def after_pred(self):
            self.model(self.xb[0] * 0)

    seen = []

    def loss(guided, hint):
        return seen.append(guided) or guided.mean() * 0

    learn = learner(data)
    learn.fit(1, 0.0, cbs=[Match(teacher(), loss, 1.0, 'stem:stem'), Asks()])
    assert len(seen) == 10 and all(g.std(0).max() > 0 for g in seen)  # images differ, zeros do not


def test_features_of_a_student_on_several_gpus_at_once_are_refused(data):
    class Replicated(nn.DataParallel):
        def __init__(self, net):
            super().__init__(net)
            self.device_ids = [0, 1]

        def forward(self, x):
            return self.module(x)

    with pytest.raises(KdfastError, match='DataParallel computes the layers of the student in several copies'):
        learner(data, Replicated(matched(3))).fit(1, cbs=Match(teacher(), hint_loss, 1.0, 'stage2:stage2'))


@pytest.mark.parametrize('error', [KeyboardInterrupt(), ValueError('no')])
def test_nothing_is_left_behind_however_the_fit_ends(data, error):
    learn, net, loss = learner(data, thin(3)), teacher(), Regressed()
    before = copy(net)

    def fail(_):
        raise error

    with pytest.raises(type(error)):
        learn.fit(1, 0.01, cbs=[Match(net, loss, 1.0, 'stage2:stage2'), At(fail)])
    assert hooks(learn.model) == hooks(net) == 0 and not hasattr(learn, 'match') and equal(before, copy(net))
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()} and all(
        p.grad is None for p in net.parameters()
    )
    learn.fit(1, 0.01, cbs=Match(net, loss, 1.0, 'stage2:stage2'))
    assert hooks(learn.model) == 0


def test_it_adds_to_what_distill_blends_and_the_record_has_every_part(data, tmp_path):
    from kdfast.distill.fit import merged

    parts = []

    def look(learn):
        parts.append(merged([learn.distill.parts, learn.match.parts]))

    learner(data).fit(
        1, 0.01, cbs=[Distill(teacher(), alpha=0.5), Match(teacher(), hint_loss, 2.0, 'stage2:stage2'), At(look)]
    )
    for p in parts:
        torch.testing.assert_close(p['total'], 0.5 * p['hard'] + 0.5 * p['soft'] + 2 * p['fit'])


def test_a_wrong_layer_is_named(data):
    with pytest.raises(KdfastError, match='Sequential has no layer stage9; did you mean stage'):
        learner(data).fit(1, 0.01, cbs=Match(teacher(), hint_loss, 1.0, 'stage9:stage2'))


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
    from test_resume import same, train

    from kdfast.runs.recipes import find_recipe

    (tmp_path / 'trained.py').write_text(TRAINED)
    recipe = find_recipe(str(tmp_path / 'trained.py'))
    whole = train(recipe, data, beside(study, tmp_path / 'whole', 'teacher'))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, beside(study, tmp_path / 'cut', 'teacher'), at=(1, 1, 4))
    assert same(train(recipe, data, tmp_path / 'cut'), whole)
