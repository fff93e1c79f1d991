"""Every callback class of fastai in a run: as in plain fastai, and killed and resumed without a difference.

python tests/slow/callbacks.py [name …]

Each class trains a small network in a run, alone and with Distill. The weights must equal those of the same Learner
without kdfast's run; a run that is interrupted at several moments must end with the same weights and metrics.
"""

import argparse
import contextlib
import importlib
import io
import os
import pkgutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = '1'  # equal bits whatever else runs
TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
import paths  # noqa: F401

import fastai
import matplotlib
import torch
from conftest import draw
from fastai.callback.all import *
from fastai.callback.preds import MCDropoutCallback
from fastai.callback.tensorboard import TensorBoardCallback, TensorBoardProjectorCallback
from fastai.distributed import ParallelTrainer
from fastai.test_utils import VerboseCallback
from fastai.vision.all import *
from interruptions import same

from kdfast.data import load
from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.runs.recipes import find_recipe
from kdfast.training import checkpoints
from kdfast.training.execute import train
from kdfast.training.precision import Bfloat16, multiplies_bfloat16
from kdfast.training.learner import SeededOrder
from kdfast.all import *

matplotlib.use('Agg')  # of this process alone
PER_EPOCH = 9  # steps: 72 images, 8 a batch
EPOCHS = 3
MOMENTS = [(0, 4, 'after_batch'), (1, 0, 'after_batch'), (1, PER_EPOCH - 1, 'after_batch'), (2, 0, 'after_validate')]
RECIPE = f'''"A fit with callbacks."
import sys
sys.path.insert(0, {str(TESTS / 'slow')!r})
import callbacks

def main(run, case:str='', distill:bool=False):
    case = callbacks.CASES[case]
    return case.train(lambda **settings: run.learner(run.build(case.net), **settings), distill)
'''

WITHOUT = {  # classes that no run can have, and why
    'GatherPredsCallback': 'gathers for get_preds; passed to a fit, fastai alone raises AttributeError',
    'AzureMLCallback': 'needs a package that is not installed',
    'CometCallback': 'needs a package that is not installed',
    'WandbCallback': 'needs a package that is not installed',
    'GANTrainer': 'is part of a GANLearner',
    'FixedGANSwitcher': 'is part of a GANLearner',
    'AdaptiveGANSwitcher': 'is part of a GANLearner',
    'GANDiscriminativeLR': 'is part of a GANLearner',
    'ModelToHalf': 'needs a GPU',
    'NonNativeMixedPrecision': 'needs a GPU',
    'DistributedTrainer': 'needs a launcher; its subclass in kdfast has its own tests',
    'TensorBoardBaseCallback': 'is an abstract base class',
    'MixHandler': 'is an abstract base class',
}


def plain_net(n):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, n),
    )


class Rows(nn.Module):
    "A network that remembers: its hidden state goes from batch to batch, and it gives raw and dropped-out outputs, too"

    def __init__(self, n):
        super().__init__()
        self.rnn, self.drop, self.head = nn.GRU(24, 8, batch_first=True), nn.Dropout(0.2), nn.Linear(8, n)
        self.reset()

    def reset(self):
        self.hidden = None

    def forward(self, x):
        raw, hidden = self.rnn(
            x.movedim(2, 1).flatten(2),
            None if self.hidden is None else self.hidden.mean(1, keepdim=True).expand(-1, len(x), -1).contiguous(),
        )
        self.hidden = hidden.detach()
        out = self.drop(raw)
        return self.head(out[:, -1]), raw, out


class Logits(Callback):
    "Keeps a Rows network's logits alone"

    def after_pred(self):
        self.learn.pred = self.pred[0]


def one_cycle(learn, cbs):
    learn.fit_one_cycle(EPOCHS, 0.1, cbs=cbs)


def constant(learn, cbs):
    learn.fit(EPOCHS, 0.05, cbs=cbs)


def range_test(learn, cbs):
    with learn.added_cbs(cbs):
        rate = learn.lr_find(show_plot=False, num_it=20).valley
    learn.fit_one_cycle(EPOCHS, min(0.1, rate), cbs=cbs)


@dataclass
class Case:
    "A Learner and its fit."

    cbs: Callable = list  # new callbacks, for the fit
    fit: Callable = one_cycle
    net: Callable = plain_net
    learner: Callable = dict  # new settings of the Learner, its callbacks among them
    moments: list = field(default_factory=lambda: MOMENTS)

    def train(self, make, distill):
        learn = make(**self.learner())
        set_seed(1, reproducible=True)
        self.fit(learn, [*self.cbs(), *([Distill(teacher())] if distill else [])])
        return learn


def teacher():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return plain_net(3).eval()


CASES = dict(
    ActivationStats=Case(lambda: [ActivationStats(with_hist=True)]),
    BnFreeze=Case(lambda: [BnFreeze()]),
    CSVLogger=Case(lambda: [CSVLogger()]),
    CastToTensor=Case(lambda: [CastToTensor()]),
    ChannelsLast=Case(lambda: [ChannelsLast()]),
    CollectDataCallback=Case(lambda: [CollectDataCallback()]),
    CutMix=Case(lambda: [CutMix()]),
    EarlyStoppingCallback=Case(lambda: [EarlyStoppingCallback(min_delta=10.0, patience=1)], constant),
    FetchPredsCallback=Case(lambda: [FetchPredsCallback()]),
    GradientAccumulation=Case(lambda: [GradientAccumulation(24)]),
    GradientClip=Case(lambda: [GradientClip(0.1)]),
    HookCallback=Case(lambda: [HookCallback(hook=lambda m, i, o: o.mean(), every=2)]),
    LRFinder=Case(fit=range_test),
    MCDropoutCallback=Case(lambda: [MCDropoutCallback()]),
    MixUp=Case(lambda: [MixUp()]),
    MixedPrecision=Case(lambda: [MixedPrecision()]),
    ModelResetter=Case(lambda: [ModelResetter()], net=Rows, learner=lambda: dict(cbs=Logits())),
    ParallelTrainer=Case(lambda: [ParallelTrainer([0])]),
    ParamScheduler=Case(
        lambda: [
            ParamScheduler(
                dict(
                    lr=combine_scheds([0.5, 0.5], [SchedLin(0.01, 0.1), SchedPoly(0.1, 0.01, 2)]),
                    mom=SchedExp(0.9, 0.8),
                )
            )
        ],
        constant,
    ),
    ProgressCallback=Case(lambda: [ProgressCallback()]),
    RNNCallback=Case(net=Rows, learner=lambda: dict(cbs=RNNCallback())),
    RNNRegularizer=Case(
        lambda: [ModelResetter(), RNNRegularizer(2.0, 1.0)], net=Rows, learner=lambda: dict(cbs=RNNCallback())
    ),
    Recorder=Case(learner=lambda: dict(cbs=TrainMetrics())),
    ReduceLROnPlateau=Case(lambda: [ReduceLROnPlateau(min_delta=10.0, patience=1)], constant),
    SaveModelCallback=Case(lambda: [SaveModelCallback(comp=np.greater, with_opt=True)], constant),
    ShortEpochCallback=Case(lambda: [ShortEpochCallback(0.5)]),
    ShowGraphCallback=Case(lambda: [ProgressCallback(), ShowGraphCallback()]),
    SkipToEpoch=Case(fit=lambda learn, cbs: learn.fit_one_cycle(EPOCHS, 0.1, cbs=cbs, start_epoch=1)),
    TensorBoardCallback=Case(lambda: [TensorBoardCallback(log_dir=tempfile.mkdtemp(), log_preds=False)]),
    TensorBoardProjectorCallback=Case(lambda: [TensorBoardProjectorCallback(log_dir=tempfile.mkdtemp())]),
    TerminateOnNaNCallback=Case(lambda: [TerminateOnNaNCallback()]),
    TrackerCallback=Case(lambda: [TrackerCallback('accuracy')]),
    TrainEvalCallback=Case(),  # every Learner has it
    VerboseCallback=Case(lambda: [VerboseCallback()]),
)


class TrainMetrics(Callback):
    "Has fastai's Recorder measure training, too"

    def before_fit(self):
        self.recorder.train_metrics = True


class Interrupt(Callback):
    "As Ctrl-C, at one moment of the last fit that has it"

    order = 90

    def __init__(self, epoch, step, event):
        def act():
            here = self.learn.metrics_log.active and not hasattr(
                self.learn, 'gather_preds'
            )  # not in what FetchPreds asks
            if here and (self.epoch, self.iter) == (epoch, step) and self.training == (event != 'after_validate'):
                raise KeyboardInterrupt

        setattr(self, event, act)


def classes() -> dict:
    "Every callback class of fastai, by name."
    for module in pkgutil.walk_packages(fastai.__path__, 'fastai.'):
        if module.name.startswith('fastai.callback.') or module.name in (
            'fastai.distributed',
            'fastai.vision.gan',
            'fastai.test_utils',
            'fastai.learner',
        ):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)

    def below(kind):
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    return {kind.__name__: kind for kind in below(Callback) - {Callback} if kind.__module__.startswith('fastai.')}


# Trying


class Bench:
    "Tiny images, and the recipe that trains cases."

    def __init__(self, home):
        self.home, self.n = Path(home), 0
        draw(self.home / 'tiny' / 'train', 24, seed=0), draw(self.home / 'tiny' / 'valid', 12, seed=1)
        os.environ['XDG_CACHE_HOME'] = str(self.home / 'cache')
        (self.home / 'case.py').write_text(RECIPE)
        self.data, self.recipe = load(str(self.home / 'tiny')), find_recipe(str(self.home / 'case.py'))

    def run(self, kept_in, case, distill, at=None):
        "The finished run, or None where it was interrupted"
        watch = [lambda _: Interrupt(*at)] if at else []
        try:
            return train(self.recipe, self.data, 0, dict(case=case, distill=distill), kept_in, watch)
        except KeyboardInterrupt:
            return None

    def plain(self, case, distill):
        "The weights that fastai alone trains"
        dls = loaders(self.data, 0)

        def make(**settings):
            set_seed(0, reproducible=True)
            cbs = [
                SeededOrder(),
                *L(settings.pop('cbs', None)),
                *([Bfloat16()] if multiplies_bfloat16(dls.device) else []),
            ]
            model = CASES[case].net(3).to(memory_format=torch.channels_last)
            learn = Learner(
                dls,
                model,
                cbs=cbs,
                path=self.new(),
                **dict(loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9), wd=5e-3, metrics=accuracy)
                | settings,
            )
            learn.remove_cbs(ProgressCallback)
            learn.logger = noop
            return learn

        return CASES[case].train(make, distill).model.state_dict()

    def new(self):
        self.n += 1
        path = self.home / f"{self.n:04}"
        path.mkdir()
        return path

    def try_case(self, case, distill) -> list[tuple[str, bool]]:
        "What was tried, and whether it is as it should be"
        whole = self.run(self.new(), case, distill)
        plain, own = self.plain(case, distill), dict(weights_of(whole))
        results = [
            ('as plain fastai', plain.keys() == own.keys() and all(bool((plain[k] == own[k]).all()) for k in plain))
        ]
        for at in CASES[case].moments:
            kept_in = self.new()
            stopped = self.run(kept_in, case, distill, at)
            done = stopped or self.run(kept_in, case, distill)
            results.append((f'interrupted in {at}' if not stopped else f'had ended before {at}', same(done, whole)))
        return results


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / 'weights.safetensors')


def try_all(names, beside=(False, True)):
    "Print each that fails; (passed, tried)"
    found, passed, tried = classes(), 0, 0
    unknown = sorted(found.keys() - CASES.keys() - WITHOUT.keys())
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(home)
        for case in [name for name in CASES if not names or name in names]:
            for distill in beside:
                said = io.StringIO()
                try:
                    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                        results = bench.try_case(case, distill)
                except Exception:
                    results = [(traceback.format_exc().strip().splitlines()[-1], False)]
                tried, passed = tried + 1, passed + all(good for _, good in results)
                kept = '' if 'cannot be saved' not in said.getvalue() else ' (starts again, and said so)'
                wrong = '; '.join(what for what, good in results if not good)
                print(f"{case}{' and Distill' if distill else ''}: {wrong or 'passed'}{kept}", flush=True)
    for name in unknown:
        print(f'{name}: not tried')
    return passed, tried + len(unknown)


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='name', help=', '.join(CASES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    checkpoints.EVERY = 0  # a checkpoint every step
    passed, tried = try_all(asked.names)
    for name, reason in sorted(WITHOUT.items()):
        print(f'{name}: left out, it {reason}')
    print(f'callbacks: {passed}/{tried}')
    sys.exit(passed < tried)


if __name__ == '__main__':
    main()
