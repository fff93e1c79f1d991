"Callbacks, optimizers and losses with state: an interrupted fit ends with the same bits, or a note says why not."

import callbacks
import pytest
import torch
from callbacks import Case, Interrupt, constant, plain_net
from conftest import begun, equal
from fastai.vision.all import (
    Callback,
    SaveModelCallback,
)
from stateful_callbacks import KINDS, SAY, Says, Stream, with_opt
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.training import checkpoints
from kdfast.training.checkpoints import Checkpoints


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)


def fit(data, path, case, at=None, distill=False):
    "Through a run's Learner: weights, steps, rows of epochs, and what was said; None for all where it was interrupted"
    said = []
    run = begun(data, path, *([lambda _: at if isinstance(at, Callback) else Interrupt(*at)] if at else []))
    run.checkpoints = Checkpoints(run.folder, said.append)
    try:
        learn = case.train(lambda **settings: run.learner(run.build(case.net), **settings), distill)
    except KeyboardInterrupt:
        return None, said
    rows = [{k: v for k, v in row.items() if k != 'seconds'} for row in run.metrics_log.epochs]
    return (
        learn.model.state_dict(),
        (run.folder / 'steps.csv').read_text(),
        rows,
        torch.get_rng_state().tolist(),
    ), said


def same(one, other):
    return equal(one[0], other[0]) and one[1:] == other[1:]


FASTAI = 'LRFinder', 'MixUp', 'SaveModelCallback'  # one with a fit inside, a distribution, a file; all: tests/slow


@pytest.mark.parametrize('name', [*KINDS, *FASTAI])
def test_an_interrupted_fit_ends_with_the_same_bits(data, tmp_path, name):
    case, distill = KINDS.get(name) or callbacks.CASES[name], name in ('MixUp', 'average', 'twice')
    whole, said = fit(data, tmp_path / 'whole', case, distill=distill)
    assert any('cannot be saved' in note for note in said) == (name in SAY), said
    for i, moment in enumerate([(1, 4, 'after_batch'), (1, 0, 'after_validate')]):
        cut, said = fit(data, tmp_path / f'{i}', case, moment, distill)
        assert cut is None or moment[0] >= len(whole[2]) or name in ('epoch', 'untrained', 'unvalidated', 'train')
        assert same(fit(data, tmp_path / f'{i}', case, distill=distill)[0], whole)


def test_a_note_names_state_that_cannot_be_saved_before_the_first_step(data, tmp_path):
    class Look(Callback):
        def before_batch(self):
            assert said and 'Stream.numbers is a builtins.generator' in said[0]

    said = []
    run = begun(data, tmp_path / 'run')
    run.checkpoints = Checkpoints(run.folder, said.append)
    run.learner(run.build(plain_net)).fit(1, 0.1, cbs=[Stream(), Look()])
    assert said[0].endswith('if this run is interrupted, it resumes from the beginning of fit 1') and len(said) == 1


def test_a_repeated_fit_with_other_first_weights_is_refused(data, tmp_path):
    def zeros(n):
        return plain_net(n).apply(lambda m: [nn.init.zeros_(p) for p in m.parameters()])

    case, other = KINDS['stream'], Case(KINDS['stream'].cbs, net=zeros)
    assert fit(data, tmp_path / 'run', case, (1, 4, 'after_batch'))[0] is None
    with pytest.raises(KdfastError, match='was interrupted in fit 1, which now begins with other weights'):
        fit(data, tmp_path / 'run', other)


def test_a_recipe_that_creates_other_objects_on_resumption_is_refused(data, tmp_path):
    assert fit(data, tmp_path / 'run', KINDS['average'], (1, 4, 'after_batch'))[0] is None
    with pytest.raises(
        KdfastError,
        match='has the state of stateful_callbacks.EMA at .callbacks.*the recipe creates different objects',
    ):
        fit(data, tmp_path / 'run', KINDS['says'])


def test_an_optimizer_that_fastai_cannot_step_is_refused_before_training(data, tmp_path):
    with pytest.raises(KdfastError, match='torch.optim.lbfgs.LBFGS computes the loss several times per step'):
        fit(data, tmp_path / 'run', Case(learner=with_opt(torch.optim.LBFGS)))


def test_several_learners_of_a_run_may_fit_in_turns(data, tmp_path):
    def turns(make):
        one, other = make(), make()
        for learn in (one, other, one):
            learn.fit(1, 0.05)
        return one

    class Turns(Case):
        def train(self, make, distill):
            return turns(make)

    whole, _ = fit(data, tmp_path / 'whole', Turns())
    assert [row['stage'] for row in whole[2]] == [1, 2, 3]

    class Stop(Callback):
        def __init__(self, stage):
            self.stage = stage

        def after_step(self):
            if self.learn.metrics_log.stage == self.stage and self.iter == 4:
                raise KeyboardInterrupt

    for stage in (2, 3):
        assert fit(data, tmp_path / f'{stage}', Turns(), Stop(stage))[0] is None
        assert same(fit(data, tmp_path / f'{stage}', Turns())[0], whole)


def test_lists_that_grow_with_every_step_are_saved_in_their_own_files(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 60)
    sizes = []

    class Size(Callback):
        order = 95

        def before_epoch(self):
            sizes.append([f.stat().st_size for f in sorted((self.path / 'resume').glob('*.safetensors'))][-1:])

    fit(data, tmp_path / 'run', Case(lambda: [Size()], lambda learn, cbs: learn.fit_one_cycle(12, 0.1, cbs=cbs)))
    grown = sizes[-1][0] - sizes[2][0]
    assert grown / 9 < 600  # bytes an epoch: its row in metrics.csv, and what fastai's Recorder keeps of it


def test_best_weights_are_never_read_by_pickle(data, tmp_path):
    class Bad(Callback):
        order = 62

        def after_epoch(self):
            torch.save(Says(), self.path / 'models' / 'model.pth')

    with pytest.raises(Exception, match='[Ww]eights.only'):
        fit(data, tmp_path / 'run', Case(lambda: [SaveModelCallback(), Bad()], constant))
