"Batches that a background thread reads: the same bits, order and errors as without; no thread is left."

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback, CancelFitException, CrossEntropyLossFlat, Learner, ProgressCallback, noop

from kdfast.data import load
from kdfast.data.crops import copy_crops, crop_indices, take_crops
from kdfast.data.dataloaders import ImageBatches, loaders
from kdfast.data.prefetch import DEPTH, map_ahead
from kdfast.data.random_streams import generator
from kdfast.models.study_networks import thin
from kdfast.training.learner import SeededOrder


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads()


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr('kdfast.data.dataloaders.AHEAD_BYTES', 1)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith('kdfast-prefetch')]


def epochs(data):
    "Batches and their indices, of two epochs of training and one of validation"
    dls = loaders(data, seed=3)
    return [(x, y, dl.batch_idx) for dl in (dls.train, dls.train, dls.valid) for x, y in dl]


OPTIONS = [dict(), dict(holdout=0.25), dict(size=8), dict(grow=0.5), dict(augment='strong'), dict(augment='none')]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_same_batches_as_without(images, monkeypatch, options):
    data, found = load(str(images), **options), []
    for n_bytes in 10**9, 1:
        monkeypatch.setattr('kdfast.data.dataloaders.AHEAD_BYTES', n_bytes)
        assert loaders(data).train.reads_ahead == (n_bytes == 1)
        found.append(epochs(data))
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize('flip', [True, False])
@pytest.mark.parametrize('shape,size', [((32, 48), None), ((37, 37), 32), ((5, 1), None), ((16, 16), 1), ((8, 8), 8)])
def test_copied_crops_equal_indexed_ones(shape, size, flip):
    images = np.random.default_rng(0).integers(0, 256, (40, *shape, 3), dtype=np.uint8)
    crops = crop_indices(40, shape, flip, generator(1), size)
    assert (copy_crops(images, size, *crops) == take_crops(torch.from_numpy(images), size, *crops).numpy()).all()


def test_items_are_computed_ahead_in_another_thread_and_requested_in_this_one():
    requested, computed, release = [], [], threading.Event()

    def items():
        for i in range(6):
            requested.append((i, threading.current_thread()))
            yield i

    def compute(i):
        computed.append((i, threading.current_thread()))
        if i == DEPTH:
            release.set()
        return i

    results = map_ahead(compute, items())
    assert next(results) == 0 and release.wait(10)  # computed without being asked for
    assert len(requested) == DEPTH + 1 and list(results) == [1, 2, 3, 4, 5]
    assert {thread for _, thread in requested} == {threading.current_thread()}
    assert [i for i, _ in computed] == list(range(6)) and threading.current_thread() not in {t for _, t in computed}


def test_batch_idx_epoch_and_progress_are_those_of_the_training(data, ahead):
    dls = loaders(replace(data, grow=0.5), seed=3)
    labels, dls.train.progress, dls.train.epoch = torch.as_tensor(data.train[1]), 0.0, 5
    for i, (x, y) in enumerate(dls.train):
        assert torch.equal(labels[dls.train.batch_idx], y) and x.shape[2] == (4 if i < 2 else 8)
        dls.train.progress = 1.0 if i else 0.0  # also of batches that were read before
    order = dls.train
    order.epoch = 5
    assert dls.train.batch_idx.tolist() == order.get_idxs()[-8:]


def test_nested_iteration_of_the_same_loader(data, ahead):
    dls = loaders(data, seed=3)
    plain = [y for _, y in dls.train]
    dls.train.epoch, found = 0, []
    for i, (_, y) in enumerate(dls.train):
        found.append(y)
        if i == 1:
            dls.train.epoch = 0
            assert all(torch.equal(a, b) for a, (_, b) in zip(plain, dls.train, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_skipped_batches_are_not_read(data, ahead, monkeypatch):
    "The others are the same; the next epoch is complete"
    dls, read = loaders(data, seed=3), []
    whole, dls.train.epoch = list(dls.train), 0
    monkeypatch.setattr(
        ImageBatches, 'read', lambda self, drawn, of=ImageBatches.read: read.append(1) or of(self, drawn)
    )
    assert dls.train.skip_batches(6) == 6
    rest = list(dls.train)
    assert len(read) == len(rest) == 3 and len(list(dls.train)) == 9
    assert all(torch.equal(a, x) and torch.equal(b, y) for (a, b), (x, y) in zip(whole[6:], rest))


@pytest.mark.parametrize('error', [CancelFitException, KeyboardInterrupt, ZeroDivisionError])
def test_no_thread_is_left_by_a_fit_that_ends_early(data, ahead, error):
    class Stop(Callback):
        def after_batch(self):
            assert threads()
            raise error('stop')

    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat(), cbs=[SeededOrder(), Stop()])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    if error is CancelFitException:
        return learn.fit(1)
    with pytest.raises(error) as raised:
        learn.fit(1)
    raised.value.__traceback__ = None  # it holds the loop of the fit
    del raised


def test_errors_are_raised_as_themselves_when_their_batch_is_due(data, ahead, monkeypatch):
    def read(self, drawn, of=ImageBatches.read):
        if not len(set(drawn[0].tolist()) & bad):
            return of(self, drawn)
        raise FileNotFoundError('gone')

    dls = loaders(data, seed=3)
    bad = set(dls.train.get_idxs()[16:18])  # of the third batch
    monkeypatch.setattr(ImageBatches, 'read', read)
    batches = iter(dls.train)
    next(batches), next(batches)
    with pytest.raises(FileNotFoundError, match='gone'):
        next(batches)
