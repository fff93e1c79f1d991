"Fits compute in bfloat16 and predictions in float32; whatever ends a fit, autocast is as it was."

import pytest
import torch
from fastai.vision.all import Callback, CancelBatchException
from precision_learners import CPU, learner, watched

from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.models.front import front
from kdfast.models.study_networks import thin, wide


def test_fits_are_bfloat16_and_weights_and_predictions_are_float32(data):
    student, teacher, seen = set(), set(), []

    class Look(Callback):
        def before_step(self):
            seen.append(
                {t.dtype for p in self.model.parameters() for t in (p, p.grad)} | {self.loss.dtype, self.pred.dtype}
            )

    learn = learner(data, watched(thin(3), student), cbs=[Look()])
    learn.fit(1, 0.01, cbs=Distill(watched(wide(3).eval(), teacher)))
    assert student == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert (False, torch.bfloat16) in teacher  # and in float32 to compare with its faster copy
    assert seen and all(types == {torch.float32} for types in seen) and not torch.is_autocast_enabled(CPU)
    learn.get_preds()
    assert student == {(True, torch.bfloat16), (False, torch.bfloat16), (False, torch.float32)}


def test_hint_computes_the_teacher_in_the_same_precision(data):
    seen, net, teacher = set(), thin(3), wide(3).eval()
    matrix = regressor(front(net), front(teacher), torch.randn(2, 3, 8, 8))
    learner(data, torch.nn.Sequential(front(net), matrix), hint_loss).fit(
        1, 0.01, cbs=Hint(front(watched(teacher, seen)))
    )
    assert (False, torch.bfloat16) in seen and not torch.is_autocast_enabled(CPU)


def test_a_canceled_batch_leaves_autocast_off(data):
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


def test_a_fit_after_an_interrupted_one_computes_the_same(data):
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
    "Around the fit"
    seen = set()
    net = tiny_network()
    net[0].register_forward_hook(lambda conv, inputs, out: seen.add((conv.training, out.dtype)))
    with torch.autocast(CPU, torch.float16):
        learner(data, net).fit(1, 0.01)
        assert autocast()[:2] == (True, torch.float16)
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}


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


def test_a_run_that_fails_in_a_step_leaves_autocast_off(data, tmp_path):
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
