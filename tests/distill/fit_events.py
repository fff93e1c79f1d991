"Callbacks that record events or predict at one, and a Learner that is trained with them."

from fastai.callback.core import event
from fastai.vision.all import (
    Callback,
    accuracy,
    set_seed,
)
from taught_learners import learner, net

from kdfast.distill.fit import FitCallback


class Events(FitCallback):
    "The events that it is called with"

    order = 60

    def __init__(self, in_predictions=False):
        self.in_predictions, self.seen, self.left = in_predictions, [], 0

    def leave(self):
        self.left += 1


for _name in vars(event):
    if not _name.startswith('_'):
        setattr(Events, _name, lambda self, name=_name: self.seen.append(name))


class At(Callback):
    "Does something once, at one event of the second epoch"

    def __init__(self, at, do, order=70):
        self.at, self.do, self.order, self.done = at, do, order, False

    def __call__(self, name):
        if (
            name == self.at
            and not self.done
            and (vars(self.learn).get('epoch') == 1 or name in ('before_fit', 'after_fit'))
        ):
            self.done = True
            self.do(self.learn)


def trained(*cbs, model=None, **kwargs):
    set_seed(0)
    learn = learner(model or net(), metrics=accuracy, **kwargs)
    learn.dls.train.shuffle = True  # draws from a generator of the loader's own
    learn.fit_one_cycle(2, 1e-2, cbs=[*cbs])
    return learn, dict(learn.model.state_dict())


ASK = [
    lambda learn: learn.get_preds(),
    lambda learn: learn.validate(),
    lambda learn: learn.tta(n=1),
    lambda learn: learn.validate(dl=learn.dls.train),
]
