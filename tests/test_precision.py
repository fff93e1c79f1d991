"bfloat16 in the training steps, the teacher's part of them too; float32 in all else, and on any CPU: it only would be slow."
import pytest
import torch
from fastai.vision.all import Callback, CancelBatchException, CrossEntropyLossFlat, Learner, ProgressCallback, noop
from kdfast.distill import Distill
from kdfast.hint import Hint, front, regressor
from kdfast.loader import loaders
from kdfast.losses import hint_loss
from kdfast.models import thin, wide
from kdfast.precision import Bfloat16

CPU = 'cpu'


def learner(data, model, loss=None, cbs=()):
    learn = Learner(loaders(data), model, loss or CrossEntropyLossFlat(), cbs=[Bfloat16(), *cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def watched(network, seen):
    "Notes in which precision the network's last convolution computes, and whether the network is training at that"
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    convs[-1].register_forward_hook(lambda conv, _, out: seen.add((conv.training, out.dtype)))
    return network


def test_steps_are_bfloat16_and_the_rest_is_float32(data):
    student,teacher,seen = set(),set(),[]
    class Look(Callback):
        def before_step(self): seen.append({t.dtype for p in self.model.parameters() for t in (p, p.grad)} | {self.loss.dtype, self.pred.dtype})
    learn = learner(data, watched(thin(3), student), cbs=[Look()])
    learn.fit(1, .01, cbs=Distill(watched(wide(3).eval(), teacher)))
    assert student == {(True, torch.bfloat16), (False, torch.float32)} and {dtype for _,dtype in teacher} == {torch.bfloat16, torch.float32}
    assert seen and all(types == {torch.float32} for types in seen) and not torch.is_autocast_enabled(CPU)
    learn.get_preds()
    assert student == {(True, torch.bfloat16), (False, torch.float32)}


def test_the_hint_is_asked_for_in_the_same_precision(data):
    seen,net,teacher = set(),thin(3),wide(3).eval()
    matrix = regressor(front(net), front(teacher), torch.randn(2, 3, 8, 8))
    learner(data, torch.nn.Sequential(front(net), matrix), hint_loss).fit(1, .01, cbs=Hint(front(watched(front(teacher), seen))))
    assert {dtype for _,dtype in seen} == {torch.bfloat16, torch.float32} and not torch.is_autocast_enabled(CPU)


def test_a_batch_that_is_given_up_leaves_nothing_on(data):
    class GiveUp(Callback):
        order = 6
        def before_batch(self): raise CancelBatchException()
        def after_batch(self): assert not torch.is_autocast_enabled(CPU)
    learner(data, thin(3), cbs=[GiveUp()]).fit(1, .01)


def test_a_run_that_fails_in_a_step_leaves_nothing_on(data, tmp_path):
    from kdfast import recipe as recipes, trainer
    class Fail(Callback):
        order = 6
        def before_batch(self):
            torch.set_autocast_enabled(CPU, True)
            raise RuntimeError('no luck')
    with pytest.raises(RuntimeError, match='no luck'): trainer.train(recipes.find('baseline'), data, 0, dict(epochs=1), tmp_path, [lambda _: Fail()])
    assert not torch.is_autocast_enabled(CPU)
