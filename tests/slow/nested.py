"""Predictions from every event of a fit, with kdfast's callbacks: the fit ends with the same weights as without."""

from functools import partial

import torch
from conftest import equal
from fastai.callback.core import event
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    MixedPrecision,
    ProgressCallback,
    accuracy,
    noop,
    set_seed,
)
from taught_learners import Items
from torch import nn
from trial import Skipped, run

from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss, hint_loss
from kdfast.distill.losses.logits import dist_loss
from kdfast.distill.match import Match
from kdfast.training.precision import Bfloat16

EVENTS = [name for name in vars(event) if not name.startswith('_') and name != 'after_create']
ASK = {
    'get_preds': lambda learn: learn.get_preds(),
    'validate': lambda learn: learn.validate(),
    'tta': lambda learn: learn.tta(n=2),
    'of training images': lambda learn: learn.validate(dl=learn.dls.train),
    'inner': lambda learn: learn.get_preds(inner=True),
}


def net(width=4, classes=3, front=False):
    layers = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 3, 2, 1)]
    return nn.Sequential(
        *layers,
        *(
            []
            if front
            else [
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, classes),
            ]
        ),
    )


class Trained(nn.Module):
    "A loss with weights, statistics and a memory"

    def __init__(self):
        super().__init__()
        self.layers, self.seen = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.2)), 0

    def forward(self, guided, hint):
        self.seen += 1
        return hint_loss(self.layers(guided), hint) * (1 + self.seen / 100)


def teacher(front=False):
    torch.manual_seed(1)
    return net(8, front=front)


KINDS = {
    'none': lambda: [],
    'fastai MixedPrecision': lambda: [MixedPrecision()],
    'Distill': lambda: [Distill(teacher())],
    'Match of logits': lambda: [Match(teacher(), dist_loss)],
    'Match of layers': lambda: [Match(teacher(), at_loss, 10.0, '3:3')],
    'Match, trained': lambda: [Match(teacher(), Trained(), 1.0, '3:3')],
    'Hint': lambda: [Hint(teacher(front=True))],
    'Bfloat16': lambda: [Distill(teacher()), Bfloat16()],
    'MixedPrecision': lambda: [Distill(teacher()), MixedPrecision()],
    'all': lambda: [Distill(teacher()), Match(teacher(), Trained(), 1.0, '3:3'), Match(teacher(), dist_loss)],
}


class Asks(Callback):
    "Predicts once, in the second epoch, at one event"

    def __init__(self, at, ask, order):
        self.at, self.ask, self.order, self.asked = at, ask, order, 0

    def __call__(self, name):
        if (
            name == self.at
            and not self.asked
            and (vars(self.learn).get('epoch') == 1 or name in ('before_fit', 'after_fit', 'after_cancel_fit'))
        ):
            self.asked = 1
            self.ask(self.learn)


def trained(kind, *cbs):
    "Weights, the Recorder's rows and the parts of every batch"
    set_seed(0)
    x, y = torch.rand(24, 3, 8, 8), torch.arange(24) % 3
    dls = DataLoaders.from_dsets(Items(zip(x, y)), Items(zip(x, y)), bs=8, num_workers=0, device=torch.device('cpu'))
    learn = Learner(
        dls,
        net(front=kind == 'Hint'),
        hint_loss if kind == 'Hint' else CrossEntropyLossFlat(),
        metrics=None if kind == 'Hint' else accuracy,
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger, parts = noop, []

    class Look(Callback):
        order = 90

        def after_batch(self):
            parts.append(
                [
                    float(t)
                    for name in ('distill', 'match', 'hint')
                    for t in vars(vars(self.learn).get(name, self)).get('parts', {}).values()
                ]
            )

    own = KINDS[kind]()
    learn.fit_one_cycle(3, 1e-2, cbs=[*own, *cbs, Look()])
    weights = dict(learn.model.state_dict())
    for cb in own:
        if getattr(cb, 'loss_module', None):
            weights |= {f'loss.{name}': t for name, t in cb.loss_module.state_dict().items()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())
    return weights, learn.recorder.values, parts


def case(at, ask, kind, order, plain={}):
    if kind not in plain:
        plain[kind] = trained(kind)
    asks = Asks(at, ASK[ask], order)
    if kind == 'Hint' and ask == 'tta':
        raise Skipped('tta applies the activation of a loss of labels')
    try:
        weights, rows, parts = trained(kind, asks)
    except Exception as e:
        try:
            trained('fastai MixedPrecision' if kind == 'MixedPrecision' else 'none', Asks(at, ASK[ask], order))
        except type(e):
            raise Skipped(f'fastai alone raises {type(e).__name__}, too') from e
        raise
    if not asks.asked:
        raise Skipped('the event does not come')
    assert equal(weights, plain[kind][0]), 'other weights'
    same = [[float(v) for v in row] for row in rows] == [[float(v) for v in row] for row in plain[kind][1]]
    assert same, f'the Recorder has {rows}, without predictions {plain[kind][1]}'
    inner = [p for p in parts if p]
    assert (
        [p for p in plain[kind][2] if p] == [p for p in inner]
        or len(inner) > len(plain[kind][2])
        and subsequence(plain[kind][2], inner)
    ), 'other parts'


def subsequence(few, many):
    many = iter(many)
    return all(any(row == other for other in many) for row in few)


def cases():
    for kind in KINDS:
        if kind in ('none', 'fastai MixedPrecision'):
            continue  # fastai alone is disturbed
        for at in EVENTS:
            for ask in ASK:
                for order in (-20, 2.5, 80):
                    yield f'{kind}: {ask} from {at} at {order}', partial(case, at, ask, kind, order)


if __name__ == '__main__':
    run('nested', cases())
