"Match adds a loss between features or logits of teacher and student to the loss on labels."

import warnings
from collections import OrderedDict
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Callback,
    DataLoaders,
    Learner,
    MixUp,
)
from match_learners import At, Regressed, copy, hooks, learner, teacher
from torch import nn
from torch.utils.checkpoint import checkpoint

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match
from kdfast.models.folding import faster
from kdfast.models.study_networks import matched, thin


def test_weight_0_is_plain_training_to_the_bit(data):
    plain, matching = learner(data), learner(data)
    plain.fit_one_cycle(1, 0.1)
    matching.fit_one_cycle(1, 0.1, cbs=Match(teacher(), hint_loss, 0.0, 'stage2:stage2'))
    assert equal(copy(plain.model), copy(matching.model))


def test_match_without_layers_compares_logits(data):
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


def test_losses_are_summed_over_pairs_or_receive_all_pairs(data):
    seen = []

    def each(guided, hint):
        return seen.append(guided.shape[1]) or guided.mean() * 0

    def both(guided, hint):
        return seen.append([g.shape[1] for g in guided]) or guided[0].mean() * 0

    both.together = True
    for loss in (each, both):
        learner(data).fit(1, 0.01, cbs=Match(teacher(), loss, 1.0, 'stage1:stage1,stage2:stage2'))
    assert seen == [16, 84] * 10 + [[16, 84]] * 10  # 9 steps and a batch of validation


def test_a_loss_receives_labels_and_image_indices_if_it_has_such_parameters(data):
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


def test_only_parameters_after_the_two_tensors_receive_labels_and_indices(data):
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


def test_image_indices_come_from_the_loader(data):
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


def test_match_uses_the_last_forward_pass_of_the_student(data):
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


def test_match_adds_to_the_loss_of_distill_and_all_parts_are_logged(data, tmp_path):
    from kdfast.distill.parts import merged

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


def test_the_student_computes_once_per_batch_whatever_is_found_out_of_its_layers(data):
    "What it counts, or observes, is what it counts without Match"

    class Counting(nn.Sequential):
        calls = 0

        def forward(self, x):
            self.calls += 1
            self.total += x.sum()
            return super().forward(x)

    totals = []
    for layers in (None, 'stage2:stage2'):
        net = Counting(OrderedDict(matched(3).named_children()))
        net.register_buffer('total', torch.zeros(()))
        learner(data, net).fit(1, 0.0, cbs=Match(teacher(), hint_loss if layers else kd_loss, 1.0, layers))
        totals.append((net.calls, net.total.item()))
    assert totals[0] == totals[1]


class Partly(nn.Module):
    "Computes its first layers by `how`"

    def __init__(self, how):
        super().__init__()
        self.net, self.scale, self.how = matched(3), nn.Parameter(torch.ones(1)), how

    def forward(self, x):
        return self.net[3:](self.how(self.net[:3], x * self.scale))


def without_gradient(net, x):
    with torch.no_grad():
        return net(x)


HOW = dict(
    reentrant=(partial(checkpoint, use_reentrant=True), 'computes its layer net.stage2 without gradient'),
    no_grad=(without_gradient, 'computes its layer net.stage2 without gradient'),
    not_reentrant=(partial(checkpoint, use_reentrant=False), None),
    plain=(lambda net, x: net(x), None),
)


@pytest.mark.parametrize('how,said', HOW.values(), ids=HOW)
@pytest.mark.parametrize('raw', [False, True])
def test_features_that_a_loss_cannot_train_are_refused(data, how, said, raw):
    def loss(guided, hint):
        return hint_loss(guided, hint)

    loss.raw, learn = raw, learner(data, Partly(how))
    before = copy(learn.model)
    with pytest.raises(KdfastError, match=said) if said else nullcontext():
        learn.fit(1, 0.01, cbs=Match(teacher(), loss, 1.0, 'stage2:net.stage2'))
    weights = {name for name, _ in learn.model.named_parameters()}
    moved = {name for name in weights - {'scale'} if not torch.equal(before[name], copy(learn.model)[name])}
    assert moved == (set() if said else weights - {'scale'})


@pytest.mark.parametrize('weight', [0, 1])
@pytest.mark.parametrize('frozen', [False, True])
def test_a_frozen_front_under_match_is_told_once(data, frozen, weight):
    learn = learner(data)
    for p in learn.model[:3].parameters():
        p.requires_grad_(not frozen)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        learn.fit(2, 0.01, cbs=Match(teacher(), hint_loss, weight, 'stage2:stage2'))
    texts = [str(w.message) for w in told if 'no weight of the student up to its layer' in str(w.message)]
    assert len(texts) == int(frozen and weight)


@pytest.mark.parametrize(
    'loss,said',
    [
        (VID, r'the loss is the class VID: create it first, VID\('),
        (nn.Module, 'the loss is the class Module'),
        ('at', "the loss is 'at', expected a function or module .* did you mean at_loss"),
        ('ReviewKd', 'did you mean ReviewKD'),
        ('hint_los', 'did you mean hint_loss'),
        (3, 'the loss is 3, expected a function or module'),
        (None, 'the loss is None, expected'),
    ],
)
def test_what_is_no_loss_is_refused_at_once(loss, said):
    with pytest.raises(KdfastError, match=said):
        Match(teacher(), loss)


OF_LAYER = partial(Match, loss=hint_loss, layers='1:head')


@pytest.mark.parametrize('make', [Distill, partial(Match, loss=kd_loss), OF_LAYER])
def test_a_teacher_of_other_inputs_is_named(data, make):
    net = nn.Sequential(nn.Flatten(), nn.Linear(7, 3))
    said = "the teacher cannot compute the student's batch of [×0-9]+ .RuntimeError: mat1 and mat2"
    if make is OF_LAYER:
        said = 'Sequential does not compute its layer 1 for an image .RuntimeError: mat1 and mat2'
    with pytest.raises(KdfastError, match=said):
        learner(data).fit(1, cbs=make(net))


@pytest.mark.parametrize('make', [partial(Distill, alpha=1), Distill, lambda net: Match(net, kd_loss)])
def test_data_without_labels_are_refused(make):
    images = [(x,) for x in torch.rand(16, 3, 32, 32)]
    dls = DataLoaders.from_dsets(images, images, bs=8, num_workers=0, device='cpu')
    dls.n_inp = 1
    learn = Learner(dls, matched(3), nn.CrossEntropyLoss())
    with pytest.raises(KdfastError, match='the training data have no labels'):
        learn.fit(1, cbs=make(teacher()))
