"""Learners of every task, with Distill, Match and others: correct values, or an error before the first step."""

from functools import partial

import numpy as np
import torch
from fastai.vision.all import Callback, GradientAccumulation, MixedPrecision, MixUp
from learners import KINDS, learner
from numpy_losses import of_class, of_labels, of_numbers
from trial import Skipped, run

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match
from kdfast.training.precision import Bfloat16

T, ALPHA, WEIGHT = 3.0, 0.7, 2.0
SOFT = dict(
    classes=partial(of_class, axis=1),
    labels=of_labels,
    yes_or_no=of_labels,
    numbers=of_numbers,
    pixels=partial(of_class, axis=1),
    tabular=partial(of_class, axis=1),
    text=partial(of_class, axis=1),
    language=partial(of_class, axis=-1),
)  # with T = 3
LAYERS = dict(
    classes='0.1:0.1',
    labels='0.1:0.1',
    numbers='0.1:0.1',
    yes_or_no='0.1:0.1',
    pixels='layers.0.1:layers.0.1',
    tabular='layers.0:layers.0',
    text='1.layers.1:1.layers.1',
    language='1.decoder:1.decoder',
)
BESIDE = {
    'alone': lambda: [],
    'MixUp': lambda: [MixUp()],
    'fp16': lambda: [MixedPrecision()],
    'bf16': lambda: [MixedPrecision('bf16')],
    'Bfloat16': lambda: [Bfloat16()],
    'accumulation': lambda: [GradientAccumulation(16)],
}
METHODS = 'Distill', 'logits', 'kd_loss', 'layers', 'both'


def squares(student, teacher):
    return (student - teacher).square().mean()


def callbacks(method, kind, teacher):
    distill, layers = Distill(teacher, T, ALPHA), Match(teacher, squares, WEIGHT, LAYERS[kind])
    return dict(
        Distill=[distill],
        logits=[Match(teacher, squares, WEIGHT)],
        kd_loss=[Match(teacher, partial(kd_loss, T=T), WEIGHT)],
        layers=[layers],
        both=[distill, layers],
    )[method]


class Check(Callback):
    "After the losses are in: what each of kdfast's callbacks made of the loss, against the teacher itself and numpy"

    order = 4  # behind Distill and Match

    def __init__(self, kind, teacher, layer, close):  # a teacher with the same weights, which nothing else asks
        self.kind, self.teacher, self.layer, self.close, self.batches, self.steps = (
            kind,
            teacher,
            layer,
            close,
            0,
            0,
        )

    def before_train(self):
        self.forget()

    def before_validate(self):
        self.forget()

    def before_step(self):
        self.steps += 1

    def forget(self):
        if hasattr(self.teacher, 'reset'):
            self.teacher.reset()

    def ask(self):
        "The teacher's output and what its layer gives"
        given = []
        hook = self.teacher.get_submodule(self.layer).register_forward_hook(
            lambda module, inputs, output: given.append(output.clone())
        )
        with torch.no_grad():
            output = self.teacher.eval()(*[x.clone() for x in self.xb])
        hook.remove()
        return (output[0] if isinstance(output, tuple) else output).float(), given[0].float()

    def after_loss(self):
        self.batches += 1
        output, layer = self.ask()
        student = self.pred.detach().float()
        distill, match = (vars(self.learn).get(name) for name in ('distill', 'match'))
        total = None
        if distill:
            torch.testing.assert_close(distill.target, output, rtol=self.close, atol=self.close)
            soft = SOFT[self.kind](*(x.double().numpy() for x in (student, output)))
            np.testing.assert_allclose(float(distill.parts['soft']), soft, rtol=max(self.close, 1e-3), atol=self.close)
            total = float(torch.lerp(distill.parts['hard'], distill.parts['soft'], ALPHA))
            assert abs(total - float(distill.parts['total'])) < 1e-5
        if match:
            if total is not None:
                assert abs(total - float(match.parts['hard'])) < 1e-5
            if match.pairs:
                expected = float((match.features[match.student_layers[0]][0].detach().float() - layer).square().mean())
            elif match.loss_fn is squares:
                expected = float((student - output).square().mean())
            else:
                expected = SOFT[self.kind](*(x.double().numpy() for x in (student, output)))
            np.testing.assert_allclose(
                float(match.parts['fit']), expected, rtol=max(self.close * 3, 1e-3), atol=self.close
            )
            total = float(match.parts['hard'] + WEIGHT * match.parts['fit'])
        if self.training:
            assert abs(float(self.loss_grad) - total) < 1e-4
        else:
            torch.testing.assert_close(
                self.loss.as_subclass(torch.Tensor), self.loss_func(self.pred, *self.yb).as_subclass(torch.Tensor)
            )


def works_alone(kind, beside):
    "Whether fastai can do it without kdfast"
    try:
        learner(kind).fit(1, 1e-3, cbs=BESIDE[beside]())
    except Exception:
        return False
    return True


def case(kind, method, beside):
    learn, teacher, same = learner(kind), learner(kind, seed=1).model, learner(kind, seed=1).model
    check = Check(
        kind, same, LAYERS[kind].split(':')[0], 1e-4 if beside in ('alone', 'MixUp', 'accumulation', 'fp16') else 0.05
    )
    try:
        learn.fit(1, 1e-3, cbs=[*callbacks(method, kind, teacher), *BESIDE[beside](), check])
    except KdfastError as e:
        assert check.steps == 0 and len(e.message.split()) > 5
        assert method == 'kd_loss' and SOFT[kind] in (of_labels, of_numbers) or kind in ('pixels', 'language'), (
            e.message
        )  # all else is to be right
        return
    except Exception:
        if not works_alone(kind, beside):
            raise Skipped('fastai itself cannot') from None
        raise
    assert check.batches > 1 and check.steps


def cases():
    return [
        (f'{kind}, {method}, {beside}', partial(case, kind, method, beside))
        for kind in KINDS
        for method in METHODS
        for beside in BESIDE
    ]


if __name__ == '__main__':
    run('tasks', cases())
