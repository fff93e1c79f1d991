import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, Learner, ProgressCallback, load_learner, noop
from PIL import Image

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.crops import crop_and_flip
from kdfast.data.dataloaders import (
    Images,
    loaders,
)
from kdfast.data.device_transfer import make_resident
from kdfast.data.given_images import decode_given
from kdfast.data.random_streams import MEMORY, NEGATIVES, PROCESSES, generator
from kdfast.models.study_networks import thin
from kdfast.training.learner import SeededOrder


def epoch(dls, e):
    dls.train.epoch = e
    batches = list(dls.train)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_batches_depend_on_seed_and_epoch_alone(data):
    "Even if other code draws random numbers"
    a, b = loaders(data, seed=3), loaders(data, seed=3)
    xa, ya = epoch(a, 1)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    epoch(b, 0)
    torch.rand(7)
    xb, yb = epoch(b, 1)
    assert (xa == xb).all() and (ya == yb).all()


def test_other_seeds_and_epochs_differ(data):
    dls = loaders(data, seed=3)
    order = [(setattr(dls.train, 'epoch', e), dls.train.get_idxs())[1] for e in (0, 1)]
    assert order[0] != order[1] and loaders(data, seed=4).train.get_idxs() not in order
    x0, x1, other = epoch(dls, 0)[0], epoch(dls, 1)[0], epoch(loaders(data, seed=4), 0)[0]
    assert not (x0 == x1).all() and not (x0 == other).all()


def test_epoch_is_counted_by_default(data):
    dls = loaders(data, seed=3)
    for e in range(3):
        assert (torch.cat([x for x, _ in dls.train]) == epoch(loaders(data, seed=3), e)[0]).all()


def test_epoch_has_every_image_once(data):
    idxs = loaders(data).train.get_idxs()
    assert sorted(idxs) == list(range(72)) and idxs != sorted(idxs)


def test_crop_is_a_shifted_or_mirrored_image():
    x = torch.arange(1, 1 + 40 * 3 * 32 * 32).reshape(40, 3, 32, 32)
    seen = set()
    for image, crop in zip(x, crop_and_flip(x, True, generator(0))):
        wide = torch.nn.functional.pad(image, (2, 2, 2, 2))
        found = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if (
                wide[:, top : top + 32, left : left + 32].flip(-1)
                if flip
                else wide[:, top : top + 32, left : left + 32]
            ).equal(crop)
        ]
        assert len(found) == 1
        seen.update(found)
    assert not any(crop.flip(-1).equal(image) for image, crop in zip(x, crop_and_flip(x, False, generator(0))))
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5)) and {
        flip for *_, flip in seen
    } == {True, False}


def whole(images, device):
    return torch.from_numpy(np.array(images[:])).to(device)


@pytest.mark.parametrize(
    'options',
    [dict(), dict(holdout=0.25), dict(size=8), dict(grow=0.5)],
    ids=['plain', 'some rows', 'cut out', 'growing'],
)
def test_resident_images_give_the_same_batches(images, monkeypatch, options):
    data = load(str(images), **options)

    def shown():
        dls = loaders(data, seed=3)
        plain = dls.train.new(dls.train_ds.plain(), shuffle=False, drop_last=False)
        dls.train.progress = 0.3
        return [(x.cpu(), y.cpu()) for dl in (dls.train, dls.train, dls.valid, plain) for x, y in dl]

    mapped = shown()
    monkeypatch.setattr('kdfast.data.dataloaders.make_resident', whole)
    for (x, y), (other, label) in zip(mapped, shown(), strict=True):
        assert torch.equal(x, other) and torch.equal(y, label)


def test_images_are_resident_on_a_gpu_with_room(data, monkeypatch):
    images = data.train[0]
    assert make_resident(images, torch.device('cpu')) is images
    monkeypatch.setattr('torch.cuda.mem_get_info', lambda device: (4 * images.size - 1, 0))
    assert make_resident(images, torch.device('cuda')) is images
    if not torch.cuda.is_available():
        return
    monkeypatch.undo()
    there = make_resident(images, torch.device('cuda'))
    assert there.device.type == 'cuda' and (there.cpu().numpy() == images).all()


def test_validation_images_are_unchanged(data):
    x, y = next(iter(loaders(data).valid))
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    as_stored = torch.from_numpy(np.array(data.valid[0])).permute(0, 3, 1, 2)
    torch.testing.assert_close((torch.Tensor(x) * std + mean) * 255, as_stored.float(), rtol=0, atol=1e-3)
    assert y.tolist() == data.valid[1].tolist()


@pytest.mark.parametrize('resides', [False, True], ids=['mapped', 'resident'])
def test_batch_idx_holds_the_indices_of_the_batch(data, monkeypatch, resides):
    "Indices in the training set, of this process's share"
    if resides:
        monkeypatch.setattr('kdfast.data.dataloaders.make_resident', whole)
    mean, std = (torch.tensor(o)[:, None, None] for o in (data.mean, data.std))
    for rank, size in (0, 1), (1, 2):
        monkeypatch.setattr(distributed, 'rank', rank)
        monkeypatch.setattr(distributed, 'size', size)
        dls = loaders(replace(data, size=8), seed=3)  # as large as they are: not shifted
        monkeypatch.setattr(dls.train.dataset, 'mirror', False)
        seen = []
        for x, y in dls.train:
            seen += dls.train.batch_idx.tolist()
            assert (torch.as_tensor(data.train[1])[dls.train.batch_idx] == y).all()
            stored = torch.from_numpy(np.array(data.train[0]))[dls.train.batch_idx].permute(0, 3, 1, 2)
            torch.testing.assert_close((torch.Tensor(x) * std + mean) * 255, stored.float(), rtol=0, atol=1e-3)
        assert len(set(seen)) == len(seen) == 72 // size
        next(iter(dls.valid))
        assert dls.valid.batch_idx.tolist() == list(range(36))


def test_random_streams_are_separate_and_seeds_stable():
    "The seeds of order and crops must not change between versions"
    assert [generator(*entropy).initial_seed() for entropy in ((0, 0, 0), (0, 0, 1), (3, 7, 0))] == [
        2968811710,
        3831201730,
        2580024465,
    ]
    streams = (None, MEMORY, NEGATIVES, PROCESSES)
    entropies = [(seed, *rest) for seed in range(8) for rest in ((), (0,), (0, 0), (1,), (1, 0), (0, 1))]
    of_stream = [{generator(*entropy, stream=stream).initial_seed() for entropy in entropies} for stream in streams]
    assert len(set.union(*of_stream)) == sum(map(len, of_stream))


def test_batches_are_channels_last(data):
    assert next(iter(loaders(data).train))[0].is_contiguous(memory_format=torch.channels_last)


def test_fastai_methods_work(data):
    "get_preds in the order of the data set, show_batch with names of classes, new, vocab"
    dls = loaders(data)
    learn = Learner(dls, thin(3), CrossEntropyLossFlat())
    with learn.no_bar():
        _, actual = learn.get_preds(dl=dls.train.new(dls.train_ds.plain(), shuffle=False, drop_last=False))
    assert actual.tolist() == data.train[1].tolist()
    assert list(dls.vocab) == data.classes and dls.c == 3
    _, _, items = dls.show_batch(show=False)
    assert all(name in data.classes for _, name in items)


def test_list_of_indices_gives_a_batch(data):
    x, y = Images(*data.train, data.classes)[[5, 0]]
    assert x.shape == (2, 3, 8, 8) and (x[1].permute(1, 2, 0).numpy() == data.train[0][0]).all()


def test_exported_learner_has_no_images(data, tmp_path):
    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat(), path=tmp_path)
    learn.export()
    again = load_learner(tmp_path / 'export.pkl')
    x, _ = learn.dls.valid.one_batch()
    with torch.no_grad():
        assert (again.model.eval()(x) == learn.model.eval()(x)).all()
    assert [len(dl.dataset) for dl in again.dls.loaders] == [0, 0] and again.dls.vocab == learn.dls.vocab


def test_processes_share_every_batch(data, monkeypatch):
    "Augmented as in a single process; each process has all validation images"
    (x, y), (valid, _) = loaders(data).train.one_batch(), loaders(data).valid.one_batch()
    monkeypatch.setattr(distributed, 'size', 2)
    for rank in 0, 1:
        monkeypatch.setattr(distributed, 'rank', rank)
        dls = loaders(data)
        (own, labels), (same, _) = dls.train.one_batch(), dls.valid.one_batch()
        assert torch.equal(own, x[rank::2]) and torch.equal(labels, y[rank::2]) and torch.equal(same, valid)


def test_progressive_resizing(data):
    "Images are scaled, not cropped; full size for the last quarter and for validation; the crops are the same"
    grown, plain = replace(data, grow=0.5), loaders(data, seed=3)
    assert [replace(data, size=32, grow=0.5).shape_at(e / 8) for e in range(8)] == [
        (side, side) for side in (16, 20, 20, 24, 28, 28, 32, 32)
    ]  # 16 + 16·(e/8)/0.75, in fours
    assert (
        replace(data, size=30, grow=0.45).shape_at(0.75) == replace(data, size=30).shape_at(0) == (30, 30)
    )  # though no multiple of 4
    assert np.mean(
        [(replace(data, size=32, grow=0.5).shape_at(e / 32)[0] / 32) ** 2 for e in range(32)]
    ) == pytest.approx(2 / 3, abs=0.02)  # of the work
    dls = loaders(grown, seed=3)
    dls.train.progress = 0.0
    small, whole = dls.train.one_batch()[0], plain.train.one_batch()[0]
    assert small.shape[2:] == (4, 4) and dls.valid.one_batch()[0].shape[2:] == (8, 8)
    means = (
        whole.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    )  # antialiasing looks a little farther than the 2×2 pixels
    assert np.corrcoef(small.flatten(), means.flatten())[0, 1] > 0.9
    dls.train.progress, dls.train.epoch = 0.75, 0
    assert (dls.train.one_batch()[0] == loaders(data, seed=3).train.one_batch()[0]).all()


def test_fit_sets_progress(data):
    seen = []

    class Look(Callback):
        def before_batch(self):
            seen.append((self.training, self.epoch, self.xb[0].shape[2]))

    learn = Learner(loaders(replace(data, grow=0.5)), thin(3), CrossEntropyLossFlat(), cbs=[SeededOrder(), Look()])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    learn.fit(4, 0.01)
    assert set(seen) == {
        (True, 0, 4),
        (True, 1, 4),
        (True, 2, 8),
        (True, 3, 8),
        *((False, epoch, 8) for epoch in range(4)),
    }  # 4 + 4·(epoch/4)/0.75, in fours


@pytest.mark.parametrize('size', [None, 14])
def test_fastai_predicts_files_pictures_arrays_and_items(images, tmp_path, size):
    "The same probabilities as for the same images in the validation set; also after export"
    data = load(str(images), size=size)
    torch.manual_seed(0)
    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat(), path=tmp_path)
    learn.export('x.pkl')
    file = sorted((images / 'valid').rglob('*.png'))[0]
    first = next(i for i, (x, _) in enumerate(learn.dls.valid_ds) if names_image(x, file, size))
    for learner in (learn, load_learner(tmp_path / 'x.pkl')):
        with learner.no_bar():
            expected = learn.get_preds()[0][first]
            picture = Image.open(file).convert('RGB')
            for item in (file, str(file), picture, np.array(picture), learn.dls.valid_ds[first][0]):
                name, label, found = learner.predict(item)
                torch.testing.assert_close(found, expected)
                assert name == data.classes[int(label)] == data.classes[int(expected.argmax())]
            found = learner.get_preds(dl=learner.dls.test_dl([file, file]))[0]
            torch.testing.assert_close(found, expected.expand(2, -1))


def names_image(x, file, size):
    "Whether an item of a data set is the image of a file"
    expected = decode_given([file], x.shape[1:], size)[0]
    return (x.movedim(0, -1).numpy() == expected).all()


@pytest.mark.parametrize(
    'item,said',
    [
        ('gone.png', 'cannot read gone.png'),
        (np.zeros((5, 6, 3), np.uint8), 'image 0 is 6×5, expected 8×8'),
        (torch.zeros(3, 16, 16), 'torch.float32 tensor'),
        (3, 'found int, expected the name of a file'),
    ],
)
def test_what_cannot_be_predicted_is_refused(data, item, said):
    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat())
    with learn.no_bar(), pytest.raises(KdfastError, match=said):
        learn.predict(item)
