"""bfloat16 in training steps, including the teacher's; float32 elsewhere. Runs on any CPU, slowly without bfloat16."""

import pytest
import torch
from fastai.vision.all import Callback, CancelBatchException, CrossEntropyLossFlat, Learner, ProgressCallback, noop

from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.models.front import front
from kdfast.models.study_networks import thin, wide
from kdfast.training.precision import Bfloat16, sees_padding_alone

CPU = 'cpu'


def learner(data, model, loss=None, cbs=()):
    learn = Learner(loaders(data), model, loss or CrossEntropyLossFlat(), cbs=[Bfloat16(), *cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def watched(network, seen):
    "Notes in which precision the network's first convolution computes, and whether the network is training at that"
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    convs[0].register_forward_hook(lambda conv, _, out: seen.add((conv.training, out.dtype)))
    return network


def test_steps_are_bfloat16_and_the_rest_is_float32(data):
    student, teacher, seen = set(), set(), []

    class Look(Callback):
        def before_step(self):
            seen.append(
                {t.dtype for p in self.model.parameters() for t in (p, p.grad)} | {self.loss.dtype, self.pred.dtype}
            )

    learn = learner(data, watched(thin(3), student), cbs=[Look()])
    learn.fit(1, 0.01, cbs=Distill(watched(wide(3).eval(), teacher)))
    assert student == {(True, torch.bfloat16), (False, torch.float32)} and {dtype for _, dtype in teacher} == {
        torch.bfloat16,
        torch.float32,
    }
    assert seen and all(types == {torch.float32} for types in seen) and not torch.is_autocast_enabled(CPU)
    learn.get_preds()
    assert student == {(True, torch.bfloat16), (False, torch.float32)}


def test_the_hint_is_asked_for_in_the_same_precision(data):
    seen, net, teacher = set(), thin(3), wide(3).eval()
    matrix = regressor(front(net), front(teacher), torch.randn(2, 3, 8, 8))
    learner(data, torch.nn.Sequential(front(net), matrix), hint_loss).fit(
        1, 0.01, cbs=Hint(front(watched(teacher, seen)))
    )
    assert {dtype for _, dtype in seen} == {torch.bfloat16, torch.float32} and not torch.is_autocast_enabled(CPU)


SIDES = (1, 1), (2, 2), (3, 3), (4, 1), (1, 4), (5, 5), (8, 8)
KERNELS = (
    (1, 1, 0),
    (1, 2, 0),
    (2, 2, 1),
    (3, 1, 1),
    (3, 2, 1),
    (3, 3, 1),
    (4, 4, 2),
    (5, 1, 2),
    (5, 2, 2),
    (7, 2, 3),
    (3, 1, 'same'),
)  # and stride, and padding


def convolutions():
    "Some of each kind, and an image for each of them"
    for side in SIDES:
        for kernel, stride, padding in KERNELS:
            with_room = padding == 'same' or min(side) + 2 * padding >= kernel
            if with_room:
                yield torch.nn.Conv2d(8, 4, kernel, stride, padding, bias=False), torch.randn(2, 8, *side)


def test_which_convolutions_have_weights_that_see_padding_alone():
    "Their gradient is zero for any image"
    for conv, x in convolutions():
        conv(x).pow(2).sum().backward()
        unseen = (conv.weight.grad.abs().sum((0, 1)) == 0).any()
        assert sees_padding_alone(conv, x.shape[2:]) or not unseen, (conv, x.shape)
        if conv.padding != 'same':
            assert sees_padding_alone(conv, x.shape[2:]) == unseen, (conv, x.shape)


def test_convolutions_with_weights_that_see_padding_alone_leave_bfloat16(data):
    "oneDNN would leave the gradients of such weights as memory was"
    seen = {}

    def note(name):
        return lambda conv, inputs, out: seen.update(
            {(name, conv.training): (out.dtype, torch.is_autocast_enabled(CPU))}
        )

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 4, 1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 8, 3, 2, 1),
        torch.nn.Conv2d(8, 8, 3, 2, 1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    learn = learner(data, net)  # sides of 8, 2, 1 and 1

    class Look(Callback):
        order = 6

        def before_fit(self):
            for name in (0, 2, 3, 5):
                net[name].register_forward_hook(note(name))

        def before_step(self):
            assert not net[3].weight.grad[:, :, 0].any() and net[3].weight.grad[:, :, 1, 1].any()

    learn.fit(1, 0.01, cbs=Look())
    half, whole = (torch.bfloat16, True), (torch.float32, False)
    assert [seen[name, True] for name in (0, 2, 3, 5)] == [half, whole, whole, half]
    assert {seen[name, False] for name in (0, 2, 3, 5)} == {(torch.float32, False)}
    assert not net[3]._forward_pre_hooks and not hasattr(net[3], 'left_bfloat16')


def test_a_convolution_may_be_asked_for_one_image_by_name(data):
    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (
                torch.nn.Conv2d(3, 4, 3, 8, 1),
                torch.nn.Conv2d(4, 4, 3, 2, 1),
                torch.nn.Linear(4, 3),
            )

        def forward(self, x):
            return self.last(torch.stack([self.second(input=self.first(one)) for one in x]).flatten(1))

    net, seen = Named(), set()
    net.second.register_forward_hook(lambda conv, inputs, out: seen.add((conv.training, out.dtype)))
    learner(data, net).fit(1, 0.01)
    assert seen == {(True, torch.float32), (False, torch.float32)} and not torch.is_autocast_enabled(CPU)


def test_a_batch_that_is_given_up_leaves_nothing_on(data):
    class GiveUp(Callback):
        order = 6

        def before_batch(self):
            raise CancelBatchException()

        def after_batch(self):
            assert not torch.is_autocast_enabled(CPU)

    learner(data, thin(3), cbs=[GiveUp()]).fit(1, 0.01)


class Breaks(torch.nn.Module):
    "A layer that something breaks"

    def __init__(self, broken):
        super().__init__(), setattr(self, 'broken', broken)

    def forward(self, x):
        if self.training and self.broken:
            raise self.broken
        return x


def in_the_network(learn, broken):
    learn.model.append(Breaks(broken))


def in_a_convolution_in_float32(learn, broken):
    class Conv2d(torch.nn.Conv2d):
        def forward(self, x):
            raise broken

    learn.model[3].__class__ = Conv2d


def in_a_callback(event):
    def arrange(learn, broken):
        class Break(Callback):
            order = 6

        def raise_it(self):
            raise broken

        setattr(Break, event, raise_it)
        learn.add_cb(Break())

    return arrange


PLACES = [
    in_the_network,
    in_a_convolution_in_float32,
    *map(in_a_callback, ('before_fit', 'before_batch', 'after_pred', 'after_loss', 'before_step', 'before_validate')),
]


def tiny_network():  # sides of 4 and 1: the last weights of the second convolution see padding alone
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(4),
        torch.nn.Conv2d(8, 8, 3, 1, 1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )


def autocast():
    return torch.is_autocast_enabled(CPU), torch.get_autocast_dtype(CPU), torch.is_autocast_cache_enabled()


@pytest.mark.parametrize('broken', [KeyboardInterrupt(), RuntimeError('no luck')], ids=['Ctrl-C', 'error'])
@pytest.mark.parametrize(
    'place',
    PLACES,
    ids=[
        'network',
        'convolution',
        *('before_fit', 'before_batch', 'after_pred', 'after_loss', 'before_step', 'before_validate'),
    ],
)
def test_whatever_ends_a_fit_leaves_the_notebook_as_it_was(data, place, broken):
    learn = learner(data, tiny_network())
    place(learn, broken)
    torch.set_autocast_dtype(CPU, torch.float16)
    try:
        with pytest.raises(type(broken)):
            learn.fit(1, 0.01)
        assert autocast() == (False, torch.float16, True)
    finally:
        torch.set_autocast_dtype(CPU, torch.bfloat16)
    learn.model[3].__class__ = torch.nn.Conv2d
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())
    assert learn.model[:4].train()(torch.rand(2, 3, 8, 8)).dtype == torch.float32


def test_a_fit_behind_one_that_was_interrupted_computes_as_ever(data):
    def weights(interrupted):
        torch.manual_seed(0)
        learn = learner(data, torch.nn.Sequential(*tiny_network(), Breaks(None)))
        began = {name: t.clone() for name, t in learn.model.state_dict().items()}
        if interrupted:
            learn.model[-1].broken = KeyboardInterrupt()
            with pytest.raises(KeyboardInterrupt):
                learn.fit(1, 0.01)
            learn.model[-1].broken = None
            learn.model.load_state_dict(began)
            learn.dls.train.epoch = 0
        learn.fit(1, 0.01)
        return learn.model.state_dict()

    one, other = weights(False), weights(True)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_autocast_of_the_users_own_stays(data):
    "Around the fit, and in its validation"
    seen = set()
    net = tiny_network()
    net[0].register_forward_hook(lambda conv, inputs, out: seen.add((conv.training, out.dtype)))
    with torch.autocast(CPU, torch.float16):
        learner(data, net).fit(1, 0.01)
        assert autocast()[:2] == (True, torch.float16)
    assert seen == {(True, torch.bfloat16), (False, torch.float16)}


def test_outputs_of_several_tensors_become_float32_each(data):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_network()

        def forward(self, x):
            return self.net(x), (self.net(x),)

    seen = set()

    def loss(pred, y):
        seen.update((pred[0].dtype, pred[1][0].dtype))
        return torch.nn.functional.cross_entropy(pred[0], y) + pred[1][0].sum()

    learner(data, Two(), loss).fit(1, 0.01)
    assert seen == {torch.float32}


def test_a_run_that_fails_in_a_step_leaves_nothing_on(data, tmp_path):
    from kdfast.runs.recipes import find_recipe
    from kdfast.training.execute import train

    class Fail(Callback):
        order = 6

        def before_batch(self):
            torch.set_autocast_enabled(CPU, True)
            raise RuntimeError('no luck')

    with pytest.raises(RuntimeError, match='no luck'):
        train(find_recipe('baseline'), data, 0, dict(epochs=1), tmp_path, [lambda _: Fail()])
    assert not torch.is_autocast_enabled(CPU)
