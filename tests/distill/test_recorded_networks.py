"Teachers and students that were scripted, traced, frozen, exported, or have no weights yet."

import io
from copy import deepcopy

import pytest
import torch
from fastai.vision.all import Callback
from taught_learners import AT, Look, learner, net, targets
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match

X = torch.rand(8, 3, 8, 8)


def exported(network):
    return torch.export.export(network, (X,)).module()


def loaded(network):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, X), file)
    file.seek(0)
    return torch.jit.load(file)


RECORD = dict(
    script=torch.jit.script,
    trace=lambda network: torch.jit.trace(network, X),
    loaded=loaded,
    freeze=lambda network: torch.jit.freeze(torch.jit.script(network)),
    optimized=lambda network: torch.jit.optimize_for_inference(torch.jit.script(network)),
    export=exported,
)


def small():
    "Without a batch norm, which a trace computes as in the mode that it had"
    return net()[:1] + net()[2:]


def wrapped(record):
    return lambda network: nn.Sequential(record(network), nn.Sequential(nn.BatchNorm1d(3).eval(), nn.Dropout()))


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('kind', RECORD)
def test_recorded_teachers(kind, inside):
    "A teacher with a recorded part that cannot be switched has other parts that are"
    plain = net(8).eval()
    teacher = (wrapped(RECORD[kind]) if inside else RECORD[kind])(deepcopy(plain))
    if inside:
        teacher.append(nn.Dropout()).training = True
        for m in teacher[1:].modules():
            m.training = True
        plain = nn.Sequential(plain, nn.BatchNorm1d(3)).eval()
    modes = [m.training for m in teacher[1:].modules()] if inside else []
    for x, target in targets(learner(), teacher, Match(teacher, kd_loss)):
        with torch.no_grad():
            torch.testing.assert_close(target, plain(x), **AT)
    assert ([m.training for m in teacher[1:].modules()] if inside else []) == modes


@pytest.mark.parametrize('record', [torch.jit.script, lambda network: torch.jit.trace(network, X)])
def test_recorded_students_are_taught_as_others(record):
    "A prediction in the fit changes nothing, and a student that is its own teacher is copied"

    class Predict(Callback):
        def before_epoch(self):
            self.learn.get_preds()

    def trained(make, *cbs):
        torch.manual_seed(0)
        student = make(small())
        teacher = net(8)
        learner(student).fit(2, 0.1, cbs=[Distill(teacher), *cbs])
        return student.state_dict()

    plain = trained(lambda network: network)
    for cbs in ([], [Predict()]):
        for name, t in trained(record, *cbs).items():
            torch.testing.assert_close(t, plain[name], **AT)
    student, before = record(small()), {}

    class Keep(Callback):
        def before_fit(self):
            before.update(deepcopy(student.state_dict()))

    reference = small()
    for x, target in targets(learner(student), student, Keep()):
        reference.load_state_dict(before)
        with torch.no_grad():
            torch.testing.assert_close(target, reference(x), **AT)


@pytest.mark.parametrize('record', [lambda network: torch.jit.trace(network, X), exported])
@pytest.mark.parametrize('network', [net(8), nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Dropout())])
def test_teachers_recorded_in_training_mode_are_refused(record, network):
    with pytest.raises(KdfastError, match='recorded in training mode: call eval'):
        targets(learner(), record(deepcopy(network).train()))


@pytest.mark.parametrize('odd', ['teacher', 'student'])
@pytest.mark.parametrize('record', [torch.jit.script, lambda network: torch.jit.trace(network, X)])
def test_layers_of_torchscript_are_refused(record, odd):
    networks = [net(8).eval(), net()]
    networks[odd == 'student'] = record(networks[odd == 'student'])
    with pytest.raises(KdfastError, match='layer 4 is of TorchScript'):
        learner(networks[1]).fit(1, cbs=Match(networks[0], at_loss, 1.0, '4:4'))


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def test_lazy_networks():
    "A student gets its weights in the first batch, and a teacher must have some"
    student, seen = lazy(), []
    learner(student).fit(1, 0.1, cbs=[Distill(net(8)), Look(lambda learn: seen.append(learn.loss.item()))])
    assert len(seen) == 6 and all(p.isfinite().all() for p in student.parameters())
    for cb in (Distill(lazy()), Match(lazy(), kd_loss)):
        with pytest.raises(KdfastError, match='the teacher has lazy layers without weights'):
            learner().fit(1, cbs=cb)
    teacher = lazy()
    teacher(X)
    assert len(targets(learner(), teacher)) == 12
